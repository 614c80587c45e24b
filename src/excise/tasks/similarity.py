"""Likeness of sentences: does the cosine of two embeddings rise with how alike people find the sentences?

Spearman's and Pearson's correlation over pairs. Both are written as a mean over pairs, so that they are compared as
every other task is: the value of a pair is the correlation plus the pair's influence on it, to first order (Hampel
1974). Their mean is the correlation exactly, and their spread gives its standard error.

- Pearson: r + (z w - r (z^2 + w^2) / 2), z and w the standardised cosine and label (Devlin et al. 1975).
- Spearman: with F and G the ranks over the number of pairs, centred, the influence is that of the mean of F G and of
  the ranks themselves (Croux and Dehon 2010, appendix; ties take their mean rank).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.tasks.measurement import Measurement, Metric, Values
from excise.tasks.retrieval import fidelity_of


def pearson(x: Values, y: Values) -> Values:
    """Values of pairs whose mean is Pearson's correlation, ``[pairs]``.

    Args:
        x: ``[pairs]``.
        y: ``[pairs]``.

    Raises:
        ExciseError: there are fewer than three pairs, or all values of one side are equal.
    """
    _refuse_constant(x, y)
    z, w = ((values - values.mean()) / values.std() for values in (x, y))
    r = float((z * w).mean())
    return np.asarray(z * w - r * (z**2 + w**2) / 2 + r)


def spearman(x: Values, y: Values) -> Values:
    """Values of pairs whose mean is Spearman's correlation, ``[pairs]``; arguments and errors as ``pearson``."""
    _refuse_constant(x, y)
    count = len(x)
    f, g = ((rankdata(values) - (count + 1) / 2) / count for values in (x, y))
    scale = float(np.sqrt((f**2).mean() * (g**2).mean()))
    r = float((f * g).mean()) / scale

    def above(values: Values, other: Values) -> Values:
        """Mean over pairs j of other[j] where values[j] > values[i], half where they are equal, for each pair i."""
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        sums = np.concatenate([[0.0], np.cumsum(other[order])])
        left, right = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
        return np.asarray((sums[-1] - (sums[left] + sums[right]) / 2) / count)

    parts = (f * g + above(x, g) + above(y, f)) / scale
    return np.asarray(parts - parts.mean() + r)


def _refuse_constant(x: Values, y: Values) -> None:
    if len(x) < 3:
        raise ExciseError(f"{len(x)} pairs: a correlation needs three")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ExciseError("some cosine is not a finite number; nothing can be ranked")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ExciseError("all pairs have the same cosine, or the same label: there is no correlation")


def measure(
    name: str,
    label: str,
    vectors: Mapping[str, Tensor],
    dense: Mapping[str, Tensor] | None,
    sentences: Sequence[Json],
    pairs: Sequence[Json],
    settings: Json,
) -> list[Measurement]:
    """What one encoder does on one collection of pairs.

    Args:
        name: of the collection, in addresses such as NAME.spearman.
        label: what people read.
        vectors: ``sentences`` ``[sentences, hidden]``.
        dense: the same of the dense model, for the fidelity.
        sentences: rows ``{id, text}`` in the order of the embeddings.
        pairs: rows ``{id, first, second, similarity}``.
        settings: equal for all variants that are compared.

    Raises:
        ExciseError: no correlation can be computed.
    """
    place = {row["id"]: number for number, row in enumerate(sentences)}
    sides = [vectors["sentences"].double()[[place[row[side]] for row in pairs]] for side in ("first", "second")]
    cosine = np.asarray(((sides[0] * sides[1]).sum(-1) / (sides[0].norm(dim=-1) * sides[1].norm(dim=-1))).numpy())
    labels = np.array([float(row["similarity"]) for row in pairs])
    metrics = {
        key: Metric.of(values(cosine, labels), direction="higher", title=f"{title}, {label}")
        for key, title, values in (("spearman", "Spearman", spearman), ("pearson", "Pearson", pearson))
    }
    found = [
        Measurement(
            task="retrieval",
            name=name,
            label=label,
            item="pair",
            items=[row["id"] for row in pairs],
            metrics=metrics,
            settings=settings,
        )
    ]
    if dense is not None:
        found.append(
            fidelity_of(name, label, vectors["sentences"], dense["sentences"], sentences, settings, "sentence")
        )
    return found
