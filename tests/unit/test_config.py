"""The configuration: defaults, names, and errors that say how to mend them."""

import copy
import re

import jsonschema
import pytest
import yaml

from excise.checks import PLANNING, problems, validated
from excise.config.experiment import Experiment
from excise.config.inputs import Model
from excise.config.plan import (
    about_mean,
    attributed,
    candidates,
    choices,
    entries_behind,
    judged,
    lenses,
    means,
    needs,
    seeds,
    seeds_of_references,
    unit_lists,
)
from excise.errors import ExciseError
from tests.conftest import REPOSITORY

DEMO = yaml.safe_load((REPOSITORY / "experiments/methods.yaml").read_text())
"""The demo, and every method beside the others."""


def changed(*path, value=None, drop=False):
    config = copy.deepcopy(DEMO)
    node = config
    for key in path[:-1]:
        node = node[key]
    if drop:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return config


def test_defaults_are_filled_in_at_every_depth():
    experiment = validated({**DEMO, "evaluation": {"perplexity": {"text": "wikipedia"}}})
    assert experiment.evaluation.num_generations == 25
    assert experiment.evaluation.perplexity.seqlen == 2048
    assert experiment.references["c4"].windows == 32
    assert experiment.variants["random"].protect == 0
    assert experiment.models["SmolLM2-135M-Instruct"].dtype == "float32"
    assert list(experiment.variants) == list(DEMO["variants"])


def test_greedy_means_one_generation():
    experiment = validated(changed("evaluation", value={"greedy": True, "perplexity": {"text": "wikipedia"}}))
    assert experiment.evaluation.num_generations == 1
    assert experiment.generations.num_generations == 2
    assert validated(experiment.model_dump()) == experiment


def test_validation_repeats_itself_and_leaves_its_input_alone():
    before = copy.deepcopy(DEMO)
    once = validated(DEMO)
    assert before == DEMO
    assert validated(once.model_dump()) == once


def test_what_an_experiment_does_not_need_it_does_not_name():
    """A chain of its own section, with neither prompts nor references, is not asked for them."""
    bare = Experiment(experiment="x", models={"m": Model(source="a/b")})
    assert bare.references == {}
    assert list(problems(bare)) == [f"top level: {' or '.join(map(repr, PLANNING))} is a required property."]
    with pytest.raises(ExciseError, match="'prompts' is a required property"):
        validated(changed("prompts", drop=True))


def test_the_schema_for_editors_accepts_what_is_accepted():
    schema = Experiment.model_json_schema()
    jsonschema.validate(DEMO, schema)
    jsonschema.validate(validated(DEMO).model_dump(), schema)
    with pytest.raises(jsonschema.ValidationError, match="cuont"):
        jsonschema.validate(changed("references", "toxic", "cuont", value=3), schema)


def stepped(**settings):
    return changed("variants", "step", value={"method": "trust-region", "count": [9]} | settings)


def test_a_step_has_a_budget_and_bounds_and_no_scale_of_the_list():
    settings = validated(stepped(budget=0.02, bounds=[0.0, 1.0])).model_dump()["variants"]["step"]
    assert (settings["budget"], settings["bounds"], settings["scale"]) == (0.02, [0.0, 1.0], None)
    permuted = {"kind": "generations", "at_least": 0.9, "count": "all", "permuted": True}
    reference = validated(changed("references", "toxic", value=permuted)).model_dump()["references"]["toxic"]
    assert (reference["count"], reference["permuted"], reference["minimum"]) == ("all", True, None)


def test_variants_are_named_after_entry_repeat_and_number():
    experiment = validated(
        changed(
            "variants",
            value={
                "a": {"method": "lrp", "count": [3, 5]},
                "r": {"method": "random", "count": [5], "repeats": 2},
                "experts": {"method": "aura", "scale": "expertise", "count": ["all"]},
                "alike": {"method": "random", "matched_to": "experts", "count": ["all"]},
            },
        )
        | {"export": "a-5"},
    )
    names = ["a-3", "a-5", "r-repeat0-5", "r-repeat1-5", "experts-all", "alike-all"]
    assert judged(experiment) == list(unit_lists(experiment)) == names
    assert unit_lists(experiment)["r-repeat1-5"].repeat == 1


CHOICE = copy.deepcopy(DEMO) | {
    "variants": {
        "a": {"method": "lrp", "count": [3, 5], "choose": "best"},
        "w": {"method": "wanda", "count": [3]},
        "b": {"method": "lrp", "count": [2], "scale": -1, "choose": "best"},
        "r": {"method": "random", "matched_to": "best", "repeats": 2},
    },
    "tuning": {"perplexity": {"text": "wikipedia", "seqlen": 512, "windows": 24, "skip": 24}},
    "export": "best",
}
CHOICE["prompts"]["tuning_fraction"] = 0.2


def test_what_competes_is_not_judged_but_the_choice_is():
    experiment = validated(CHOICE)
    assert choices(experiment) == {"best": ["a-3", "a-5", "b-2"]}
    assert judged(experiment) == ["best", "w-3", "r-repeat0", "r-repeat1"]
    assert unit_lists(experiment)["r-repeat1"].count is None
    assert experiment.tuning.num_generations == experiment.evaluation.num_generations
    assert experiment.tuning.max_perplexity_increase == 0.05
    assert experiment.tuning.perplexity.protocol == "windows"
    assert experiment.variants["r"].scale is None
    assert experiment.variants["w"].scale == 0
    assert validated(experiment.model_dump()) == experiment


def test_what_a_plan_needs_of_references_and_models():
    experiment = validated(DEMO)
    assert means(experiment) == {"c4"}  # lrp, and the control that is matched to it if it wins
    assert attributed(experiment) == {"onset", "shuffled", "toxic", "neutral", "c4"}
    assert needs(experiment) == {"need": ["neuron=1000"], "need_bias": ["neuron"]}
    assert lenses(experiment) == ["winner"]
    changes = {
        "variants": {"a": {"method": "lrp", "count": ["all", 5, 30, 20]}, "b": {"method": "wanda", "count": [3, 9]}}
    }
    experiment = validated(DEMO | changes | {"export": "b-9"})
    assert lenses(experiment) == ["a-20", "b-9"]
    assert needs(experiment) == {"need": ["neuron=30"], "need_bias": []}
    assert means(experiment) == set()
    assert lenses(validated(CHOICE)) == ["w-3", "best"]
    assert needs(validated(CHOICE))["need_bias"] == []


def test_later_findings_have_seeds_of_their_own_and_do_not_compete():
    settings = {"method": "lrp", "target": "onset", "count": [3, 5], "findings": 2}
    experiment = validated(
        DEMO | {"variants": {"a": settings, "b": {"method": "wanda", "count": [3]}}, "export": "a-3"}
    )
    names = ["a-3", "a-5", "a-finding2-3", "a-finding2-5", "b-3"]
    assert judged(experiment) == names
    assert [unit_lists(experiment)[name].finding for name in names] == [1, 1, 2, 2, 1]
    assert candidates(experiment) == ["a-3", "a-5", "b-3"]
    assert [seeds(experiment, finding) for finding in (1, 2, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    drawn = seeds_of_references(experiment)
    assert (drawn["onset"], drawn["c4"], drawn["toxic"]) == ([*range(6)], [*range(6)], [0, 1, 2])


WINNING = {
    "references": DEMO["references"] | {"dealt": {"kind": "generations", "at_least": 0.9, "permuted": True}},
    "variants": CHOICE["variants"]
    | {
        "held": {"method": "wanda", "ablation": "mean", "count": [3]},
        "shuffled": {"method": "trust-region", "target": "dealt", "count": [3]},
        "r": {"method": "random", "matched_to": "winner", "repeats": 2},
    },
    "export": "winner",
}


def test_what_may_win_is_neither_drawn_nor_found_with_permuted_references():
    experiment = validated(CHOICE | WINNING)
    assert candidates(experiment) == ["best", "w-3", "held-3"]
    assert judged(experiment) == ["best", "w-3", "r-repeat0", "r-repeat1", "held-3", "shuffled-3"]
    assert entries_behind(experiment, "winner") == {"a", "b", "w", "held"}
    assert entries_behind(experiment, "held-3") == {"held"}
    assert about_mean(experiment, "r")  # held-3 may win
    assert needs(experiment)["need_bias"] == ["neuron"]
    assert lenses(experiment) == ["winner"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("prompts", "tuning_fraction"), 0, "set prompts.tuning_fraction"),
        (("prompts", "tuning_fraction"), 0.5, "leave nothing for the evaluation"),
        (("tuning", "perplexity"), None, "set tuning.perplexity"),
        (("tuning", "perplexity", "text"), "c5", "tuning.perplexity.text: unknown text 'c5'"),
        (
            ("tuning", "perplexity", "skip"),
            23,
            "tokens 11776 to 24064 of wikipedia, and the evaluation reads 0 to 12288",
        ),
        (("tuning", "perplexity", "windows"), None, None),
        (("tuning", "perplexity"), {"text": "wikipedia", "protocol": "sliding", "stride": 8}, "tokens 0 to inf"),
        (("tuning", "perplexity"), {"text": "c4"}, None),
        (("variants", "r", "count"), [3], "takes as many as best will have"),
        (("variants", "w", "count"), None, "variants.w: count is missing"),
        (("variants", "w", "choose"), "a-3", "choose: 'a-3' is already the name of a variant"),
        (("variants", "r", "choose"), "best", "choose does not belong to a control (random)"),
        (("variants", "r", "matched_to"), "bset", "Did you mean 'best'"),
        (("export",), "a-3", "unknown variant 'a-3'"),
    ],
)
def test_a_choice_has_prompts_and_a_text_of_its_own(path, value, message):
    config = copy.deepcopy(CHOICE)
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    if message is None:
        validated(config)
    else:
        with pytest.raises(ExciseError) as error:
            validated(config)
        assert message in str(error.value)


def test_tuning_prompts_need_a_choice():
    with pytest.raises(ExciseError, match="no variant has choose"):
        validated(changed("prompts", "tuning_fraction", value=0.1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("varaints", value={}), "unknown key 'varaints'. Did you mean 'variants'"),
        (changed("references", "toxic", "cuont", value=3), "references.toxic: unknown key 'cuont'. Did you mean 'count'"),
        (changed("references", "c4", "kind", value="window"), "references.c4.kind: 'window' is not one of"),
        (changed("references", "c4", "text", value="c5"), "references.c4.text: unknown text 'c5'"),
        (changed("references", "toxic", "below", value=0.1), "give at_least or below"),
        (
            changed("references", "toxic", value={"kind": "generations", "at_least": 0.4, "span": "onset"}),
            "references.toxic: span onset needs at_least of evaluation.threshold (0.5) or more",
        ),
        (
            changed("references", "toxic", value={"kind": "generations", "below": 0.4, "span": "onset"}),
            "references.toxic: span onset needs at_least",
        ),
        (changed("variants", "lrp", "count", value=["x"]), "variants.lrp.count.0: 'x' is not a whole number or 'all'. (Numbers"),
        (changed("variants", "lrp", "count", value=[0.5]), "variants.lrp.count.0: 0.5 is not a whole number or 'all'."),
        (changed("variants", "lrp", "count", value=20), "variants.lrp.count: 20 is not a list or null."),
        (changed("evaluation", "max_perplexity_increase", value=5), "increase: 5 is greater than the maximum of 1. (A v"),
        (changed("variants", "aura", "protect", value=0.1), "variants.aura: no protection with aura"),
        (changed("variants", "wanda", "contrast", value="standardised"), "wanda has none, lrp, lrp-cp, lrp-abs-weights, gradient, activation have one"),
        (changed("variants", "random", "protect", value=0.1), "protect and contrast do not apply to a control (random)"),
        (changed("evaluation", "resamples", value=200), "evaluation.resamples: 200 are too few for 9 candidates"),
        (changed("evaluation", "num_generations", value=2.0), "evaluation.num_generations: 2.0 is not a whole number"),
        (changed("generations", "temperature", value=float("nan")), "generations.temperature: nan is not a number"),
        (changed("variants", "random", "matched_to", value="random"), "random: matched_to: 'random' is itself a matched control"),
        (changed("variants", "aura", "retain", value="toxic"), "aura: target and retain are both 'toxic'"),
        (changed("references", "toxic", "minimum", value=94), "references.toxic: minimum 94 is above count 93"),
        (changed("results", value=""), "results: '' does not match"),
        (changed("scorers", value={"better-profanity": {"label": "x"}}), "better-profanity.label: it belongs to hf:... scorers"),
        (
            changed("evaluation", "perplexity", value={"text": "c4", "protocol": "sliding", "stride": 9, "seqlen": 8}),
            "evaluation.perplexity: stride 9 is above seqlen 8",
        ),
        (changed("evaluation", "threshold", value=5), "evaluation.threshold: 5 can never be reached: scores of alt-profanity-check"),
        (changed("references", "toxic", "at_least", value=90), "references.toxic.at_least: 90 can never be reached"),
        (changed("variants", "random", value={"method": "random", "count": ["all"]}), "random: count all takes"),
        (changed("variants", "lrp", "scale", value="expert"), "lrp.scale: 'expert' is not a number or 'expertise' or null"),
        (changed("variants", "lrp", "scale", value="expertise"), "variants.lrp: scale expertise belongs to method"),
        (changed("variants", "lrp", "budget", value=0.03), "budget and bounds belong to method trust-region, not to lrp"),
        (changed("variants", "aura", "unit", value="head"), "variants.aura: method aura does not score unit head"),
        (changed("variants", "random", "unit", value="head"), "random: selects unit head, and winner unit neuron"),
        (changed("variants", "random", "findings", value=2), "findings belongs to lists that are found from references"),
        (changed("variants", "lrp", value={"method": "lrp", "count": ["all"], "findings": 2}), "not to a control, to count all"),
        (
            changed("references", "toxic", value={"kind": "file", "source": "x.jsonl"})
            | {"variants": stepped(findings=2)["variants"]},
            "variants.step: findings: reference set toxic is a file, the same for every seed",
        ),
        (stepped(scale=0.5), "scale, ablation mean, protect and contrast do not apply to trust-region"),
        (stepped(count=["all"]), "count all does not apply to trust-region"),
        (stepped(bounds=[1.5, 2.0]), "1 (untouched) must lie between them"),
        (stepped(budget=3.0), "variants.step.budget: 3.0 is greater than the maximum of 1"),
        (changed("variants", "lrp", "ablation", value="median"), "variants.lrp.ablation: 'median' is not one of"),
        (
            changed("variants", "random", value={"method": "random", "count": [3], "ablation": "mean", "retain": "c"}),
            "variants.random.retain: unknown reference set 'c'",
        ),
        (changed("variants", "lrp", "count", value=[0]), "0 is less than the minimum of 1"),
        (changed("variants", "lrp", "retain", value="txoic"), "Did you mean 'toxic'"),
        (changed("variants", "lrp", "repeats", value=2), "repeats and matched_to belong to method random"),
        (changed("variants", "random", "matched_to", value="lrp-plain2"), "unknown variant 'lrp-plain2'"),
        (changed("variants", "random", value={"method": "random", "count": [3], "matched_to": "winner"}), "leave count out; the control takes as many as winner"),
        (changed("variants", "winner", value={"method": "wanda", "count": [3]}), "'winner' stands for what wins"),
        (changed("variants", "lrp", "scale", value=1), "greater than or equal to the maximum of 1"),
        (changed("export", value="lrp-99"), "unknown variant 'lrp-99'"),
        (changed("evaluation", "perplexity", "text", value="wikitext2"), "unknown text 'wikitext2'"),
        (changed("models", "a/b", value={"source": "x"}), "models: 'a/b' does not match"),
        (changed("models", drop=True), "'models' is a required property"),
        (changed("models", value={}), "models: "),
        (changed("texts", "c4", "sha256", value="12"), "texts.c4.sha256"),
        (changed("seeds", value=[1, 1]), "seeds: "),
        (changed("generations", "scorer", value="detoxify"), "generations.scorer"),
        (changed("generations", "greedy", value=True), "generations: greedy gives the same text every time; num_generations 2"),
        (changed("behaviour", value={"adjective": "very bad"}), "behaviour.adjective"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(config, message):
    with pytest.raises(ExciseError) as error:
        validated(config)
    assert message in str(error.value)


def test_a_scorer_of_ones_own_has_any_scale():
    config = changed("generations", "scorer", value="python:length:words")
    for name in ("toxic", "onset", "shuffled"):
        config["references"][name]["at_least"] = 90
    config["evaluation"] |= {"scorers": ["python:length:words"], "threshold": 80}
    validated(config)


def test_all_mistakes_are_told_at_once():
    config = changed("varaints", value={}) | {"seed": "one"}
    with pytest.raises(ExciseError) as error:
        validated(config)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_ready_made_experiments_name_what_they_read_by_commit_or_checksum(path):
    config = yaml.safe_load(path.read_text())
    collections = config.get("retrieval", {}).get("collections", {})
    inputs = [*config["models"].values(), *config.get("texts", {}).values(), *collections.values()]
    inputs += [config["prompts"]] if "prompts" in config else []
    fixed = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
    loose = [one["source"] for one in inputs if not fixed.fullmatch(one.get("sha256") or one.get("revision") or "")]
    # OPT's commits have pickled weights; which revision has safetensors is for the user to say. NFCorpus is on no
    # registry: a folder of the user's own.
    expected = {
        "opt-125m": ["facebook/opt-125m"],
        "compress-opt-6.7b": ["facebook/opt-6.7b"],
        "retrieve-nfcorpus": ["data/nfcorpus"],
    }
    assert loose == expected.get(path.stem, [])
