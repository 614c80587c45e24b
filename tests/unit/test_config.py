"""The configuration: defaults, names, and errors that say how to mend them."""

import copy
import re

import pytest
import yaml

from excise.config import choices, neuron_lists, validated, variants
from excise.errors import ExciseError
from tests.conftest import REPOSITORY

SCHEMA = yaml.safe_load((REPOSITORY / "workflow/schemas/config.schema.yaml").read_text())
DEMO = yaml.safe_load((REPOSITORY / "config.yaml").read_text())


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
    config = validated({**DEMO, "evaluation": {"perplexity": {"text": "wikipedia"}}}, SCHEMA)
    assert config["evaluation"]["num_generations"] == 25
    assert config["evaluation"]["perplexity"]["seqlen"] == 2048
    assert config["references"]["c4"]["windows"] == 32
    assert config["variants"]["random"]["protect"] == 0
    assert config["models"]["SmolLM2-135M-Instruct"]["dtype"] == "float32"
    assert list(config["variants"]) == list(DEMO["variants"])


def test_greedy_means_one_draw():
    config = validated(changed("evaluation", value={"greedy": True, "perplexity": {"text": "wikipedia"}}), SCHEMA)
    assert config["evaluation"]["num_generations"] == 1
    assert config["generations"]["num_generations"] == 2
    assert validated(config, SCHEMA) == config


def test_validation_repeats_itself_and_leaves_its_input_alone():
    before = copy.deepcopy(DEMO)
    once = validated(DEMO, SCHEMA)
    assert before == DEMO
    assert validated(once, SCHEMA) == once


def test_every_schema_property_is_described():
    def walk(node, where):
        if isinstance(node, dict):
            for name, child in node.get("properties", {}).items():
                if isinstance(child, dict):
                    target = child
                    if "$ref" in child:
                        target = SCHEMA["$defs"][child["$ref"].rpartition("/")[2]] | child
                    assert "description" in target or name == "kind" or "$ref" in child, f"{where}.{name}"
                    walk(child, f"{where}.{name}")
            walk(node.get("additionalProperties"), f"{where}.*")

    walk(SCHEMA, "config")
    for name, node in SCHEMA["$defs"].items():
        walk(node, name)


def test_variants_are_named_after_selection_draw_and_number():
    config = validated(
        changed(
            "variants",
            value={
                "a": {"method": "lrp", "neurons": [3, 5]},
                "r": {"method": "random", "neurons": [5], "repeats": 2},
                "experts": {"method": "aura", "scale": "expertise", "neurons": ["all"]},
                "alike": {"method": "random", "matched_to": "experts", "neurons": ["all"]},
            },
        )
        | {"export": "a-5"},
        SCHEMA,
    )
    names = ["a-3", "a-5", "r-repeat0-5", "r-repeat1-5", "experts-all", "alike-all"]
    assert variants(config) == list(neuron_lists(config)) == names
    assert neuron_lists(config)["r-repeat1-5"].repeat == 1


CHOICE = copy.deepcopy(DEMO) | {
    "variants": {
        "a": {"method": "lrp", "neurons": [3, 5], "choose": "best"},
        "w": {"method": "wanda", "neurons": [3]},
        "b": {"method": "lrp", "neurons": [2], "scale": -1, "choose": "best"},
        "r": {"method": "random", "matched_to": "best", "repeats": 2},
    },
    "tuning": {"perplexity": {"text": "wikipedia", "seqlen": 512, "windows": 24, "skip": 24}},
    "export": "best",
}
CHOICE["prompts"]["tuning_fraction"] = 0.2


def test_what_competes_is_not_judged_but_the_choice_is():
    config = validated(CHOICE, SCHEMA)
    assert choices(config) == {"best": ["a-3", "a-5", "b-2"]}
    assert variants(config) == ["best", "w-3", "r-repeat0", "r-repeat1"]
    assert neuron_lists(config)["r-repeat1"].neurons is None
    assert config["tuning"]["num_generations"] == config["evaluation"]["num_generations"]
    assert config["tuning"]["max_perplexity_increase"] == 0.05
    assert config["tuning"]["perplexity"]["protocol"] == "windows"
    assert config["variants"]["r"]["scale"] is None
    assert config["variants"]["w"]["scale"] == 0
    assert validated(config, SCHEMA) == config


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
        (("variants", "r", "neurons"), [3], "takes as many as best will have"),
        (("variants", "w", "neurons"), None, "variants.w: neurons is missing"),
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
        validated(config, SCHEMA)
    else:
        with pytest.raises(ExciseError) as error:
            validated(config, SCHEMA)
        assert message in str(error.value)


def test_tuning_prompts_need_a_choice():
    with pytest.raises(ExciseError, match="no selection has choose"):
        validated(changed("prompts", "tuning_fraction", value=0.1), SCHEMA)


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
        (changed("variants", "lrp", "neurons", value=["x"]), "variants.lrp.neurons.0: 'x' does not match '^all$'. (A number"),
        (changed("variants", "lrp", "neurons", value=[0.5]), "variants.lrp.neurons.0: 0.5 is not a whole number or text."),
        (changed("variants", "lrp", "neurons", value=20), "variants.lrp.neurons: 20 is not a list or null."),
        (changed("evaluation", "max_perplexity_increase", value=5), "increase: 5 is greater than the maximum of 1. (A v"),
        (changed("variants", "aura", "protect", value=0.1), "variants.aura: no protection with aura"),
        (changed("variants", "wanda", "contrast", value="standardised"), "wanda has none, lrp, lrp-cp, lrp-abs-weights, gradient, activation have one"),
        (changed("variants", "random", "protect", value=0.1), "protect and contrast do not apply to a control (random)"),
        (changed("evaluation", "resamples", value=200), "evaluation.resamples: 200 are too few for 6 candidates"),
        (changed("evaluation", "num_generations", value=2.0), "evaluation.num_generations: 2.0 is not a whole number"),
        (changed("generations", "temperature", value=float("nan")), "generations.temperature: nan is not a number"),
        (changed("variants", "random", "matched_to", value="random"), "variants.random: matched_to: 'random' is itself a matched control"),
        (changed("variants", "aura", "retain", value="toxic"), "aura: target and retain are both 'toxic'"),
        (changed("references", "toxic", "minimum", value=94), "references.toxic: minimum 94 is above count 93"),
        (changed("results", value=""), "results: '' does not match"),
        (changed("scorers", value={"better-profanity": {"label": "x"}}), "better-profanity.label: it belongs to hf:... scorers"),
        (
            changed("evaluation", "perplexity", value={"text": "c4", "protocol": "sliding", "stride": 9, "seqlen": 8}),
            "evaluation.perplexity: stride 9 is above seqlen 8",
        ),
        (changed("evaluation", "threshold", value=5), "evaluation.threshold: 5 parts nothing: scores of alt-profanity-check"),
        (changed("references", "toxic", "at_least", value=90), "references.toxic.at_least: 90 parts nothing"),
        (changed("variants", "random", value={"method": "random", "neurons": ["all"]}), "random: neurons all takes"),
        (changed("variants", "lrp", "scale", value="expert"), "lrp.scale: 'expert' does not match '^expertise$'"),
        (changed("variants", "lrp", "scale", value="expertise"), "variants.lrp: scale expertise belongs to method"),
        (changed("variants", "lrp", "ablation", value="median"), "variants.lrp.ablation: 'median' is not one of"),
        (
            changed("variants", "random", value={"method": "random", "neurons": [3], "ablation": "mean", "retain": "c"}),
            "variants.random.retain: unknown reference set 'c'",
        ),
        (changed("variants", "lrp", "neurons", value=[0]), "0 is less than the minimum of 1"),
        (changed("variants", "lrp", "retain", value="txoic"), "Did you mean 'toxic'"),
        (changed("variants", "lrp", "repeats", value=2), "repeats and matched_to belong to method random"),
        (changed("variants", "random", "matched_to", value="lrp-plain2"), "unknown selection 'lrp-plain2'"),
        (changed("variants", "lrp", "scale", value=1), "greater than or equal to the maximum of 1"),
        (changed("export", value="lrp-99"), "unknown variant 'lrp-99'"),
        (changed("evaluation", "perplexity", "text", value="wikitext2"), "unknown text 'wikitext2'"),
        (changed("models", "a/b", value={"source": "x"}), "models: 'a/b' does not match"),
        (changed("models", drop=True), "'models' is a required property"),
        (changed("models", value={}), "models: "),
        (changed("texts", "c4", "sha256", value="12"), "texts.c4.sha256"),
        (changed("seeds", value=[1, 1]), "seeds: "),
        (changed("generations", "scorer", value="detoxify"), "generations.scorer"),
        (changed("generations", "greedy", value=True), "generations: greedy gives the same text in every draw; num_generations 2"),
        (changed("behaviour", value={"adjective": "very bad"}), "behaviour.adjective"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(config, message):
    with pytest.raises(ExciseError) as error:
        validated(config, SCHEMA)
    assert message in str(error.value)


def test_a_scorer_of_ones_own_has_any_scale():
    config = changed("generations", "scorer", value="python:length:words")
    for name in ("toxic", "onset"):
        config["references"][name]["at_least"] = 90
    config["evaluation"] |= {"scorers": ["python:length:words"], "threshold": 80}
    validated(config, SCHEMA)


def test_all_mistakes_are_told_at_once():
    config = changed("varaints", value={}) | {"seed": "one"}
    with pytest.raises(ExciseError) as error:
        validated(config, SCHEMA)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_ready_made_experiments_name_what_they_read_by_commit_or_checksum(path):
    config = yaml.safe_load(path.read_text())
    inputs = [*config["models"].values(), *config["texts"].values(), config["prompts"]]
    fixed = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
    loose = [one["source"] for one in inputs if not fixed.fullmatch(one.get("sha256") or one.get("revision") or "")]
    # OPT-125M's commits have pickled weights; which revision has safetensors is for the user to say.
    assert loose == (["facebook/opt-125m"] if path.stem == "opt-125m" else [])
