"""Values that tie but for rounding: every test of permutations counts them, and ranks share them.

What is right is counted by hand, or by the same test in exact arithmetic (fractions, integers).
"""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from mechsub import stats
from mechsub.measures import scores as e


def test_equal_sums_in_another_order_tie():
    observed, other = (0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3)
    assert observed != other
    assert stats.permutation_p(max(observed, other), [min(observed, other)] * 99) == 1.0
    assert stats.permutation_p(0.7, [0.6] * 99) == 0.01
    assert stats.permutation_p(0.6 + 1e-6, [0.6] * 99) == 0.01  # no rounding, and no tie


def test_fp32_ties_at_its_own_rounding():
    null = np.full(99, 0.6, dtype=np.float32)
    assert stats.permutation_p(0.6000002, null) == 1.0
    assert stats.permutation_p(0.6000002, null.astype(float).tolist()) == 0.01
    assert stats.as_large(torch.full((3,), 0.6), 0.6000002).tolist() == [True] * 3


def test_what_is_all_rounding_ties_on_the_scale_of_its_statistic():
    assert stats.permutation_p(3e-17, [1e-17, -2e-17] * 10, scale=1.0) == 1.0


@pytest.mark.parametrize("values", [[0.1, -0.1], [0.1, 0.2, -0.3], [0.7, 0.7, 0.7, -0.1], [0.3, 0.1, 0.2, 0.6, 0.4]])
def test_sign_flips_against_exact_arithmetic(values):
    exact = [Fraction(round(10 * v), 10) for v in values]
    flips = product((1, -1), repeat=len(exact))
    means = [abs(sum(s * v for s, v in zip(signs, exact, strict=True))) for signs in flips]
    right = sum(m >= abs(sum(exact)) for m in means) / len(means)
    assert stats.sign_flip_p(values, n_flips=20_000) == pytest.approx(right, abs=0.015)


def test_differences_that_are_equal_but_for_rounding_are_a_test_of_signs():
    a = [0.3, 0.4, 0.5, 0.7, 1.3]
    b = [0.2, 0.3, 0.4, 0.6, 1.2]
    assert len(set(np.subtract(a, b))) > 1
    assert stats.paired_difference(a, b).p == 2.0**-4
    assert stats.paired_difference([0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2]).p == 1.0


def test_ranks_share_what_differs_by_rounding():
    whole = np.random.default_rng(0).integers(0, 4, size=(2, 30))
    right = scipy_stats.spearmanr(*whole)
    noisy = whole / 10 * (1 + 1e-15 * np.random.default_rng(1).integers(-3, 4, size=whole.shape))
    assert abs(scipy_stats.spearmanr(*noisy).statistic - right.statistic) > 1e-3  # what scipy alone would say
    assert stats.spearman(*noisy).mean == pytest.approx(right.statistic, rel=1e-12)
    assert stats.spearman_p(*noisy) == pytest.approx(right.pvalue, rel=1e-9)
    assert stats.clustered_spearman(*noisy, range(30)).mean == pytest.approx(right.statistic, rel=1e-12)


def test_a_constant_but_for_rounding_is_a_constant():
    x = np.arange(12.0)
    almost = np.where(x % 2, 0.1 + 0.2, 0.3)
    for test in (stats.spearman, stats.spearman_p, lambda a, b: stats.clustered_spearman(a, b, range(12))):
        with pytest.raises(ValueError, match="constant"):
            test(x, almost)


def test_resamples_without_variation_have_no_interval():
    x = np.arange(12.0)
    y = np.r_[1.0, np.zeros(11)]  # (11/12)^12 of all resamples lack the only cluster that differs
    with pytest.raises(ValueError, match=r"in \d+ resamples of clusters a side is constant"):
        stats.clustered_spearman(x, y, range(12))


def test_joined_leaves_other_values_as_they_are():
    x = np.random.default_rng(0).normal(size=(5, 7))
    assert np.array_equal(stats.joined(x), x)
    assert stats.joined([0.3, 1.0, 0.1 + 0.2, -0.3]).tolist() == [0.3, 1.0, 0.3, -0.3]
    small = 10.0 ** -np.arange(14)  # probabilities: small ones beside 1 keep their order
    assert np.array_equal(stats.joined(small), small)
    near = np.float32(0.1) * (1 + np.arange(3) * np.finfo(np.float32).eps).astype(np.float32)
    assert len(set(stats.joined(near))) == len(set(near.tolist())) > 1  # fp32 data are as they are


# Matrices of token entanglement.


def test_the_matrix_test_against_whole_numbers():
    """Rows that are copies of one another tie in many orders; on integers the dot product is exact."""
    for seed in range(40):
        draw = np.random.default_rng(seed)
        rows = draw.integers(-3, 4, size=(2, 4))
        a = torch.tensor(rows[np.arange(6) % 2], dtype=torch.float64)
        b = torch.tensor(draw.integers(-3, 4, size=(6, 4)), dtype=torch.float64)
        exact = e.permutation_p(a, b, n=199, seed=seed, move_columns=False, statistic=lambda x, y: float((x * y).sum()))
        scaled = e.permutation_p(a / 3, b / 7, n=199, seed=seed, move_columns=False)
        assert scaled[0] == exact[0]  # with fixed rows a correlation orders the permutations as the product does


def test_what_main_effects_leave_is_nothing():
    rows, columns = torch.randn(9, 1, generator=torch.Generator().manual_seed(0)).double(), torch.linspace(0, 1, 5)
    left = e.interaction(rows / 3 + columns.double() / 7 - 20)
    assert torch.equal(left, torch.zeros(9, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="constant"):
        e.matrix_correlation(left, torch.randn(9, 5))
    with pytest.raises(ValueError, match="constant"):
        e.matrix_correlation(torch.full((9, 5), 0.1), torch.randn(9, 5))
    with pytest.raises(ValueError, match="all scores are equal"):
        e.variance_shares(torch.full((9, 7), 0.1, dtype=torch.float64), ["row", "column"])


def test_orthogonal_parts_have_no_small_p():
    """Rows of a are all +-u and those of b +-v, with u and v orthogonal: every order of rows has correlation 0."""
    u, v = torch.tensor([0.1, -0.1, 0.0]).double(), torch.tensor([0.1, 0.1, -0.2]).double() / 3
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]).double()
    p, null = e.permutation_p(torch.outer(signs, u), torch.outer(signs, v), n=99, move_columns=False)
    assert max(map(abs, null)) < 1e-14 and p == 1.0


def test_means_over_seeds_in_another_order_are_equal_ranks():
    from mechsub.lab import verdicts
    from mechsub.lab.findings import Finding
    from studies.input_distributions import law
    from studies.unembed_projection import ranks

    one, other = np.mean([0.1, 0.2, 0.3]), sum([0.3, 0.1, 0.2]) / 3 + 1e-16
    assert one != other
    assert law._ranks(np.array([[one, other, 0.5]])).tolist() == [[1.0, 1.0, 2.5]]
    assert ranks.ranks(torch.tensor([[one], [other], [0.5]]))[:, 0].tolist() == [1.5, 1.5, 3.0]

    def level(*scores):
        return Finding("level/score", "", None, scores=dict(enumerate(scores)))

    assert verdicts.rank([level(0.1, 0.2), level(0.2, 0.1 + 1e-17), level(0.30000000000000004)]) <= 1.0
    assert verdicts.rank([level(one), level(other)]) == 0.0
