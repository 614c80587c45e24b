"""Compress a model layer by layer into an ordinary model folder, and go on after a kill.

In memory at any time: what is outside the layers, one layer, its Gram matrices, the hidden states of the calibration
windows. After each layer its shard is written, then the state (hidden states and what is known of the maps); both in a
folder beside the output, ``.NAME.partial``, which takes the output's name when all is complete.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial as bound
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from excise.artefacts import Json, read_tensors, replacing, write_json, write_tensors
from excise.compress.change import Change, Place
from excise.compress.inputs import Inputs
from excise.compress.measure import forward, measure
from excise.compress.streaming import Call, Checkpoint, embed, fill, hollow, moved
from excise.edits.copying import with_entries
from excise.errors import ExciseError
from excise.models.files import INDEX, side_files
from excise.models.folders import refuse_foreign, write_source
from excise.models.loading import SOURCE_FILE, fingerprint
from excise.models.parts import decoder_layers

logger = logging.getLogger(__name__)

MANIFEST = "compression.json"
STATE = "state.safetensors"
CALIBRATED = ("norms", "gram")
"""What a change may need of the inputs of maps."""


@dataclass(frozen=True)
class Run:
    """How a model is compressed.

    Attributes:
        change: what is done to each layer.
        windows: calibration token ids ``[windows, tokens]``; None where the change needs none.
        sequential: a layer is measured on what the compressed layers before it put out; otherwise on what the dense
            ones do.
        place: what layers run in, and where.
    """

    change: Change
    windows: Tensor | None
    sequential: bool = True
    place: Place = field(default_factory=Place)

    @property
    def calibrated(self) -> bool:
        """Whether anything is run at all."""
        return self.change.needs in CALIBRATED


def compress(
    folder: Path, output: Path, run: Run, *, meta: Json, source: Json, done: Callable[[], None] = lambda: None
) -> None:
    """Write the compressed model: shards, index, config and tokenizer as they are, manifest.

    Args:
        folder: the model.
        output: folder to make; one that excise made is replaced.
        run: how.
        meta: provenance; a partial folder with the same one is taken up where it stopped.
        source: what the new folder's ``excise.json`` says of it, besides the fingerprint.
        done: called after each layer.

    Raises:
        ExciseError: the input does not fit, a disk is full, or a method failed (names the map).
    """
    refuse_foreign(output)
    partial = output.parent / f".{output.name}.partial"
    try:
        _compress(folder, output, partial, run, meta, source, done)
    except OSError as error:
        raise ExciseError(
            f"{output}: cannot be written ({error.strerror or error}); make room or choose another folder, then run "
            "the same command again: finished layers are kept"
        ) from error


def _compress(
    folder: Path, output: Path, partial: Path, run: Run, meta: Json, source: Json, done: Callable[[], None]
) -> None:
    checkpoint = Checkpoint(folder)
    model = hollow(checkpoint, run.place.dtype)
    layers = decoder_layers(model)
    run.change.check(model)
    run = replace(run, change=run.change.prepared(model, bound(_dense, model, checkpoint, run), run.place))
    first, rows, hidden = _resume(partial, meta)
    hidden_states = hidden.get("hidden")
    calls: list[Call] = [((), {})] * len(layers)
    if run.calibrated and run.windows is not None:
        entering = run.windows if first == 0 else run.windows[:1]  # the calls are the same for all windows
        embedded, calls = embed(model, entering, checkpoint)
        hidden_states = embedded if first == 0 else hidden_states
    for number in range(first, len(layers)):
        tensors, found, hidden_states = _one_layer(model, checkpoint, number, hidden_states, calls[number], run)
        _write_shard(partial / _shard(number, len(layers)), tensors)
        rows += found
        state = {} if hidden_states is None else {"hidden": hidden_states}
        write_tensors(partial / STATE, {"run": meta, "next": number + 1, "rows": rows}, state)
        done()
    _finish(output, partial, checkpoint, run.change, rows, meta, source)


def _dense(model: Any, checkpoint: Checkpoint, run: Run) -> Iterator[tuple[dict[str, Tensor], dict[str, Inputs]]]:
    """A pass through the dense model, as ``change.Dense`` says; nothing of it is kept."""
    assert run.windows is not None  # noqa: S101 (what is surveyed is calibrated)
    hidden, calls = embed(model, run.windows, checkpoint)
    for number, layer in enumerate(decoder_layers(model)):
        tensors = checkpoint.read(checkpoint.of_layer(number))
        fill(layer, tensors, run.place.dtype, run.place.device)
        call = moved(calls[number], run.place.device)
        inputs, after = measure(layer, run.change.maps(model, number), hidden, call, gram=False)
        assert after is not None  # noqa: S101 (asked for)
        hidden = after
        layer.to("meta")
        yield tensors, inputs


def _resume(partial: Path, meta: Json) -> tuple[int, list[Json], dict[str, Tensor]]:
    """(the layer to go on with, the manifest's rows before it, hidden states)."""
    if (partial / STATE).is_file():
        state, tensors = read_tensors(partial / STATE)
        if state["run"] == json.loads(json.dumps(meta)):
            logger.info("going on at layer %d", state["next"])
            return state["next"], state["rows"], tensors
        logger.info("the unfinished folder was begun with other settings; beginning again")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    return 0, [], {}


def _one_layer(
    model: Any, checkpoint: Checkpoint, number: int, hidden: Tensor | None, call: Call, run: Run
) -> tuple[dict[str, Tensor], list[Json], Tensor | None]:
    """Load, measure, change and run one layer.

    Returns:
        Its tensors under their stored names; rows for the manifest; the hidden states that enter the next layer.
    """
    layer = decoder_layers(model)[number]
    stored = checkpoint.of_layer(number)
    tensors = checkpoint.read(stored)
    fill(layer, tensors, run.place.dtype, run.place.device)
    inputs: dict[str, Inputs] = {}
    outputs = hidden
    call = moved(call, run.place.device)
    if run.calibrated and hidden is not None:
        maps = run.change.maps(model, number)
        gram = run.change.needs == "gram"
        inputs, outputs = measure(layer, maps, hidden, call, gram=gram, outputs=not run.sequential)
    changed, rows = run.change.apply(model, tensors, inputs, number, run.place)
    tensors |= changed
    if run.calibrated and run.sequential and hidden is not None:
        fill(layer, tensors, run.place.dtype, run.place.device)
        outputs = forward(layer, hidden, call)
    layer.to("meta")
    return {stored[name]: tensor for name, tensor in tensors.items()}, rows, outputs


def _shard(number: int, layers: int) -> str:
    """File of a layer; the last number is that of what is outside the layers."""
    return f"model-{number + 1:05}-of-{layers + 1:05}.safetensors"


def _write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    data = save({name: tensor.contiguous() for name, tensor in sorted(tensors.items())}, metadata={"format": "pt"})
    with replacing(path) as file:
        file.write(data)


def _tensor_bytes(path: Path) -> int:
    """Size of a safetensors file without its header."""
    with open(path, "rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def _finish(
    output: Path, partial: Path, checkpoint: Checkpoint, change: Change, rows: list[Json], meta: Json, source: Json
) -> None:
    """The rest of the folder; then it takes its name."""
    folder, layers = checkpoint.folder, checkpoint.config.num_hidden_layers
    rest = checkpoint.outside()
    _write_shard(partial / _shard(layers, layers), checkpoint.read({name: name for name in rest.values()}))
    places = dict.fromkeys(rest.values(), _shard(layers, layers))
    for number in range(layers):
        places |= dict.fromkeys(checkpoint.of_layer(number).values(), _shard(number, layers))
    size = sum(_tensor_bytes(partial / shard) for shard in set(places.values()))
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    with replacing(partial / INDEX) as file:
        file.write(json.dumps(index, indent=1).encode() + b"\n")
    for path in side_files(folder):
        place = partial / path.relative_to(folder)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, place)
    if entries := change.entries(checkpoint.config):
        path = partial / "config.json"
        text = with_entries(path.read_bytes().decode(), entries, str(folder / "config.json"))
        path.write_bytes(text.encode())
    total = change.total(rows)
    if total.get("zeros_made") == 0:
        raise ExciseError(f"{folder}: every weight that the pattern prunes is zero already")
    write_json(partial / MANIFEST, meta, {"total": total, "rows": rows})
    (partial / STATE).unlink()
    write_source(partial / SOURCE_FILE, {**source, "fingerprint": fingerprint(partial)})
    if output.is_symlink():
        output.unlink()
    elif output.exists():
        shutil.rmtree(output)
    partial.replace(output)
