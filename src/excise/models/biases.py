"""Which output projections can have a bias: where a saved model keeps the mean of a unit that is held at it."""

from excise.errors import ExciseError
from excise.models.families import ARCHITECTURES, Architecture


def bias_setting(family: Architecture, path: str) -> bool | str:
    """Whether a linear map of a layer has a bias: always, never, or as the named configuration entry says.

    Projections of queries, keys and values may have one where the attention's output has none (Qwen 2): what is
    returned for them is that of the attention's output.
    """
    attention = family.attention
    return attention.bias if path.startswith(f"{attention.module}.") else family.bias


def refuse_without_bias(model_type: str, path: str | None = None) -> None:
    """Refuse a family whose output projection cannot have a bias: a saved model has nowhere to keep a mean.

    Args:
        model_type: the family.
        path: of the output projection inside a layer; None for that of the MLP.

    Raises:
        ExciseError: it is one.
    """
    family = ARCHITECTURES[model_type]
    attention = path == family.attention.output
    if bias_setting(family, family.attention.output if attention else family.output):
        return
    able = [
        name
        for name, other in ARCHITECTURES.items()
        if bias_setting(other, other.attention.output if attention else other.output)
    ]
    what = "attention" if attention else "MLP"
    raise ExciseError(
        f"{model_type}: a unit that is scaled about its mean (ablation: mean) needs a bias in its {what}, and the "
        f"configuration of this family has none, so such a model cannot be saved (can be: {', '.join(able)}). Save "
        "none (export: null) and apply the unit list in memory: excise.prune"
    )
