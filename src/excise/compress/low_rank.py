"""Low rank: every map becomes the product of two thin matrices, stored multiplied back.

*Whitened*, as SVD-LLM (Wang et al. 2024): of all matrices of a rank, the one that changes the map's outputs on the
calibration tokens least. With ``W C = U S V'`` and ``C C' = G`` that is ``U_r S_r V_r' C^-1 = U_r U_r' W``, and ``U``
are the eigenvectors of ``W G W'``: no factor C and no inverse are needed. *Plain* SVD (``G = I``) changes the matrix
least, and is the control.

A folder of factors would load nowhere; multiplied back it is a model of its family, as large as before.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from excise.artefacts import Json
from excise.compress.change import Dense, Place, maps_in, turned
from excise.compress.edit import gram_of, relative_error
from excise.compress.inputs import Inputs, damped
from excise.errors import ExciseError

DAMPING = 0.01
"""Share of the mean diagonal of the Gram matrix: directions that calibration hardly saw keep some weight."""

MASKED = 0.05
"""A map with more than this share of zeros was pruned; factors are dense, and would lose the zeros."""


def rank_of(share: Fraction, outputs: int, inputs: int) -> int:
    """The highest rank whose factors have at most this share of a matrix's parameters.

    Raises:
        ExciseError: it is zero, or the factors save nothing: from rank m n / (m + n) on they do not.
    """
    rank = int(share * outputs * inputs / (outputs + inputs))
    least = outputs * inputs / (outputs + inputs)
    if not 1 <= rank < least:
        raise ExciseError(
            f"{float(share):g} of the parameters of {outputs} x {inputs} weights is rank {rank}; factors save some "
            f"from rank 1 to below {least:.1f}, where they have as many"
        )
    return rank


def factors(weight: Tensor, gram: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """``A [outputs, rank]`` and ``B [rank, inputs]`` whose product is the best matrix of this rank, float64.

    Args:
        weight: ``[outputs, inputs]``.
        gram: ``[inputs, inputs]`` of the inputs, float64; None: plain SVD.
        rank: columns of A.
    """
    exact = weight.double()
    seen = exact if gram is None else exact @ damped(gram, DAMPING)
    vectors = torch.linalg.eigh(seen @ exact.T).eigenvectors[:, -rank:]  # in ascending order
    return vectors, vectors.T @ exact


@dataclass(frozen=True)
class LowRank:
    """Replace every map of every layer.

    Attributes:
        share: of a map's parameters that its factors may have.
        whitened: measure the change in outputs, not in weights.
        scope: which maps, one of ``recipe.SCOPES``.
    """

    share: Fraction
    whitened: bool = True
    scope: str = "attention"

    @property
    def needs(self) -> str:
        """What is measured of the maps' inputs."""
        return "gram" if self.whitened else "weights"

    def maps(self, model: Any, layer: int) -> dict[str, nn.Module]:
        """The linear maps of a layer, by path."""
        return maps_in(self.scope, model, layer)

    def check(self, model: Any) -> None:
        """Refuse a share that saves nothing.

        Raises:
            ExciseError: some map would not get smaller.
        """
        for part in self.maps(model, 0).values():
            rank_of(self.share, *turned(part, part.get_parameter("weight")).shape)

    def prepared(self, model: Any, dense: Dense, place: Place) -> "LowRank":  # noqa: ARG002 (each layer by itself)
        """Itself."""
        return self

    def entries(self, config: Any) -> Json:  # noqa: ARG002 (shapes stay)
        """None: shapes stay."""
        return {}

    def apply(
        self, model: Any, tensors: dict[str, Tensor], inputs: dict[str, Inputs], layer: int, place: Place
    ) -> tuple[dict[str, Tensor], list[Json]]:
        """The products, and a row with rank and counts per map.

        Raises:
            ExciseError: a map was pruned, or a number is not finite.
        """
        new, rows = {}, []
        for name, part in self.maps(model, layer).items():
            stored = tensors[f"{name}.weight"]
            weight = place.exact(turned(part, stored))
            where = f"layer {layer}, {name}"
            if not weight.isfinite().all() or (name in inputs and not inputs[name].squares.isfinite().all()):
                raise ExciseError(f"{where}: a weight or a calibration input is not finite")
            if (zeros := float((weight == 0).double().mean())) > MASKED:
                raise ExciseError(
                    f"{where}: {zeros:.0%} of the weights are zero. Factors of a pruned map are dense and lose its "
                    "zeros: take the low rank of the unpruned model, and prune that"
                )
            rank = rank_of(self.share, *weight.shape)
            first, second = factors(weight, gram_of(inputs[name]) if self.whitened else None, rank)
            product = (first @ second).to(weight.dtype)
            new[f"{name}.weight"] = turned(part, product).to("cpu", stored.dtype).contiguous()
            counts = {"rank": rank, "weights": weight.numel(), "factors": first.numel() + second.numel()}
            error = {"error": relative_error(weight, product, inputs[name])} if self.whitened else {}
            rows.append({"layer": layer, "map": name, **counts, **error})
        return new, rows

    def total(self, rows: list[Json]) -> Json:
        """How many weights the maps have, and how many their factors would have."""
        return {key: sum(row[key] for row in rows) for key in ("weights", "factors")}
