"""Every supported model family: batches, padding and chunks change nothing."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from excise.config.generations import SeededSampling
from excise.errors import ExciseError
from excise.evaluation.fluency import continuation_nll
from excise.evaluation.generation import batches, generate
from excise.evaluation.likelihood import check_head, head, token_nll
from excise.evaluation.sampling import sample, stream
from excise.models.families import ARCHITECTURES

VOCABULARY = 70
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"max_position_embeddings": 40, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
GATED = {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.4}
SETTINGS: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.4},
    "gpt2": {"n_inner": 24, "initializer_range": 0.4},
    "gpt_neox": {"intermediate_size": 24, "initializer_range": 0.4},
    # A window shorter than the texts, so that sliding attention is met too.
    "mistral": {**GATED, "sliding_window": 6},
    "gemma2": {**GATED, "sliding_window": 6, "final_logit_softcapping": 2.0},
    "gemma3_text": {**GATED, "sliding_window": 6},
}
PROMPTS = [[5, 9, 33, 2], [60], [8, 8, 41, 12, 30, 7, 3, 22, 19], [14, 4], [50, 51, 52, 53, 54, 55]]


def make(family: str) -> Any:
    # The eager attention of Gemma 2 computes its softmax in float32, where a float64 mask overflows in padded rows.
    dtype = torch.float32 if family == "gemma2" else torch.float64
    config = transformers.AutoConfig.for_model(family, **SMALL, **SETTINGS.get(family, GATED))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    for parameter in model.parameters():  # biases and norms are 0 and 1 in a fresh model
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


def tolerance(model: Any) -> float:
    return 1e-10 if model.dtype == torch.float64 else 1e-4


@pytest.fixture(scope="module")
def llama() -> Any:
    return make("llama")


def last_logits(model: Any, ids: list[int]) -> Tensor:
    """One text alone: no padding, no cache."""
    logits: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1]
    return logits


def naive_generate(model: Any, name: object, prompt: list[int], draw: int, sampling: SeededSampling) -> list[int]:
    ids = list(prompt)
    words = stream(sampling.seed, str(name), draw, sampling.max_new_tokens)
    for step in range(sampling.max_new_tokens):
        logits = last_logits(model, ids)
        if sampling.greedy:
            token = int(logits.argmax())
        else:
            word = words[step : step + 1]
            token = int(sample(logits, word, temperature=sampling.temperature, top_p=sampling.top_p)[0])
        if token == model.generation_config.eos_token_id:
            break
        ids.append(token)
    return ids[len(prompt) :]


def all_generations(model: Any, sampling: SeededSampling, batch_size: int) -> dict[tuple[int, int], list[int]]:
    prompts = [(str(number), ids) for number, ids in enumerate(PROMPTS)]
    found = {}
    for batch in batches([len(ids) for ids in PROMPTS], sampling.num_generations, batch_size):
        found |= dict(zip(batch, generate(model, prompts, batch, sampling), strict=True))
    return found


def test_generation_equals_one_prompt_at_a_time_without_cache(model: Any) -> None:
    sampling = SeededSampling(num_generations=2, max_new_tokens=8, seed=3)
    expected = {
        (number, draw): naive_generate(model, number, ids, draw, sampling)
        for number, ids in enumerate(PROMPTS)
        for draw in range(2)
    }
    assert all_generations(model, sampling, 64) == expected
    assert all_generations(model, sampling, 3) == expected
    assert len({tuple(ids) for ids in expected.values()}) > 5


def test_continuations_end_before_the_end_token(llama: Any) -> None:
    sampling = SeededSampling(num_generations=4, max_new_tokens=12, temperature=1.5, top_p=1.0)
    free = all_generations(llama, sampling, 64)
    common = max(range(VOCABULARY), key=lambda token: sum(token in ids for ids in free.values()))
    llama.generation_config.eos_token_id = common
    try:
        ended = {key: naive_generate(llama, key[0], PROMPTS[key[0]], key[1], sampling) for key in free}
        for batch_size in (1, 5, 64):
            assert all_generations(llama, sampling, batch_size) == ended
        llama.generation_config.eos_token_id = [common, 1]
        assert all(common not in ids and 1 not in ids for ids in all_generations(llama, sampling, 7).values())
    finally:
        llama.generation_config.eos_token_id = None
    lengths = [len(ids) for ids in ended.values()]
    assert min(lengths) < 6
    assert max(lengths) == 12  # rows were dropped and others went on


def test_greedy_equals_transformers(llama: Any) -> None:
    found = all_generations(llama, SeededSampling(num_generations=1, max_new_tokens=10, greedy=True), 64)
    for number, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        expected = llama.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, pad_token_id=1
        )
        assert found[number, 0] == expected[0, len(prompt) :].tolist()


def test_another_seed_gives_other_text_and_draws_differ(llama: Any) -> None:
    one = all_generations(llama, SeededSampling(num_generations=2, max_new_tokens=8, seed=0), 64)
    two = all_generations(llama, SeededSampling(num_generations=2, max_new_tokens=8, seed=1), 64)
    assert all(one[key] != two[key] for key in one)
    assert all(one[number, 0] != one[number, 1] for number in range(len(PROMPTS)))


def test_logits_that_are_not_finite_are_refused(llama: Any) -> None:
    broken = make("llama")
    broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ExciseError, match="not finite"):
        all_generations(broken, SeededSampling(num_generations=1), 64)
    with pytest.raises(ExciseError, match="logits that are not finite numbers"):
        check_head(broken)


def test_head_makes_the_models_own_logits(model: Any) -> None:
    ids = torch.tensor([[3, 50, 20, 33, 2, 41, 66, 9]])
    hidden = model.base_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(
        head(model, hidden), model(input_ids=ids).logits, rtol=tolerance(model), atol=tolerance(model)
    )
    check_head(model)


def test_unknown_head_is_refused() -> None:
    model = make("gemma2")
    model.config.final_logit_softcapping = None
    capped = model.forward

    def scaled(**inputs: Any) -> Any:
        output = capped(**inputs)
        output.logits = output.logits * 0.5
        return output

    model.forward = scaled
    with pytest.raises(ExciseError, match=r"'gemma2'.*does not know"):
        check_head(model)


@pytest.mark.parametrize("chunk", [1, 3, 8, 256])
def test_token_nll_equals_log_softmax(llama: Any, chunk: int) -> None:
    ids = torch.tensor([3, 50, 20, 33, 2, 41, 66, 9])
    output = llama(input_ids=ids[None], output_hidden_states=True)
    expected = -output.logits[0, :-1].log_softmax(-1)[torch.arange(7), ids[1:]]
    found = token_nll(llama, output.hidden_states[-1][0, :-1], ids[1:], chunk=chunk)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert token_nll(llama, output.hidden_states[-1][0, :0], ids[:0]).tolist() == []


def test_continuation_nll_equals_one_text_at_a_time(model: Any) -> None:
    answers = [[7, 30, 2, 9, 11], [44], [], [3, 3, 60, 61, 62, 63, 64, 65], [21, 20], [1, 69]]
    continuations = list(zip([0, 2, 1, 0, 4, 3], answers, strict=True))
    expected = []
    for index, ids in continuations:
        text = PROMPTS[index] + ids
        logs = model(input_ids=torch.tensor([text]), use_cache=False).logits[0].log_softmax(-1)
        start = len(PROMPTS[index])
        expected.append(-sum(float(logs[at - 1, text[at]]) for at in range(start, len(text))))
    assert continuation_nll(model, PROMPTS, continuations) == pytest.approx(expected, rel=tolerance(model))
    alone = [continuation_nll(model, [PROMPTS[i]], [(0, ids)])[0] for i, ids in continuations]
    assert alone == pytest.approx(expected, rel=tolerance(model))


def test_continuation_nll_up_to_the_last_position_of_the_model() -> None:
    model = make("gpt2")  # learned positions: an index beyond the table would raise
    long, short = [4] * 39, [9]
    found = continuation_nll(model, [long, short], [(0, [5]), (1, [6] * 39)])
    assert found == pytest.approx(
        [continuation_nll(model, [long], [(0, [5])])[0], continuation_nll(model, [short], [(0, [6] * 39)])[0]]
    )


def test_only_empty_continuations(llama: Any) -> None:
    assert continuation_nll(llama, PROMPTS[:1], [(0, []), (0, [])]) == [0.0, 0.0]


def test_batches_hold_every_pair_once_and_keep_lengths_together() -> None:
    lengths = [9, 2, 5, 2, 7, 1]
    found = batches(lengths, 3, 4)
    assert sorted(pair for batch in found for pair in batch) == [(i, d) for i in range(6) for d in range(3)]
    assert [len(batch) for batch in found] == [4, 4, 4, 4, 2]
    in_order = [lengths[index] for batch in found for index, _ in batch]
    assert in_order == sorted(in_order)
    with pytest.raises(ExciseError, match="--batch-size 0"):
        batches(lengths, 3, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_generations": 0}, r"num_generations\n.*greater than or equal to 1"),
        ({"max_new_tokens": 0}, r"max_new_tokens\n.*greater than or equal to 1"),
        ({"temperature": 0.0}, r"temperature\n.*greater than 0"),
        ({"temperature": float("nan")}, r"temperature\n.*finite number"),
        ({"top_p": 0.0}, r"top_p\n.*greater than 0"),
        ({"top_p": 1.1}, r"top_p\n.*less than or equal to 1"),
        ({"seed": -1}, r"seed\n.*greater than or equal to 0"),
        ({"greedy": True, "num_generations": 2}, "greedy gives the same text every time; num_generations 2"),
    ],
)
def test_bad_sampling_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeededSampling(**options)
