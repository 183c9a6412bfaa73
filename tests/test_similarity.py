import itertools
import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from mechsub.measures import distances
from mechsub.measures import similarity as s


def gaussians(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def reference():
    """The data of the CKA authors' notebook, and the values that it prints."""
    rng = np.random.RandomState(1337)
    x = rng.randn(100, 10)
    return torch.tensor(x), torch.tensor(rng.randn(100, 10) + x)


def test_reference_values(reference):
    assert s.linear_cka(*reference, debiased=False).item() == pytest.approx(0.55761, abs=1e-5)
    assert s.linear_cka(*reference).item() == pytest.approx(0.51346, abs=1e-5)
    assert s.rbf_cka(*reference).item() == pytest.approx(0.65483, abs=1e-4)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("shape", [(60, 10), (30, 200)])
def test_parity_with_the_published_formulas(debiased, shape):
    x, y = gaussians(*shape), gaussians(*shape, seed=1)
    y = y + x
    k, m = x @ x.T, y @ y.T
    hsic = _unbiased_hsic if debiased else _hsic
    published = hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    assert s.linear_cka(x, y, debiased=debiased).item() == pytest.approx(published, abs=1e-10)


def _hsic(k, m):
    """Of Gram matrices (Gretton et al. 2005): tr(K H L H) / (n - 1)^2."""
    n = len(k)
    centring = torch.eye(n, dtype=k.dtype) - 1 / n
    return float((k @ centring @ m @ centring).trace()) / (n - 1) ** 2


def _unbiased_hsic(k, m):
    """Of Gram matrices (Song et al. 2012, equation 5), by their sums."""
    n = len(k)
    k, m = k - k.diag().diag(), m - m.diag().diag()
    ones = torch.ones(n, dtype=k.dtype)
    means = float(ones @ k @ ones) * float(ones @ m @ ones) / ((n - 1) * (n - 2))
    return (float((k @ m).trace()) + means - 2 * float(ones @ k @ m @ ones) / (n - 2)) / (n * (n - 3))


def test_unbiased_hsic_is_the_mean_over_all_4_tuples():
    x, y = gaussians(6, 3), gaussians(6, 2, seed=1)
    k, m = x @ x.T, y @ y.T
    total, count = 0.0, 0
    for i, j, q, r in itertools.permutations(range(6), 4):
        total += float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
        count += 1
    assert s.cka_terms(x, y)[0].item() == pytest.approx(total / count, rel=1e-10)


@pytest.mark.parametrize("n", [32, 128, 512])
def test_null_of_independent_data(n):
    pairs = [(gaussians(n, 256, seed=2 * i), gaussians(n, 256, seed=2 * i + 1)) for i in range(5)]
    biased = np.mean([s.linear_cka(*pair, debiased=False).item() for pair in pairs])
    debiased = np.mean([s.linear_cka(*pair).item() for pair in pairs])
    assert biased == pytest.approx(256 / (256 + n), abs=0.01)
    assert abs(debiased) < 0.03


def test_debiased_cka_is_unbiased_when_wider_than_long():
    values = [s.linear_cka(gaussians(64, 256, seed=2 * i), gaussians(64, 256, seed=2 * i + 1)) for i in range(200)]
    assert abs(torch.stack(values).mean().item()) < 0.01


@pytest.mark.parametrize("debiased", [True, False])
def test_invariances(debiased):
    x, y = gaussians(50, 8), gaussians(50, 8, seed=1) + gaussians(50, 8)
    q = torch.linalg.qr(gaussians(8, 8, seed=2)).Q
    value = s.linear_cka(x, y, debiased=debiased)
    assert torch.allclose(s.linear_cka(x @ q, 7 * y, debiased=debiased), value, atol=1e-12)
    assert torch.allclose(s.linear_cka(y, x, debiased=debiased), value, atol=1e-12)
    assert s.linear_cka(x, x @ q, debiased=debiased).item() == pytest.approx(1, abs=1e-12)


def test_an_offset_of_all_features_changes_nothing_in_float32():
    x, y = gaussians(64, 8), gaussians(64, 8, seed=1) + gaussians(64, 8)
    moved = s.linear_cka((x + 1e4).float(), (y + 1e4).float())
    assert moved.item() == pytest.approx(s.linear_cka(x, y).item(), abs=1e-3)  # float32 holds 1e4 to 1e-3


def test_minibatches_sum_terms_before_the_ratio():
    x = gaussians(1024, 32)
    y = torch.relu(x @ gaussians(32, 32, seed=1))
    terms = sum(s.cka_terms(a, b) for a, b in zip(x.split(64), y.split(64), strict=True))
    assert s.cka_from_terms(terms).item() == pytest.approx(s.linear_cka(x, y).item(), abs=0.01)


NOT_ROTATION_INVARIANT = ("identity_distance", "cosine", "unit_correlation", "gate_agreement")
PERFECT = dict.fromkeys(s.METRICS, 1.0) | {"identity_distance": 0.0}


@pytest.mark.parametrize("name", s.METRICS)
def test_planted_positive_and_null(name):
    x = gaussians(400, 12)
    same = s.METRICS[name](x, x.clone()).item()
    unrelated = s.METRICS[name](x, gaussians(400, 12, seed=9)).item()
    # Biased RBF CKA is far from 0 for unrelated data: one more reason for debiased linear CKA as the default.
    chance = {
        "rbf_cka": 0.17,
        "identity_distance": 2**0.5,
        "gate_agreement": 0.5,
        "procrustes": 0.14,
        "mutual_knn": 10 / 399,
    }
    assert same == pytest.approx(PERFECT[name], abs=1e-3)
    assert unrelated == pytest.approx(chance.get(name, 0.0), abs=0.08)


@pytest.mark.parametrize("name", s.METRICS)
def test_rotation(name):
    x = gaussians(400, 12)
    rotated = x @ torch.linalg.qr(gaussians(12, 12, seed=3)).Q
    value = s.METRICS[name](x, rotated).item()
    if name in NOT_ROTATION_INVARIANT:
        assert abs(value - PERFECT[name]) > 0.3
    else:
        assert value == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", s.METRICS)
def test_leading_axes_are_independent(name):
    x, y = gaussians(3, 60, 5), gaussians(3, 60, 5, seed=1) + gaussians(3, 60, 5)
    one_by_one = torch.stack([s.METRICS[name](a, b) for a, b in zip(x, y, strict=True)])
    assert torch.allclose(s.METRICS[name](x, y), one_by_one, atol=1e-10)


@pytest.mark.parametrize("name", s.METRICS)
def test_bad_activations_are_refused(name):
    x, holed = gaussians(60, 5), gaussians(60, 5)
    holed[3, 2] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        s.METRICS[name](x, holed)
    with pytest.raises((ValueError, TypeCheckError)):
        s.METRICS[name](x, x[:-1])


def test_unequal_samples_are_named_without_the_type_checker():
    with pytest.raises(ValueError, match=r"samples do not match: x and y are \(60, 5\) and \(59, 5\)"):
        s._checked(gaussians(60, 5), gaussians(59, 5), 4)


def test_cka_refuses_what_has_no_value():
    with pytest.raises(ValueError, match="at least 4 samples"):
        s.linear_cka(gaussians(3, 5), gaussians(3, 5))
    with pytest.raises(ValueError, match="constant"):
        s.linear_cka(torch.ones(10, 3), gaussians(10, 3).float())


def test_mutual_knn_by_hand():
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    y = torch.tensor([[0.0], [1.0], [2.5], [20.0]])
    # Nearest neighbours 1 0 3 2 and 1 0 1 2: three of four agree.
    assert s.mutual_knn(x, y, k=1).item() == pytest.approx(0.75)


def test_linear_r2_is_asymmetric():
    x = gaussians(400, 6)
    assert s.linear_r2(x, x[:, :2]).item() == pytest.approx(1, abs=1e-3)
    assert s.linear_r2(x[:, :2], x).item() < 0.5


def test_weight_changes():
    a = gaussians(2, 4, 3)
    assert torch.allclose(s.weight_cosine(a, 2 * a), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(s.projection_share(0.25 * a, a), torch.full((2,), 0.25, dtype=torch.float64))
    assert s.weight_cosine(gaussians(1, 400, 400), gaussians(1, 400, 400, seed=1)).abs().item() < 0.02
    with pytest.raises(ValueError, match="has not changed"):
        s.weight_cosine(torch.zeros(1, 3), torch.ones(1, 3))


def test_hidden_alignment_needs_the_same_hooks():
    cache = {"blocks.0.hook_out": gaussians(2, 30, 4)}
    assert torch.allclose(s.hidden_alignment(cache, cache)["blocks.0.hook_out"], torch.ones(2).double())
    with pytest.raises(ValueError, match="different hooks"):
        s.hidden_alignment(cache, {"blocks.1.hook_out": gaussians(2, 30, 4)})


@pytest.mark.parametrize("name", s.METRICS)
def test_the_table_of_directions_is_what_the_metrics_do(name):
    """Related samples beside shuffled ones: more alike is larger, of a distance smaller."""
    x, noise = gaussians(64, 4), gaussians(64, 4, seed=1)
    y = x + 0.3 * noise
    related, shuffled = (float(s.METRICS[name](a, y)) for a in (x, x.flip(0)))
    assert (related - shuffled) * distances.sign(name) > 0
    assert s.is_distance(s.METRICS[name], x) == (distances.sign(name) < 0)
    found = s.permutation_null(x, y, s.METRICS[name], n_permutations=39)
    assert found["p"] == 1 / 40
    edge = found.get("quantile95", found.get("quantile05"))
    assert (found["value"] - edge) * distances.sign(name) > 0


def test_the_direction_of_a_metric_of_ones_own_is_found_by_running_it():
    x = gaussians(40, 3)
    y = x + 0.1 * gaussians(40, 3, seed=1)
    for metric in (lambda a, b: (a - b).norm(), lambda a, b: -(a - b).norm(), lambda a, b: torch.cdist(a, b).trace()):
        assert s.permutation_null(x, y, metric, n_permutations=19)["p"] == 1 / 20
    with pytest.raises(ValueError, match="no direction"):
        s.permutation_null(x, y, lambda a, b: a.norm() + b.norm() - b.norm())


def test_neighbours_at_equal_distance_share_the_place():
    """Corners of a square, moved off the origin so that equal distances differ by rounding: every corner has two
    neighbours at the side's length, of which each has half of the place of k = 1."""
    half = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]) / 2
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    for scale in (0.1, 1 / 3, 7.7):
        for angle in (0.1, 0.7, 1.1):
            c, s_ = math.cos(angle), math.sin(angle)
            turned = scale * corners @ torch.tensor([[c, -s_], [s_, c]], dtype=torch.float64) + 0.3
            assert torch.equal(s._neighbours(turned, 1), half.double())


def test_samples_that_coincide_are_no_likeness():
    """Independent one-hots of eight classes: many coincide, and the share is chance whatever the order of rows."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.eye(8)[torch.randint(8, (400,), generator=draw)] for _ in range(2))
    found = s.mutual_knn(x, y).item()
    assert found == pytest.approx(10 / 399, rel=0.1)
    order = torch.randperm(400, generator=draw)
    assert s.mutual_knn(x[order], y[order]).item() == pytest.approx(found)


def test_permutation_null_tells_related_from_unrelated():
    x = gaussians(60, 5)
    assert s.permutation_null(x, x + gaussians(60, 5, seed=1))["p"] == pytest.approx(1 / 101)
    unrelated = [s.permutation_null(x, gaussians(60, 5, seed=i), n_permutations=19)["p"] for i in range(2, 42)]
    assert 0.3 < np.mean(unrelated) < 0.75


@pytest.mark.parametrize("name", ["debiased_cka", "procrustes", "mutual_knn", "linear_r2", "gate_agreement"])
def test_what_does_not_vary_is_refused_at_any_scale(name):
    x = gaussians(60, 5)
    assert torch.isfinite(s.METRICS[name](1e-8 * x, x))
    with pytest.raises(ValueError):
        s.METRICS[name](torch.zeros_like(x), x)


def test_coinciding_samples_have_no_kernel_width():
    x = torch.zeros(40, 3)
    x[0] = 1
    with pytest.raises(ValueError, match="median distance"):
        s.rbf_cka(x, x)
