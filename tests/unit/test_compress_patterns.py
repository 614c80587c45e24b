"""Patterns: exact counts on any shape, one rule for ties, protected weights, and what is refused."""

import math
from fractions import Fraction

import pytest
import torch

from excise.compress.masks import pruned, pruned_together, quotas
from excise.compress.patterns import KeepNofM, Share, check_divides, parse
from excise.errors import ExciseError

SHARES = ("0.5", "0.29", "70%", "1/3")
BLOCKS = ("1:4", "2:4", "3:4", "4:8")


def naive(score, count):
    """The positions of the lowest of a list; of equal ones the first."""
    return set(sorted(range(len(score)), key=lambda place: (score[place], place))[:count])


def matrices():
    """Random shapes; many ties, zero rows, dead columns, one size, bfloat16."""
    generator = torch.Generator().manual_seed(0)
    for rows, groups in ((1, 1), (3, 2), (5, 7), (16, 3)):
        matrix = torch.randn(rows, 8 * groups, generator=generator).abs()
        yield matrix
        yield (matrix * 3).round()
        yield matrix.bfloat16()
        yield torch.ones_like(matrix)
        matrix = matrix.clone()
        matrix[0], matrix[:, 1] = 0, 0
        yield matrix


@pytest.mark.parametrize("group", ["row", "matrix"])
@pytest.mark.parametrize("text", SHARES)
def test_a_share_prunes_exactly_the_lowest_of_each_group(text, group):
    pattern = parse(text, group)
    for score in matrices():
        mask = pruned(score, pattern)
        groups = score if group == "row" else score.reshape(1, -1)
        for values, marks in zip(groups.tolist(), mask.reshape(groups.shape), strict=True):
            found = set(marks.nonzero().flatten().tolist())
            assert found == naive(values, math.floor(pattern.share * len(values)))


@pytest.mark.parametrize("text", BLOCKS)
def test_n_of_m_keeps_n_of_every_m_inputs(text):
    pattern = parse(text, "row")
    kept, size = map(int, text.split(":"))
    for score in matrices():
        mask = pruned(score, pattern)
        for values, marks in zip(score.reshape(-1, size).tolist(), mask.reshape(-1, size), strict=True):
            assert set(marks.nonzero().flatten().tolist()) == naive(values, size - kept)
    assert str(pattern) == f"{kept} of {size} kept"


def test_a_share_is_exact_where_floating_point_is_not():
    assert int(0.29 * 100) == 28
    assert pruned(torch.rand(1, 100), parse("0.29", "row")).sum() == 29


def test_a_layer_is_one_group():
    scores = [torch.full((2, 4), 1.0), torch.full((3, 4), 2.0), torch.full((1, 4), 0.5)]
    masks = pruned_together(scores, parse("0.5", "layer"))
    assert [int(mask.sum()) for mask in masks] == [8, 0, 4]
    protect = [torch.ones(2, 4, dtype=torch.bool), None, None]
    assert [int(mask.sum()) for mask in pruned_together(scores, parse("0.5", "layer"), protect)] == [0, 8, 4]


@pytest.mark.parametrize("group", ["row", "matrix"])
def test_protected_weights_stay_and_the_count_too(group):
    generator = torch.Generator().manual_seed(1)
    pattern = Share(Fraction(1, 2), group)
    for _ in range(20):
        score = torch.rand(6, 10, generator=generator)
        protect = torch.rand(6, 10, generator=generator) < 0.3
        protect[2] = True
        mask = pruned(score, pattern, protect)
        assert not (mask & protect).any()
        assert mask.sum() == 30
        if group == "row":  # rows with room for their part prune at least that
            free = (~protect).sum(1)
            assert (mask.sum(1) >= free.clamp(max=5)).all()


def test_a_row_that_is_protected_is_made_up_for_in_proportion_to_room():
    wanted, room = torch.tensor([[5, 5, 5, 5]]), torch.tensor([[0, 10, 7, 6]])
    # 5 are missing; the others have 5, 2 and 1 left: 5 x 5/8 = 3.1, 5 x 2/8 = 1.25, 5 x 1/8 = 0.6: 3, 1, 1
    assert quotas(wanted, room).tolist() == [[0, 8, 6, 6]]
    assert quotas(torch.tensor([[1, 1]]), torch.tensor([[0, 2]])).tolist() == [[0, 2]]


def test_n_of_m_cannot_protect_more_than_n_of_a_group():
    score, protect = torch.rand(2, 8), torch.zeros(2, 8, dtype=torch.bool)
    protect[1, 4:6] = True
    mask = pruned(score, KeepNofM(2, 4), protect)
    assert mask[1, 4:].tolist() == [False, False, True, True]
    protect[1, 6] = True
    with pytest.raises(ExciseError, match="more than 2 weights of a group of 4"):
        pruned(score, KeepNofM(2, 4), protect)


def test_refusals():
    with pytest.raises(ExciseError, match="all except 3 are protected"):
        pruned(torch.rand(1, 8), parse("0.5", "row"), torch.arange(8)[None] < 5)
    with pytest.raises(ExciseError, match="NaN"):
        pruned(torch.tensor([[1.0, math.nan]]), parse("0.5", "row"))
    for text in ("0", "1", "1.2", "4:4", "0:4", "5:4", "half", "2:", "1/0"):
        with pytest.raises(ExciseError, match="--pattern"):
            parse(text, "row")
    with pytest.raises(ExciseError, match="comparison group 'rows'"):
        parse("0.5", "rows")
    with pytest.raises(ExciseError, match="10 inputs, which 4 does not"):
        check_divides(KeepNofM(2, 4), 10, "map")
