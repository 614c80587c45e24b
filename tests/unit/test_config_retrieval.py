"""The retrieval section: which encoders it asks for, and what does not go together."""

import copy

import pytest

from excise.checks import validated
from excise.config.encoders import calibrating, smaller
from excise.errors import ExciseError
from excise.retrieval.importance import NEED_TEXTS

CONFIG = {
    "experiment": "x",
    "models": {"m": {"source": "folder"}},
    "retrieval": {
        "collections": {"own": {"source": "here", "calibration_documents": 10}, "other": {"source": "there"}},
        "variants": {
            "plain": {"remove": [0.3, 0.575]},
            "chance": {"method": "random", "remove": [0.5], "repeats": 2},
            "layers": {"kind": "layers", "keep": [3], "distil": {"epochs": 1}},
            "static": {"kind": "static"},
        },
    },
}


def changed(value, *keys):
    config = copy.deepcopy(CONFIG)
    place = config["retrieval"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return config


@pytest.mark.parametrize("method", ["embedding", "fisher", "lrp", "wanda", "magnitude", "random"])
def test_scores_that_look_at_texts_need_calibration(method):
    config = changed({"units": {"method": method, "remove": [0.5]}}, "variants")
    config["retrieval"]["collections"]["own"]["calibration_documents"] = 0
    if method in NEED_TEXTS:
        with pytest.raises(ExciseError, match=r"variants\.units needs calibration texts"):
            validated(config)
    else:
        validated(config)


def test_each_share_and_number_is_an_encoder():
    retrieval = validated(CONFIG).retrieval
    names = ["plain-30", "plain-57.5", "chance-repeat0-50", "chance-repeat1-50", "layers-3", "static"]
    found = smaller(retrieval)
    assert list(found) == names
    assert [one.size for one in found.values()] == [30, 57.5, 50, 50, 3, None]
    assert found["chance-repeat1-50"].seed == 1
    assert calibrating(retrieval) == "own"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(5, "collections", "other", "calibration_documents"), "own and other have calibration_documents"),
        (changed(0, "collections", "own", "calibration_documents"), "variants.plain needs calibration texts"),
        (changed(0.5, "collections", "other", "tuning_fraction"), "has no calibration_documents"),
        (changed({"remove": [0.5]}, "variants", "chance-repeat0"), "two encoders are called 'chance-repeat0-50'"),
        (changed({"kind": "static"}, "variants", "dense"), "two encoders are called 'dense'"),
        (changed({"remove": [0.5], "repeats": 2}, "variants", "plain"), "repeats belongs to method random"),
        (changed({"remove": [1.0]}, "variants", "plain"), "remove"),
        (changed({"remove": [0.5], "time": [0.5]}, "variants", "plain"), "give remove or time"),
        (changed({"method": "wanda", "time": [0.5]}, "variants", "plain"), "method embedding or fisher, not wanda"),
        (changed({"time": [0.5], "units": "heads"}, "variants", "plain"), "leave units and scope out"),
        (
            changed({"remove": [0.5], "distil": {"batch": 1, "score": 1}}, "variants", "plain"),
            "batch must be 2 or more",
        ),
        (changed({"source": "x", "format": "documents", "max_relevant": 3}, "collections", "other"), "has no queries"),
        ({**CONFIG, "goal": {"raise": "other.ndcg@10"}}, "it decides among variants"),
        ({**CONFIG, "device": "spread"}, "spread is for causal models"),
        ({**CONFIG, "models": {"m": {"source": "x", "dtype": "bfloat16"}}}, "breaks ties at random"),
    ],
)
def test_what_does_not_go_together_is_refused(config, message):
    with pytest.raises(ExciseError, match=message):
        validated(config)
