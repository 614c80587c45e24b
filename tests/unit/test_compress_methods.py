"""Every method against a plain float64 loop written from its paper."""

import math

import pytest
import torch

from excise.compress import METHODS, admm, alps, clearcut, least_squares, magnitude, obs, random, ria, sparsegpt, wanda
from excise.compress.inputs import Inputs, damped, inverse_factor
from excise.compress.masks import pruned
from excise.compress.patterns import parse
from excise.errors import ExciseError

ROWS, COLUMNS = 6, 24


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return torch.randn(ROWS, COLUMNS, dtype=torch.float64)


@pytest.fixture
def inputs():
    """Correlated inputs of very different size, one always zero."""
    torch.manual_seed(1)
    mixing = torch.randn(COLUMNS, COLUMNS, dtype=torch.float64) * torch.logspace(-1, 1, COLUMNS, dtype=torch.float64)
    rows = torch.randn(100, COLUMNS, dtype=torch.float64) @ mixing
    rows[:, 3] = 0
    return rows


@pytest.fixture
def gram(inputs):
    return inputs.T @ inputs


def output_error(before, after, gram):
    change = before - after
    return float(((change @ gram) * change).sum() / ((before @ gram) * before).sum())


def test_inputs_add_up(inputs):
    whole, parts = (Inputs(COLUMNS, gram=True, device=torch.device("cpu")) for _ in range(2))
    whole.add(inputs[None])
    parts.add(inputs[:50])
    parts.add(inputs[50:])
    assert whole.tokens == parts.tokens == 100
    torch.testing.assert_close(parts.gram, inputs.T @ inputs)
    norms = [math.sqrt(sum(float(row[j]) ** 2 for row in inputs)) for j in range(COLUMNS)]
    torch.testing.assert_close(whole.norms, torch.tensor(norms))
    only = Inputs(COLUMNS, gram=False, device=torch.device("cpu"))
    only.add(inputs.bfloat16())
    torch.testing.assert_close(only.norms, torch.tensor(norms), rtol=1e-2, atol=1e-3)


def test_scores(weight, inputs):
    weight[2], weight[:, 5] = 0, 0
    norms = inputs.square().mean(0).sqrt()
    for i in range(ROWS):
        for j in range(COLUMNS):
            size = abs(float(weight[i, j]))
            column, row = float(weight[:, j].abs().sum()), float(weight[i].abs().sum())
            c, r = size / column if column else 0, size / row if row else 0
            root = math.sqrt(float(norms[j]))
            assert magnitude.score(weight)[i, j] == size
            assert float(wanda.score(weight, norms)[i, j]) == pytest.approx(size * float(norms[j]))
            assert float(ria.score(weight, norms)[i, j]) == pytest.approx((c + r) * root)
            assert float(clearcut.score(weight, norms)[i, j]) == pytest.approx((c + r + 0.1 * c * r) * root)


def test_random_is_drawn_from_the_seed(weight):
    assert torch.equal(random.score(weight, 3), random.score(weight, 3))
    assert not torch.equal(random.score(weight, 3), random.score(weight, 4))


def naive_sweep(weight, gram, mask_at):
    """OBS, column by column, with the inverse of what is left computed anew each time (no Cholesky factor)."""
    full = damped(gram, 0.01)
    weight = torch.where(gram.diagonal() == 0, 0, weight)
    for j in range(COLUMNS):
        inverse = torch.linalg.inv(full[j:, j:])
        mask = mask_at(weight, j, full)
        for i in range(ROWS):
            if mask[i]:
                weight[i, j:] -= weight[i, j] / inverse[0, 0] * inverse[0]
                weight[i, j] = 0
    return weight


def error_of(weight, full, j):
    return weight[:, j].square() / torch.linalg.inv(full[j:, j:])[0, 0]


def test_obs_is_the_optimal_brain_surgeon(weight, gram):
    mask = pruned(weight.abs(), parse("0.5", "row"))
    expected = naive_sweep(weight.clone(), gram, lambda _, j, __: mask[:, j])
    torch.testing.assert_close(obs.repair(weight, mask, gram), expected)


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "1:4"])
def test_sparsegpt(weight, gram, pattern):
    group = parse(pattern, "matrix")
    span = 4 if ":" in pattern else COLUMNS
    mask = torch.zeros_like(weight, dtype=torch.bool)

    def mask_at(current, j, full):
        if j % span == 0:  # chosen for this group of columns from the weights as they are by now
            errors = torch.stack([error_of(current, full, k) for k in range(j, j + span)], dim=1)
            mask[:, j : j + span] = pruned(errors, group)
        return mask[:, j]

    expected = naive_sweep(weight.clone(), gram, mask_at)
    found = sparsegpt.solve(weight, gram, group)
    torch.testing.assert_close(found, expected)
    assert (found[mask] == 0).all()


@pytest.mark.parametrize("group", ["row", "matrix"])
def test_sparsegpt_counts_exactly_over_several_blocks(group):
    torch.manual_seed(0)
    weight, rows = torch.randn(5, 300), torch.randn(700, 300, dtype=torch.float64)
    protect = torch.rand(5, 300) < 0.2
    protect[1, :140] = True
    for kept in (None, protect):
        found = sparsegpt.solve(weight, rows.T @ rows, parse("0.37", group), kept)
        zeros = found == 0
        assert zeros.sum() == (5 * 111 if group == "row" else 555)
        if group == "row":
            assert (zeros.sum(1) == 111).all()
        if kept is not None:
            assert not (zeros & kept).any()


def test_least_squares_on_the_support(weight, gram):
    mask = pruned(weight.abs(), parse("0.5", "row"))
    full = damped(gram, 0.01)
    expected = torch.zeros_like(weight)
    for i in range(ROWS):
        kept = (~mask[i]).nonzero().flatten()
        expected[i, kept] = torch.linalg.solve(full[kept][:, kept], (full @ weight[i])[kept])
    found = least_squares.fit(weight, mask, gram)
    assert output_error(weight, found, full) <= output_error(weight, expected, full) * (1 + 1e-5)
    assert (found[mask] == 0).all()


def naive_alps(weight, gram, pattern):
    """ALPS by its eigenvectors, as in the paper."""
    full = gram + torch.diag((gram.diagonal() == 0).double())
    full = full + 0.01 * full.diagonal().mean() * torch.eye(COLUMNS, dtype=torch.float64)
    root = full.diagonal().sqrt()
    unit = full / torch.outer(root, root)
    values, vectors = torch.linalg.eigh(unit)
    dense = (weight * root).T
    goal = unit @ dense

    def support_of(matrix):
        return ~pruned((matrix.T) ** 2, pattern).T

    rho, moved, before = 0.1, False, support_of(dense)
    d, v = dense * before, torch.zeros_like(dense)
    for step in range(300):
        b = vectors @ torch.diag(1 / (values + rho)) @ vectors.T @ (goal - v + rho * d)
        support = support_of(b + v / rho)
        d = (b + v / rho) * support
        v = v + rho * (b - d)
        if step % 3 != 2:
            continue
        changed = float((support != before).sum() / before.sum())
        before = support
        if moved and (changed == 0 or (step >= 30 and changed < 3e-4)):
            break
        if moved or changed > 0.005:
            moved = True
            rho *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
        else:
            rho /= 5
            if changed:
                d, v = dense * support_of(dense), torch.zeros_like(dense)
    support = support_of(b)
    found = torch.zeros_like(dense)
    for i in range(ROWS):  # the exact solution, which conjugate gradients approach
        kept = support[:, i].nonzero().flatten()
        found[kept, i] = torch.linalg.solve(unit[kept][:, kept], goal[kept, i])
    return (found / root[:, None]).T


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_alps(weight, gram, pattern):
    chosen = parse(pattern, "matrix")
    expected, found = naive_alps(weight, gram, chosen), alps.solve(weight, gram, chosen)
    assert torch.equal(found != 0, expected != 0)
    assert output_error(weight, found, gram) == pytest.approx(output_error(weight, expected, gram), rel=0.05)


def naive_admm(weight, gram, pattern):
    """ADMM-Grad with the matrices of the paper: unscaled dual, one system of equations per step."""
    root = torch.where(gram.diagonal() == 0, 1, gram.diagonal()).sqrt()
    unit = gram / torch.outer(root, root) + 0.1 * torch.eye(COLUMNS, dtype=torch.float64)
    dense = (weight * root).T
    free, multiplier = dense.clone(), torch.zeros_like(dense)
    for step in range(20):
        if step < 15:
            mask = ~pruned(((free + multiplier) ** 2).T, pattern).T
        masked = (free + multiplier) * mask
        multiplier = multiplier + free - masked
        system = unit + torch.eye(COLUMNS, dtype=torch.float64)
        free = torch.linalg.solve(system, unit @ dense + masked - multiplier)
    return ((free + multiplier) * mask / root[:, None]).T


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_admm(weight, gram, pattern):
    chosen = parse(pattern, "matrix")
    torch.testing.assert_close(admm.solve(weight, gram, chosen), naive_admm(weight, gram, chosen))


def test_alps_on_inputs_without_correlation_is_wanda():
    torch.manual_seed(0)
    weight, sizes = torch.randn(4, 16), torch.rand(16, dtype=torch.float64) + 0.5
    found = alps.solve(weight, torch.diag(sizes.square()), parse("2:4", "row"))
    mask = pruned(wanda.score(weight, (sizes.square() + 0.01 * sizes.square().mean()).sqrt()), parse("2:4", "row"))
    torch.testing.assert_close(found, weight.masked_fill(mask, 0))


def test_weight_updates_lower_the_error(weight, gram):
    pattern = parse("2:4", "row")
    mask = pruned(wanda.score(weight, gram.diagonal().sqrt()), pattern)
    errors = [
        output_error(weight, found, gram)
        for found in (
            weight.masked_fill(mask, 0),
            obs.repair(weight, mask, gram),
            least_squares.fit(weight, mask, gram),
            alps.solve(weight, gram, pattern),
        )
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("method", ["sparsegpt", "admm", "alps"])
def test_solvers_protect(weight, gram, method):
    protect = torch.zeros_like(weight, dtype=torch.bool)
    protect[1], protect[:, 7] = True, True
    solve = {"sparsegpt": sparsegpt.solve, "admm": admm.solve, "alps": alps.solve}[method]
    found = solve(weight, gram, parse("0.5", "matrix"), protect)
    live = protect & (gram.diagonal() != 0)
    assert (found[live] != 0).all()
    assert (found == 0).sum() in (72, 73)  # the protected weight of the input that is always zero


def test_damping_is_raised_and_then_an_error(gram, caplog):
    broken = gram.clone()
    broken -= 0.05 * broken.diagonal().mean() * torch.eye(COLUMNS, dtype=torch.float64)
    inverse_factor(broken, 0.01)
    assert "needed a damping of 0.1" in caplog.text
    with pytest.raises(ExciseError, match="not positive definite, even with a damping of 10 "):
        inverse_factor(broken - 1e6 * torch.eye(COLUMNS, dtype=torch.float64), 0.01)


def test_the_registry_names_what_is_there():
    assert set(METHODS) == {"random", "magnitude", "lrp", "wanda", "ria", "clearcut", "sparsegpt", "admm", "alps"}
    with pytest.raises(ExciseError, match="Did you mean 'wanda'"):
        __import__("excise.compress", fromlist=["method"]).method("wandaa")
