"""Compressed variants, several texts and a goal in the configuration; no prompts are needed for any of them."""

import copy

import pytest

from excise.checks import validated
from excise.config.compress import Calibrating, Pruning
from excise.config.options import options
from excise.config.plan import folders, judged
from excise.errors import ExciseError
from excise.goal import Budget
from excise.tasks import behaviour, degeneration
from excise.tasks.files import read_measurements
from excise.tasks.registry import addresses
from tests.unit.test_config import CHOICE, DEMO

C4 = {"text": "c4", "windows": 4, "seqlen": 512}
WIKIPEDIA = {"text": "wikipedia", "seqlen": 512, "windows": 8}
BARE = {
    "experiment": "pruned",
    "models": DEMO["models"],
    "texts": DEMO["texts"],
    "variants": {
        "wanda": {"edit": "compress", "method": "wanda", "patterns": ["50%", "2:4", "3:4"], "calibration": C4},
        "small": {"edit": "compress", "method": "magnitude", "patterns": ["0.75"], "base": "wanda-0.5"},
        "random": {"edit": "compress", "method": "random", "patterns": ["1/2"]},
        "cut": {"edit": "slice", "keep": [0.75, 0.5], "calibration": C4},
    },
    "evaluation": {"perplexity": WIKIPEDIA},
}


def changed(*path, value):
    config = copy.deepcopy(BARE)
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return config


def test_each_pattern_is_a_variant_with_a_name_that_paths_can_have():
    experiment = validated(BARE)
    assert judged(experiment) == [
        "wanda-0.5",
        "wanda-2of4",
        "wanda-3of4",
        "small-0.75",
        "random-0.5",
        "cut-0.75",
        "cut-0.5",
    ]
    assert [one.entry for one in folders(experiment).values()] == [*["wanda"] * 3, "small", "random", "cut", "cut"]
    assert validated(experiment.model_dump()) == experiment
    entry = experiment.model_dump()["variants"]["wanda"]
    assert options(entry, Pruning) == "--method wanda --shares uniform --reconstruct none --scope all"
    assert options(entry["calibration"], Calibrating) == "--windows 4 --seqlen 512 --separator ' '"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("variants", "wanda", "method"), "wnada", "Did you mean 'wanda'"),
        (("variants", "wanda", "edit"), "compres", "Did you mean 'compress'"),
        (("variants", "wanda", "patterns"), ["half"], "pattern 'half': must be a share to prune (0.5, 50%) or N:M"),
        (("variants", "wanda", "patterns"), ["4:2"], "must prune some weights and keep some"),
        (("variants", "wanda", "patterns"), ["50%", "0.5"], "patterns 50%, 0.5: two of them are the same"),
        (("variants", "wanda", "permute"), True, "only N:M gains by the order of neurons"),
        (("variants", "wanda", "calibration"), None, "variants.wanda: method wanda, reconstruct none: inputs of maps"),
        (("variants", "random", "calibration"), C4, "method random measures nothing; leave calibration out"),
        (("variants", "wanda", "calibration", "text"), "c5", "calibration.text: unknown text 'c5'"),
        (("variants", "cut", "keep"), [1.5], "variants.cut.keep.0: 1.5 is greater than or equal to the maximum of 1"),
        (("variants", "cut", "calibration", "text"), "c5", "variants.cut.calibration.text: unknown text 'c5'"),
        (("variants", "small", "base"), "wanda", "base: unknown compressed variant 'wanda'"),
        (("variants", "small", "base"), "small-0.75", "variants.small.base: small-0.75 is made of small itself"),
        (("evaluation", "perplexity"), [{"text": "c4"}, {"text": "c4"}], "text 'c4' is given twice"),
        (("evaluation", "perplexity"), [WIKIPEDIA, {"text": "c5"}], "evaluation.perplexity.text: unknown text 'c5'"),
        (("evaluation", "perplexity"), [{"text": "c4", "seqln": 3}], "evaluation.perplexity.0: unknown key 'seqln'"),
        (("evaluation", "perplexity"), {"text": "c4"}, "calibration: c4 also judges, with another separator"),
        (
            ("evaluation", "perplexity"),
            {"text": "c4", "separator": " ", "seqlen": 1024, "skip": 1},
            "it reads tokens 0 to 2048 of c4, and evaluation.perplexity some of them: what is fitted to them cannot be "
            "judged on them. Take skip: 2 there",
        ),
        (("goal",), {"lower": "wikipedia.perplexty"}, "goal: unknown metric 'wikipedia.perplexty'. Did you mean"),
        (("goal",), {"lower": "a.b", "raise": "c.d"}, "goal: give lower or raise (one of them)"),
        (("goal",), {"lower": "wikipedia.perplexity", "within": {"wikipedia.perplexity": "much"}}, "is not a budget"),
    ],
)
def test_mistakes_are_named_before_anything_runs(path, value, message):
    with pytest.raises(ExciseError) as error:
        validated(changed(*path, value=value))
    assert message in str(error.value)


def test_calibration_and_judging_may_share_a_text_but_no_token():
    judge = {"text": "c4", "separator": " ", "seqlen": 1024, "skip": 2}
    assert validated(changed("evaluation", "perplexity", value=[WIKIPEDIA, judge]))
    with pytest.raises(ExciseError, match="Take another text"):
        config = changed("evaluation", "perplexity", value=judge)
        config["variants"]["wanda"]["calibration"] = C4 | {"seed": 1}
        validated(config)


def test_a_goal_is_read_as_yaml_gives_it():
    goal = {"raise": "arc_easy.acc", "within": {"wikipedia.perplexity": 0.5, "arc_easy.acc": "-2 %"}}
    config = changed("goal", value=goal) | {
        "evaluation": {"perplexity": WIKIPEDIA, "capability": {"tasks": ["arc_easy"]}}
    }
    wanted = validated(config).goal.wanted()
    assert (wanted.metric, wanted.direction) == ("arc_easy.acc", "raise")
    assert wanted.within == {
        "wikipedia.perplexity": Budget(limit=0.5, relative=False),
        "arc_easy.acc": Budget(limit=-0.02, relative=True),
    }
    config["evaluation"]["capability"] = {"tasks": []}
    with pytest.raises(ExciseError, match=r"goal: unknown metric 'arc_easy\.acc'"):
        validated(config)


def test_a_goal_of_what_competes_is_measured_of_it():
    goal = {"lower": "toxicity.share", "within": {"wikipedia.perplexity": "+5 %"}}
    assert validated(CHOICE | {"goal": goal}).goal.wanted().within
    other = CHOICE["tuning"]["perplexity"] | {"text": "c4", "skip": 0}
    with pytest.raises(
        ExciseError, match=r"goal\.within: wikipedia\.perplexity is not measured of variants with choose"
    ):
        validated(CHOICE | {"goal": goal, "tuning": {"perplexity": other}})
    with pytest.raises(ExciseError, match=r"evaluation\.max_perplexity_increase: goal\.within has"):
        validated(CHOICE | {"goal": goal, "evaluation": DEMO["evaluation"] | {"max_perplexity_increase": 0.1}})


def test_the_tuning_reads_no_text_that_any_judge_reads():
    judges = [DEMO["evaluation"]["perplexity"], {"text": "c4", "seqlen": 512, "windows": 24}]
    config = CHOICE | {"evaluation": DEMO["evaluation"] | {"perplexity": judges}}
    assert validated(config)
    tuning = {"perplexity": {"text": "c4", "seqlen": 512, "windows": 2, "skip": 23}}
    with pytest.raises(ExciseError, match="tokens 11776 to 12800 of c4, and the evaluation reads 0 to 12288"):
        validated(config | {"tuning": tuning})


def test_the_addresses_are_those_that_are_measured(results):
    measured = read_measurements(results / "variants/baseline/measurements.json")
    found = {one.name: tuple(one.metrics) for one in measured.measurements}
    assert (found["toxicity"], found["language"]) == (behaviour.METRICS, degeneration.METRICS)
    assert (found["fluency"], found["wikipedia"]) == (("perplexity",), ("perplexity",))
    experiment = validated(DEMO)
    assert {address.split(".")[0] for address in addresses(experiment)} == {
        *("toxicity", "toxicity[better-profanity]", "fluency", "language", "wikipedia")
    }
