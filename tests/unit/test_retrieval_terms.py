"""Which parts of an encoder carry a term: pairs that differ in one word, patched part by part."""

import json

import pytest
import torch

from excise.errors import ExciseError
from excise.models.encoder import embed, load_encoder
from excise.retrieval.term_circuit import find, judge
from excise.retrieval.terms import WORD, effects, falls, replaced, term_pairs, together
from tests.unit.encoders import WORDS, make_encoder, some_texts

DOCUMENTS = [{"id": f"d{n}", "text": text} for n, text in enumerate(some_texts(40, seed=8))]
SEED = 10  # with which a random encoder's score falls in both halves
QUERIES = [{"id": f"q{n}", "text": f"{WORDS[n % 18]} {WORDS[n % 7]}", "relevant": {f"d{n}": 1}} for n in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder, dtype="float64")


@pytest.fixture(scope="module")
def pairs(encoder):
    return term_pairs(encoder, QUERIES, DOCUMENTS, seed=0)


def test_a_pair_differs_in_one_word_of_the_query_wherever_it_stands(encoder, pairs):
    texts = {row["id"]: row["text"] for row in DOCUMENTS}
    asked = {row["id"]: row["text"] for row in QUERIES}
    assert len(pairs) > 8
    assert len({pair.document for pair in pairs}) == len({pair.query for pair in pairs}) == len(pairs)
    for pair in pairs:
        words = WORD.findall(texts[pair.document])
        assert pair.term in words
        assert pair.term in asked[pair.query].split()
        assert pair.substitute not in [*words, *asked[pair.query].split()]
        assert len(pair.clean) == len(pair.perturbed)
        changed = sum(a != b for a, b in zip(pair.clean, pair.perturbed, strict=True))
        assert changed == words.count(pair.term)
        assert encoder.tokenizer(texts[pair.document])["input_ids"] == pair.clean
    assert pairs == term_pairs(encoder, QUERIES[::-1], DOCUMENTS[::-1], seed=0)
    assert pairs != term_pairs(encoder, QUERIES, DOCUMENTS, seed=1)


def test_the_rarest_common_word_is_replaced_and_long_documents_are_left_out(encoder):
    documents = [{"id": str(n), "text": text} for n, text in enumerate(["cats bark", "cats sleep", "cats rain"])]
    queries = [{"id": "q", "text": "do cats sleep", "relevant": {"1": 1}}]
    [pair] = term_pairs(encoder, queries, documents, seed=0)
    assert (pair.document, pair.term) == ("1", "sleep")
    assert pair.substitute in ("bark", "rain")
    documents[1]["text"] = "sleep " * 30  # the model reads 12 tokens
    assert term_pairs(encoder, queries, documents, seed=0) == []


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("Cats, cats and CATS", "Dogs, dogs and DOGS"),
        ("catsup cats2 wildcats", "catsup dogs2 wildcats"),
        ("no", "no"),
    ],
)
def test_a_word_is_replaced_as_it_is_written(text, after):
    assert replaced(text, "cats", "dogs") == after


def test_an_effect_is_what_the_score_loses_with_that_part_of_the_perturbed_run(encoder, pairs):
    found = effects(encoder, pairs)
    assert found.heads.shape == (len(pairs), 3, 4)
    for place in (0, len(pairs) - 1):
        pair = pairs[place]
        asked = embed(encoder, [pair.asked], "query").vectors[0]

        def score(ids, module=None, keep=None, hold=None, asked=asked):
            hook = module and module.register_forward_pre_hook(keep or hold)
            states = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            if hook:
                hook.remove()
            return float(torch.cosine_similarity(asked, states.mean(0), dim=0))

        clean = score(pair.clean)
        assert found.whole[place].item() == pytest.approx(clean - score(pair.perturbed), rel=1e-9)
        for number, layer in enumerate(encoder.model.encoder.layer):
            for module, width, parts, results in (
                (layer.attention.output.dense, 4, 4, found.heads[place, number]),
                (layer.output.dense, 24, 1, found.mlps[place, number, None]),
            ):
                seen = []
                score(pair.perturbed, module, keep=lambda _, entering, seen=seen: seen.append(entering[0]))
                for part in range(parts):
                    channels = slice(part * width, (part + 1) * width)

                    def hold(_, entering, seen=seen, channels=channels):
                        values = entering[0].clone()
                        values[..., channels] = seen[0][..., channels]
                        return (values,)

                    expected = clean - score(pair.clean, module, hold=hold)
                    assert results[part].item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_heads_together_are_patched_in_one_pass(encoder, pairs):
    alone = effects(encoder, pairs)
    torch.testing.assert_close(together(encoder, pairs, [[(1, 2)]])[0], alone.heads[:, 1, 2], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(falls(encoder, pairs), alone.whole)
    last = [(2, head) for head in range(4)]  # of one layer: each writes its own part of the sum before the norm
    assert not torch.allclose(together(encoder, pairs, [last])[0], alone.heads[:, 2, 0])


def test_the_circuit_is_found_on_some_pairs_and_judged_on_others(encoder, pairs):
    pairs = [pair for pair, fall in zip(pairs, falls(encoder, pairs), strict=True) if fall > 0]  # a random encoder's
    half = len(pairs) // 2
    circuit = find(encoder, pairs[:half], 0.25)
    assert len(circuit.chosen) == 3
    shares = sorted(circuit.heads.flatten().tolist(), reverse=True)
    assert [circuit.heads[head].item() for head in circuit.chosen] == shares[:3]
    judged = judge(encoder, pairs[half:], circuit, draws=5, seed=0)
    carried = together(encoder, pairs[half:], [circuit.chosen])[0].mean() / falls(encoder, pairs[half:]).mean()
    assert judged["carried"] == pytest.approx(float(carried))
    assert judged["low"] <= judged["carried"] <= judged["high"]
    assert judged["random_mean"] <= judged["random_highest"]
    for share in (0.01, 1.0):
        with pytest.raises(ExciseError, match="choose some, not all"):
            find(encoder, pairs, share)
    with pytest.raises(ExciseError, match="9 heads are chosen and 3 are left"):
        judge(encoder, pairs, find(encoder, pairs, 0.75), draws=1, seed=0)


def test_an_encoder_that_matches_no_terms_has_no_circuit(encoder, pairs):
    rising = [pair for pair, fall in zip(pairs, falls(encoder, pairs), strict=True) if fall < 0]
    with pytest.raises(ExciseError, match="matches no terms here"):
        find(encoder, rising, 0.25)


def test_the_stage_writes_the_circuit(folder, tmp_path, excise):
    for name, rows in (("d", DOCUMENTS), ("q", QUERIES)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = (
        "--documents",
        tmp_path / "d",
        "--output",
        tmp_path / "circuit.json",
        "--share",
        0.25,
        "--draws",
        3,
        "--seed",
        SEED,
    )
    said = excise("term-heads", "--model", folder, "--queries", tmp_path / "q", *options)
    body = json.loads((tmp_path / "circuit.json").read_text())
    assert len(body["circuit"]) == 3
    assert ", ".join(body["circuit"]) in said
    assert {row["half"] for row in body["pairs"]} == {"find", "judge"}
    first = (tmp_path / "circuit.json").read_bytes()
    excise("term-heads", "--model", folder, "--queries", tmp_path / "q", *options)
    assert (tmp_path / "circuit.json").read_bytes() == first
    (tmp_path / "q").write_text(json.dumps(QUERIES[0] | {"text": "nothing"}) + "\n")
    said = excise("term-heads", "--model", folder, "--queries", tmp_path / "q", *options, fails=True)
    assert "0 of 1 queries have a word in common" in said
