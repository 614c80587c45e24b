"""Selection against naive loops, and its edges."""

import itertools
import json

import pytest
import torch

from excise.artefacts import read_json, write_tensors
from excise.edits.ablation import intervention, read_selection
from excise.edits.export import model_card
from excise.errors import ExciseError
from excise.selection import contrast, dampening, jaccard, lowest, lowest_by_layer, most_relevant, pairwise_jaccard


def scores(seed, layers=3, width=7):
    return torch.randn(layers, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
    naive = torch.zeros(21, dtype=torch.bool)
    for _, i in ranked[: round(share * 21)]:
        naive[i] = True
    protected = most_relevant(general, share)
    assert torch.equal(protected.flatten(), naive)
    assert lowest(difference, 6, protected=protected).tolist() == naive_lowest(difference, 6, naive.view(3, 7))


def test_ties_go_to_the_first_layer_and_neuron():
    assert lowest(torch.zeros(2, 3), 4).tolist() == [0, 1, 2, 3]


def test_scaled_contrast_ignores_the_scale_of_either_corpus():
    general, behaviour = scores(1), scores(2)
    expected = general / general.abs().sum() - behaviour / behaviour.abs().sum()
    torch.testing.assert_close(contrast(10 * general, 0.1 * behaviour, kind="scaled"), expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_set_contrast_with_a_guard_is_the_set_difference(seed):
    general, behaviour = scores(seed), scores(seed + 100).abs()
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
    general, behaviour, error = scores(1), scores(2), scores(3).abs()
    general[0, 0] = behaviour[0, 0] = error[0, 0] = 0
    result = contrast(general, behaviour, kind="standardised", standard_error=error)
    assert result[0, 0] == 0
    assert result[1, 2] == (general[1, 2] - behaviour[1, 2]) / error[1, 2]


def test_a_selection_is_nested_in_the_next_larger_one():
    score = scores(4)
    assert lowest(score, 5).tolist() == lowest(score, 9).tolist()[:5]


def test_neurons_that_do_not_serve_the_behaviour_are_refused():
    score = torch.tensor([[-1.0, 2.0, 3.0]])
    assert lowest(score, 1, negative_only=True).tolist() == [0]
    with pytest.raises(ExciseError, match="only 1 of 3 may be selected with a negative contrast"):
        lowest(score, 2, negative_only=True)


def test_all_takes_whatever_may_be_taken():
    score = torch.tensor([[-1.0, 2.0, -3.0], [0.0, -2.0, -4.0]])
    protected = torch.tensor([[False, False, True], [False, False, False]])
    assert lowest(score, None, protected=protected, negative_only=True).tolist() == [5, 4, 0]
    with pytest.raises(
        ExciseError, match="all neurons were asked for, but only 0 of 6 may be selected with a negative"
    ):
        lowest(score.abs(), None, negative_only=True)


def test_dampening_is_one_minus_gini_for_experts_and_nothing_for_others():
    expertise = torch.linspace(0, 1, 21, dtype=torch.float64)
    naive = [1 - 2 * (a - 0.5) if a > 0.5 else 1 for a in expertise.tolist()]
    torch.testing.assert_close(dampening(expertise), torch.tensor(naive, dtype=torch.float64))
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
ABOUT = {"method": "aura", "model": {"id": "m", "fingerprint": "f"}, "settings": {}, **REFERENCES}


@pytest.fixture
def contrast_file(tmp_path):
    general, toxic = scores(1), scores(2)
    by_seed = torch.stack([general, general + 0.1 * scores(7)])
    path = tmp_path / "contrast.safetensors"
    write_tensors(
        path,
        ABOUT | {"method": "lrp"},
        {
            "retain": general,
            "target": toxic,
            "difference": general - toxic,
            "retain_by_seed": by_seed,
            "target_by_seed": torch.stack([toxic, toxic]),
        },
    )
    return path


def test_select_writes_ranked_neurons_and_the_overlap_between_seeds(excise, tmp_path, contrast_file):
    output = tmp_path / "v.json"
    excise("select", "--scores", contrast_file, "--neurons", 4, "--protect", 0.1, "--name", "lrp", "--output", output)
    written = json.loads(output.read_text())
    general, toxic = scores(1), scores(2)
    expected = naive_lowest(general - toxic, 4, most_relevant(general, 0.1))
    assert [row["layer"] * 7 + row["neuron"] for row in written["neurons"]] == expected
    assert [row["rank"] for row in written["neurons"]] == [1, 2, 3, 4]
    first = written["neurons"][0]
    assert first["score"] == pytest.approx(first["retain"] - first["target"])
    second_seed = naive_lowest(general + 0.1 * scores(7) - toxic, 4, most_relevant(general + 0.1 * scores(7), 0.1))
    assert written["stability"]["jaccard_between_seeds"] == [jaccard(set(expected), set(second_seed))]
    assert written["meta"]["references"]["target"] == {"id": "insults", "seeds": [0, 1], "samples": 4}
    assert "reference set `insults` against `c4`" in model_card(
        written, {"id": "m", "fingerprint": "f", "revision": None}, []
    )


def test_a_control_like_a_list_takes_its_layers_number_and_factor(excise, tmp_path, contrast_file):
    like, output = tmp_path / "like.json", tmp_path / "random.json"
    excise("select", "--scores", contrast_file, "--neurons", 4, "--scale", -1, "--output", like)
    write_tensors(
        tmp_path / "control.safetensors",
        {"method": "random", "model": {"id": "m", "fingerprint": "f"}, "settings": {}},
        {"difference": scores(5)},
    )
    control = ["select", "--scores", tmp_path / "control.safetensors"]
    excise(*control, "--matched-to", like, "--output", output)
    model, drawn = (json.loads(path.read_text()) for path in (like, output))
    assert drawn["scale"] == model["scale"] == -1
    assert sorted(row["layer"] for row in drawn["neurons"]) == sorted(row["layer"] for row in model["neurons"])
    excise(*control, "--matched-to", like, "--scale", 0.5, "--output", output)
    assert json.loads(output.read_text())["scale"] == 0.5
    assert "lists 4 neurons, --neurons asks for 3" in excise(
        *control, "--matched-to", like, "--neurons", 3, "--output", output, fails=True
    )
    assert "--neurons is missing" in excise(*control, "--output", output, fails=True)


def test_select_refuses_more_neurons_than_serve_the_behaviour(excise, tmp_path, contrast_file):
    message = excise("select", "--scores", contrast_file, "--neurons", 21, "--output", tmp_path / "v.json", fails=True)
    assert "21 neurons were asked for, but only" in message
    assert not (tmp_path / "v.json").exists()


# --- interventions ------------------------------------------------------------------------------------------------


@pytest.fixture
def expertise_file(tmp_path):
    expertise = torch.rand(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expertise[1, 2] = 1
    half = torch.full_like(expertise, 0.5)
    path = tmp_path / "expertise.safetensors"
    write_tensors(path, ABOUT, {"retain": half, "target": expertise, "difference": half - expertise})
    return path, expertise


def test_aura_dampens_every_expert_by_its_own_factor(excise, tmp_path, expertise_file):
    path, expertise = expertise_file
    output = tmp_path / "v.json"
    excise("select", "--scores", path, "--neurons", "all", "--scale", "expertise", "--output", output)
    written = read_selection(output)
    experts = {(i, j): float(expertise[i, j]) for i in range(3) for j in range(7) if expertise[i, j] > 0.5}
    assert len(experts) < 21
    found = {(row["layer"], row["neuron"]): intervention(written, row) for row in written["neurons"]}
    assert found == {neuron: (pytest.approx(2 - 2 * auroc), 0) for neuron, auroc in experts.items()}
    assert written["neurons"][0]["scale"] == 0
    assert (written["scale"], written["ablation"]) == ("expertise", "zero")


def mean_file(folder, *, fingerprint="f", method="mean-activation"):
    path = folder / "mean.safetensors"
    meta = {"stage": "average", "method": method, "model": {"id": "m", "fingerprint": fingerprint}}
    corpus = {"corpus": {"id": "c4", "seeds": [0, 1]}, "counts": {"samples": 6, "tokens": 60}}
    write_tensors(path, meta | corpus, {"score": scores(9)})
    return path


def test_a_selection_about_the_mean_carries_the_mean_of_each_neuron(excise, tmp_path, contrast_file):
    output = tmp_path / "v.json"
    excise("select", "--scores", contrast_file, "--neurons", 4, "--mean", mean_file(tmp_path), "--output", output)
    written = read_selection(output)
    for row in written["neurons"]:
        assert intervention(written, row) == (0, float(scores(9)[row["layer"], row["neuron"]]))
    assert written["ablation"] == "mean"
    assert written["meta"]["mean"].items() > {"id": "c4", "seeds": [0, 1], "samples": 6, "tokens": 60}.items()
    excise("select", "--scores", contrast_file, "--neurons", 4, "--output", output)
    assert all("mean" not in row and "scale" not in row for row in read_json(output)["neurons"])


def test_a_control_like_a_list_does_the_same_to_its_neurons(excise, tmp_path, expertise_file):
    like, output, control = (tmp_path / name for name in ("like.json", "random.json", "control.safetensors"))
    about = ["--mean", mean_file(tmp_path)]
    experts = ["--neurons", "all", "--scale", "expertise"]
    excise("select", "--scores", expertise_file[0], *experts, *about, "--output", like)
    write_tensors(control, ABOUT | {"method": "random"}, {"difference": scores(5)})
    control = ["select", "--scores", control, "--matched-to", like, "--output", output]
    excise(*control, *about)
    model, drawn = read_selection(like), read_selection(output)
    as_many = output.read_bytes()
    excise(*control, *about, "--neurons", "all")
    assert output.read_bytes() == as_many
    assert (drawn["scale"], drawn["ablation"]) == ("expertise", "mean")
    for layer in range(3):
        scales = [[row["scale"] for row in one["neurons"] if row["layer"] == layer] for one in (model, drawn)]
        assert scales[0] == scales[1]
    for row in drawn["neurons"]:
        assert row["mean"] == float(scores(9)[row["layer"], row["neuron"]])
    assert "--mean is missing" in excise(*control, fails=True)
    excise(*control, "--scale", 0, "--ablation", "zero")
    assert {intervention(read_selection(output), row) for row in read_selection(output)["neurons"]} == {(0, 0)}


def test_interventions_that_have_no_meaning_are_refused(excise, tmp_path, contrast_file):
    def refused(*arguments, scores=contrast_file):
        return excise("select", "--scores", scores, *arguments, "--output", tmp_path / "v.json", fails=True)

    assert "belongs to method aura; lrp does not" in refused("--neurons", 1, "--scale", "expertise")
    about = ["--neurons", 1, "--ablation", "mean"]
    assert "--mean is missing" in refused(*about)
    assert "was made for 'm' (weights g)" in refused(*about, "--mean", mean_file(tmp_path, fingerprint="g"))
    other = mean_file(tmp_path, method="activation")
    assert "not neuron scores (excise average) of method mean-activation" in refused(*about, "--mean", other)
    assert "--ablation: unknown ablation 'median'" in refused("--neurons", 1, "--ablation", "median")
    control = tmp_path / "control.safetensors"
    write_tensors(control, ABOUT | {"method": "random"}, {"difference": scores(1).abs()})
    assert "--neurons all: the control 'random' has no contrast" in refused("--neurons", "all", scores=control)
    output = tmp_path / "list.json"
    excise("select", "--scores", contrast_file, "--neurons", 1, "--output", output)
    assert "--matched-to belongs to controls; lrp is none" in refused("--matched-to", output)
    with pytest.raises(SystemExit):
        refused("--neurons", "every")
    assert not (tmp_path / "v.json").exists()
