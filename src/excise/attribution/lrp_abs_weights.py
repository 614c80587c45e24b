"""For comparison only: the score of the public SparC3 reproduction, absolute weight relevances of each sample.

    score_i = mean over samples of sum_j abs(sum over tokens of w_ij a_tj g_ti)

over the rows ``i`` of the up projection, with the gradients ``g`` of AttnLRP. Neither the sign that SparC3 keeps nor
gate and output projection enter, and a large score says that a neuron matters, not what for. It costs a weight
gradient for every sample.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from excise.attribution import Measure, Measured, Options, Values, subtract
from excise.attribution.means import mean_relevance
from excise.errors import ExciseError

if TYPE_CHECKING:
    from excise.attribution.batches import Batch


@contextlib.contextmanager
def measuring(model: Any, options: Options) -> Iterator[Measure]:
    """See ``excise.attribution``; values: ``relevance``, never negative."""
    import torch

    from excise.attribution.backward import recomputing, relevance
    from excise.attribution.common import refuse_zero
    from excise.attribution.lxt_patch import patched
    from excise.attribution.row_sums import noting
    from excise.models.families import neuron_shape
    from excise.models.parts import input_projections

    with patched(model, "attnlrp") as patch, recomputing(model, options.recompute):

        def measure(batch: "Batch") -> Values:
            found = torch.zeros(len(batch.ids), *neuron_shape(model.config), dtype=torch.float64)
            with contextlib.ExitStack() as stack:
                for layer, projections in enumerate(input_projections(model)):
                    if projections[-1].get_parameter("weight").is_meta:
                        raise ExciseError("lrp-abs-weights needs the weights in memory; this model is offloaded")
                    hook = noting(projections[-1], found, layer)
                    stack.callback(projections[-1].register_forward_hook(hook).remove)
                relevance(model, batch, objective=options.objective, elementwise=patch.elementwise, halve=patch.halve)
            patch.verify_ran()
            refuse_zero(found, batch)
            return {"relevance": found}

        yield measure


METHOD = Measured(
    name="lrp-abs-weights",
    label="sums of absolute weight relevances, as in SparC3's public reproduction",
    needs="backward",
    units=("neuron",),
    packages=("torch", "transformers", "lxt"),
    measuring=measuring,
    scores=mean_relevance,
    contrast=subtract,
    squares=("relevance",),
)
