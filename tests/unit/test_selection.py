"""Selection against naive loops, and its edges."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from excise.artefacts import read_json, write_arrays
from excise.edits.export import model_card
from excise.edits.unit_list import means_of, read_units, scale_of
from excise.errors import ExciseError
from excise.selection import contrast, dampening, jaccard, lowest, lowest_by_layer, most_relevant, pairwise_jaccard


def scores(seed, layers=3, width=7):
    return np.random.default_rng(seed).standard_normal((layers, width))


def naive_lowest(score, count, protected):
    neurons = [
        (float(score[layer, neuron]), layer, neuron)
        for layer in range(score.shape[0])
        for neuron in range(score.shape[1])
        if not protected[layer, neuron]
    ]
    return [layer * score.shape[1] + neuron for _, layer, neuron in sorted(neurons)[:count]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_protected_selection_equals_a_naive_loop(seed, share):
    general, behaviour = scores(seed), scores(seed + 100)
    difference = contrast(general, behaviour)
    for layer, neuron in itertools.product(range(3), range(7)):
        assert difference[layer, neuron] == general[layer, neuron] - behaviour[layer, neuron]
    ranked = sorted((-abs(float(general.flatten()[i])), i) for i in range(21))
    naive = np.zeros(21, dtype=bool)
    for _, i in ranked[: round(share * 21)]:
        naive[i] = True
    protected = most_relevant(general, share)
    assert (protected.ravel() == naive).all()
    assert lowest(difference, 6, protected=protected).tolist() == naive_lowest(difference, 6, naive.reshape(3, 7))


def test_ties_go_to_the_first_layer_and_neuron():
    assert lowest(np.zeros((2, 3)), 4).tolist() == [0, 1, 2, 3]


def test_scaled_contrast_ignores_the_scale_of_either_corpus():
    general, behaviour = scores(1), scores(2)
    expected = general / np.abs(general).sum() - behaviour / np.abs(behaviour).sum()
    np.testing.assert_allclose(contrast(10 * general, 0.1 * behaviour, kind="scaled"), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_set_contrast_with_a_guard_is_the_set_difference(seed):
    general, behaviour = scores(seed), np.abs(scores(seed + 100))
    share, count = 0.3, 6
    by_general = sorted(range(21), key=lambda i: -abs(float(general.flatten()[i])))
    by_behaviour = sorted(range(21), key=lambda i: -float(behaviour.flatten()[i]))
    top_p = set(by_general[: round(share * 21)])
    for q in range(22):  # the q for which N remain
        if len(remain := set(by_behaviour[:q]) - top_p) == count:
            break
    chosen = lowest(contrast(general, behaviour, kind="set"), count, protected=most_relevant(general, share))
    assert set(chosen.tolist()) == remain


def test_standardised_contrast_divides_by_the_standard_error_and_leaves_silent_neurons_at_zero():
    general, behaviour, error = scores(1), scores(2), np.abs(scores(3))
    general[0, 0] = behaviour[0, 0] = error[0, 0] = 0
    result = contrast(general, behaviour, kind="standardised", standard_error=error)
    assert result[0, 0] == 0
    assert result[1, 2] == (general[1, 2] - behaviour[1, 2]) / error[1, 2]


def test_a_selection_is_nested_in_the_next_larger_one():
    score = scores(4)
    assert lowest(score, 5).tolist() == lowest(score, 9).tolist()[:5]


def test_neurons_that_do_not_serve_the_behaviour_are_refused():
    score = np.array([[-1.0, 2.0, 3.0]])
    assert lowest(score, 1, negative_only=True).tolist() == [0]
    with pytest.raises(ExciseError, match="only 1 of 3 may be selected with a negative contrast"):
        lowest(score, 2, negative_only=True)


def test_all_takes_whatever_may_be_taken():
    score = np.array([[-1.0, 2.0, -3.0], [0.0, -2.0, -4.0]])
    protected = np.array([[False, False, True], [False, False, False]])
    assert lowest(score, None, protected=protected, negative_only=True).tolist() == [5, 4, 0]
    with pytest.raises(ExciseError, match="all units were asked for, but only 0 of 6 may be selected with a negative"):
        lowest(np.abs(score), None, negative_only=True)


def test_dampening_is_one_minus_gini_for_experts_and_nothing_for_others():
    expertise = np.linspace(0, 1, 21)
    naive = [1 - 2 * (a - 0.5) if a > 0.5 else 1 for a in expertise.tolist()]
    np.testing.assert_allclose(dampening(expertise), naive, rtol=1e-15)
    assert dampening(expertise)[-1] == 0


def test_a_layer_profile_is_kept():
    chosen = lowest_by_layer(scores(5), [2, 0, 3]).tolist()
    assert [index // 7 for index in chosen] == [0, 0, 2, 2, 2]
    assert chosen[:2] == scores(5)[0].argsort()[:2].tolist()


def test_jaccard_counts():
    assert jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert jaccard(set(), set()) == 1
    assert pairwise_jaccard([{1}, {1}, {2}]) == [1, 0, 0]


def test_unknown_contrast_names_the_nearest():
    with pytest.raises(ExciseError, match="Did you mean 'standardised'"):
        contrast(scores(0), scores(1), kind="standardized")


REFERENCES = {
    "retain": {"id": "c4", "seeds": [0, 1], "samples": 8},
    "target": {"id": "insults", "seeds": [0, 1], "samples": 4},
}
ABOUT = {"method": "aura", "model": {"id": "m", "fingerprint": "f"}, "settings": {"unit": "neuron"}, **REFERENCES}


@pytest.fixture
def contrast_file(tmp_path):
    general, toxic = scores(1), scores(2)
    by_seed = np.stack([general, general + 0.1 * scores(7)])
    path = tmp_path / "contrast.safetensors"
    write_arrays(
        path,
        ABOUT | {"method": "lrp"},
        {
            "retain": general,
            "target": toxic,
            "difference": general - toxic,
            "retain_by_seed": by_seed,
            "target_by_seed": np.stack([toxic, toxic]),
        },
    )
    return path


def test_select_writes_ranked_neurons_and_the_overlap_between_seeds(excise, tmp_path, contrast_file):
    output = tmp_path / "v.json"
    excise("select", "--scores", contrast_file, "--count", 4, "--protect", 0.1, "--name", "lrp", "--output", output)
    written = json.loads(output.read_text())
    general, toxic = scores(1), scores(2)
    expected = naive_lowest(general - toxic, 4, most_relevant(general, 0.1))
    assert [row["layer"] * 7 + row["neuron"] for row in written["rows"]] == expected
    assert [row["rank"] for row in written["rows"]] == [1, 2, 3, 4]
    first = written["rows"][0]
    assert first["score"] == pytest.approx(first["retain"] - first["target"])
    second_seed = naive_lowest(general + 0.1 * scores(7) - toxic, 4, most_relevant(general + 0.1 * scores(7), 0.1))
    assert written["stability"]["jaccard_between_seeds"] == [jaccard(set(expected), set(second_seed))]
    assert written["meta"]["references"]["target"] == {"id": "insults", "seeds": [0, 1], "samples": 4}
    assert "reference set `insults` against `c4`" in model_card(
        written, {"id": "m", "fingerprint": "f", "revision": None}, []
    )


def test_a_control_like_a_list_takes_its_layers_number_and_factor(excise, tmp_path, contrast_file):
    like, output = tmp_path / "like.json", tmp_path / "random.json"
    excise("select", "--scores", contrast_file, "--count", 4, "--scale", -1, "--output", like)
    write_arrays(
        tmp_path / "control.safetensors",
        {"method": "random", "model": {"id": "m", "fingerprint": "f"}, "settings": {"unit": "neuron"}},
        {"difference": scores(5)},
    )
    control = ["match", "--scores", tmp_path / "control.safetensors"]
    excise(*control, "--matched-to", like, "--output", output)
    model, drawn = (json.loads(path.read_text()) for path in (like, output))
    assert drawn["scale"] == model["scale"] == -1
    assert sorted(row["layer"] for row in drawn["rows"]) == sorted(row["layer"] for row in model["rows"])
    excise(*control, "--matched-to", like, "--scale", 0.5, "--output", output)
    assert json.loads(output.read_text())["scale"] == 0.5
    write_arrays(
        tmp_path / "control.safetensors",
        {"method": "random", "model": {"id": "m", "fingerprint": "f"}, "settings": {"unit": "head"}},
        {"difference": scores(5)},
    )
    said = excise(*control, "--matched-to", like, "--output", output, fails=True)
    assert "lists units of kind neuron" in said
    assert "make the control with --unit neuron" in said


def test_select_refuses_more_neurons_than_serve_the_behaviour(excise, tmp_path, contrast_file):
    message = excise("select", "--scores", contrast_file, "--count", 21, "--output", tmp_path / "v.json", fails=True)
    assert "21 units were asked for, but only" in message
    assert not (tmp_path / "v.json").exists()


# --- interventions ------------------------------------------------------------------------------------------------


@pytest.fixture
def expertise_file(tmp_path):
    expertise = np.random.default_rng(1).random((3, 7))
    expertise[1, 2] = 1
    half = np.full_like(expertise, 0.5)
    path = tmp_path / "expertise.safetensors"
    write_arrays(path, ABOUT, {"retain": half, "target": expertise, "difference": half - expertise})
    return path, expertise


def test_aura_dampens_every_expert_by_its_own_factor(excise, tmp_path, expertise_file):
    path, expertise = expertise_file
    output = tmp_path / "v.json"
    excise("select", "--scores", path, "--count", "all", "--scale", "expertise", "--output", output)
    written = read_units(output)
    experts = {(i, j): float(expertise[i, j]) for i in range(3) for j in range(7) if expertise[i, j] > 0.5}
    assert len(experts) < 21
    found = {(row["layer"], row["neuron"]): scale_of(written, row) for row in written["rows"]}
    assert found == {neuron: pytest.approx(2 - 2 * auroc) for neuron, auroc in experts.items()}
    assert written["rows"][0]["scale"] == 0
    assert (written["scale"], written["ablation"], written["meta"]["settings"]["scale"]) == (None, "zero", "expertise")


def mean_file(folder, *, fingerprint="f", method="mean-activation"):
    path = folder / "mean.safetensors"
    meta = {"stage": "average", "method": method, "model": {"id": "m", "fingerprint": fingerprint}}
    meta["settings"] = {"unit": "neuron"}
    corpus = {"corpus": {"id": "c4", "seeds": [0, 1]}, "counts": {"samples": 6, "tokens": 60}}
    write_arrays(path, meta | corpus, {"score": scores(9)})
    return path


def test_a_selection_about_the_mean_carries_the_mean_of_each_neuron(excise, tmp_path, contrast_file):
    output = tmp_path / "v.json"
    excise("select", "--scores", contrast_file, "--count", 4, "--mean", mean_file(tmp_path), "--output", output)
    written = read_units(output)
    for row in written["rows"]:
        assert scale_of(written, row) == 0
        assert means_of(written, row) == [scores(9)[row["layer"], row["neuron"]]]
    assert written["ablation"] == "mean"
    assert written["meta"]["mean"].items() > {"id": "c4", "seeds": [0, 1], "samples": 6, "tokens": 60}.items()
    excise("select", "--scores", contrast_file, "--count", 4, "--output", output)
    assert all("mean" not in row and "scale" not in row for row in read_json(output)["rows"])


def test_a_control_like_a_list_does_the_same_to_its_neurons(excise, tmp_path, expertise_file):
    like, output, control = (tmp_path / name for name in ("like.json", "random.json", "control.safetensors"))
    about = ["--mean", mean_file(tmp_path)]
    experts = ["--count", "all", "--scale", "expertise"]
    excise("select", "--scores", expertise_file[0], *experts, *about, "--output", like)
    write_arrays(control, ABOUT | {"method": "random"}, {"difference": scores(5)})
    control = ["match", "--scores", control, "--matched-to", like, "--output", output]
    excise(*control, *about)
    model, drawn = read_units(like), read_units(output)
    assert (drawn["scale"], drawn["ablation"]) == (None, "mean")
    for layer in range(3):
        scales = [[row["scale"] for row in one["rows"] if row["layer"] == layer] for one in (model, drawn)]
        assert scales[0] == scales[1]
    for row in drawn["rows"]:
        assert row["mean"] == float(scores(9)[row["layer"], row["neuron"]])
    assert "--mean is missing" in excise(*control, fails=True)
    excise(*control, "--scale", 0, "--ablation", "zero")
    assert (read_units(output)["scale"], read_units(output)["ablation"]) == (0, "zero")


def test_interventions_that_have_no_meaning_are_refused(excise, tmp_path, contrast_file):
    def refused(*arguments, scores=contrast_file):
        return excise("select", "--scores", scores, *arguments, "--output", tmp_path / "v.json", fails=True)

    assert "belongs to method aura; lrp does not" in refused("--count", 1, "--scale", "expertise")
    about = ["--count", 1, "--ablation", "mean"]
    assert "--mean is missing" in refused(*about)
    assert "was made for 'm' (weights g)" in refused(*about, "--mean", mean_file(tmp_path, fingerprint="g"))
    other = mean_file(tmp_path, method="activation")
    assert "not scores (excise average) of method mean-activation" in refused(*about, "--mean", other)
    assert "--ablation: unknown ablation 'median'" in refused("--count", 1, "--ablation", "median")
    heads = tmp_path / "heads.safetensors"
    meta = {"stage": "average", "method": "mean-activation", "model": {"id": "m", "fingerprint": "f"}}
    write_arrays(heads, meta | {"settings": {"unit": "head"}}, {"score": scores(9)})
    assert "means of unit head; measure them with --unit neuron" in refused(*about, "--mean", heads)
    control = tmp_path / "control.safetensors"
    write_arrays(control, ABOUT | {"method": "random"}, {"difference": np.abs(scores(1))})
    assert "--count all: the control 'random' has no contrast" in refused("--count", "all", scores=control)
    output = tmp_path / "list.json"
    excise("select", "--scores", contrast_file, "--count", 1, "--output", output)
    said = excise(
        *("match", "--scores", contrast_file, "--matched-to", output, "--output", tmp_path / "v.json"), fails=True
    )
    assert "--matched-to belongs to controls; lrp is none" in said
    assert "argument --count: invalid size value: 'every'" in refused("--count", "every")
    assert not (tmp_path / "v.json").exists()


def test_heads_are_listed_with_the_mean_of_each_channel(excise, tmp_path):
    meta = ABOUT | {"method": "lrp", "settings": {"unit": "head"}}
    retain, target = scores(1, width=4), scores(2, width=4)
    arrays = {"retain": retain, "target": target, "difference": retain - target}
    write_arrays(tmp_path / "contrast", meta, arrays)
    means = scores(3, width=4 * 5)
    about = {"stage": "average", "method": "mean-activation", "corpus": {"id": "c4"}, "counts": {"samples": 6}}
    write_arrays(tmp_path / "means", meta | about, {"score": means})
    output, control = tmp_path / "heads.json", tmp_path / "control"
    options = ("--mean", tmp_path / "means", "--output")
    excise("select", "--scores", tmp_path / "contrast", "--count", 3, *options, output)
    written = read_units(output)
    assert (written["unit"], written["layers"], written["units_per_layer"]) == ("head", 3, 4)
    places = [(row["layer"], row["head"]) for row in written["rows"]]
    nobody = np.zeros((3, 4), dtype=bool)
    assert [layer * 4 + head for layer, head in places] == naive_lowest(retain - target, 3, nobody)
    for row in written["rows"]:
        assert row["mean"] == means[row["layer"], 5 * row["head"] : 5 * row["head"] + 5].tolist()
    write_arrays(control, meta | {"method": "random"}, {"difference": scores(5, width=4)})
    matched = tmp_path / "matched.json"
    excise("match", "--scores", control, "--matched-to", output, *options, matched)
    drawn = read_units(matched)
    assert sorted(row["layer"] for row in drawn["rows"]) == sorted(layer for layer, _ in places)
    assert all(len(row["mean"]) == 5 for row in drawn["rows"])


def test_stages_on_small_arrays_load_no_torch(tmp_path, contrast_file):
    """Contrast, select and match start in a fraction of a second; torch alone takes several."""
    about = {"stage": "average", "method": "lrp", "model": {"id": "m", "fingerprint": "f"}, "counts": {"samples": 6}}
    about |= {"settings": {"unit": "neuron"}, "attribution": {}, "inputs": []}
    for name, seed in (("retain", 1), ("target", 2)):
        arrays = {"score": scores(seed), "by_seed": scores(seed)[None]}
        write_arrays(tmp_path / name, about | {"corpus": {"id": name, "seeds": [0]}}, arrays)
    write_arrays(tmp_path / "control", ABOUT | {"method": "random"}, {"difference": scores(5)})
    commands = [
        ["contrast", "--retain", "retain", "--target", "target", "--output", "difference"],
        ["select", "--scores", "difference", "--count", "4", "--output", "list.json"],
        ["match", "--scores", "control", "--matched-to", "list.json", "--output", "matched.json"],
    ]
    program = (
        "import sys\nfrom excise.cli import main\n"
        f"assert not any(main(command) for command in {commands!r})\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert len(read_units(tmp_path / "matched.json")["rows"]) == 4
