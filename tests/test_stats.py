import importlib
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mechsub import stats
from mechsub.lab import options, pages
from mechsub.lab.declared import declared_by
from mechsub.measures import scores


def test_student_t_against_scipy():
    x = [0.1, 0.4, 0.35, 0.8]
    found = stats.student_t(x)
    low, high = scipy_stats.t.interval(0.95, 3, loc=np.mean(x), scale=scipy_stats.sem(x))
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 4)
    assert str(stats.Interval(0.551, 0.5131, 0.589, 25)) == "0.551 [0.513, 0.589]"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((2e-4, 1e-4, 3e-4), "0.0002 [0.0001, 0.0003]"),  # not 0: three decimals would hide it
        ((-0.2, -0.4, -4.9e-4), "-0.2000 [-0.4000, -0.0005]"),
        ((0.012, 4e-6, 0.024), "0.012000 [0.000004, 0.024000]"),
        ((2e-4, -1e-4, 4e-4), "0.0002 [-0.0001, 0.0004]"),  # 0 is within, and the numbers are none
        ((2e-4, -1e-3, 4e-3), "0.000 [-0.001, 0.004]"),  # here three decimals say as much
        ((0.0, -1e-4, 1e-4), "0.000 [-0.000, 0.000]"),
        ((0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
        ((0.5, 1e-20, 0.9), "5.00e-01 [1.00e-20, 9.00e-01]"),
    ],
)
def test_an_interval_is_printed_with_the_decimals_that_it_needs(numbers, text):
    assert str(stats.Interval(*numbers, 5)) == text


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("steering", "n_resamples"),
        *((name, "n_permutations") for name in ("token_entanglement", "base_vs_instruct", "matched_tokens")),
        ("lens_trajectory", "n_permutations"),
    ],
)
def test_a_study_refuses_too_few_resamples_before_it_runs(name, option):
    declared = declared_by(importlib.import_module(f"studies.{name}"))
    with pytest.raises(ValueError, match=f"{option}: '99' is not an integer >= {stats.LEAST_RESAMPLES} "):
        options.check_values(declared.Config(**{option: 99}))


def test_an_interval_of_small_numbers_is_read_back_from_a_page():
    mark = pages._MARK.fullmatch(f"<!--= a/b -->{stats.Interval(2e-4, 1e-4, 3e-4, 5)}")
    assert mark is not None and mark["number"] == "0.0002 [0.0001, 0.0003]"


def test_student_t_covers_at_five_seeds():
    draws = np.random.default_rng(0).normal(size=(3000, 5))
    covered = np.mean([i.low <= 0 <= i.high for i in map(stats.student_t, draws)])
    assert 0.93 < covered < 0.97


def test_paired_difference_against_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=20), rng.normal(size=20)
    found, theirs = stats.paired_difference(a, b), scipy_stats.ttest_rel(a, b)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.interval.low == pytest.approx(theirs.confidence_interval().low)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")]])
def test_too_little_is_refused(values):
    with pytest.raises(ValueError, match=r"at least 2 values|NaN"):
        stats.student_t(values)


def test_p_values_of_a_true_null_are_uniform():
    rng = np.random.default_rng(2)
    t = [stats.paired_difference(*rng.normal(size=(2, 8))).p for _ in range(500)]
    flips = [stats.sign_flip_p(rng.normal(size=12), n_flips=199, seed=i) for i in range(500)]
    assert scipy_stats.kstest(t, "uniform").pvalue > 0.01
    assert scipy_stats.kstest(flips, "uniform").pvalue > 0.005


def test_planted_difference_is_found():
    d = np.random.default_rng(3).normal(1.0, 0.2, size=12)
    assert stats.sign_flip_p(d) < 0.01
    assert stats.paired_difference(d, np.zeros(12)).p < 1e-6


def test_permutation_p_is_never_zero():
    assert stats.permutation_p(5.0, [0.0] * 99) == 0.01
    assert stats.permutation_p(0.0, [0.0] * 99) == 1.0


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_clopper_pearson_against_scipy():
    exact = scipy_stats.binomtest(28, 49).proportion_ci(method="exact")
    found = stats.clopper_pearson(28, 49)
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert stats.clopper_pearson(0, 10).low == 0.0


def test_spearman_covers_and_matches_scipy():
    rng = np.random.default_rng(5)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    assert stats.spearman(x, y).mean == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    null = [stats.spearman(*rng.normal(size=(2, 25))) for _ in range(800)]
    assert 0.93 < np.mean([i.low <= 0 <= i.high for i in null]) < 0.97
    with pytest.raises(ValueError, match="constant"):
        stats.spearman(x, np.ones(40))


def test_spearman_of_a_perfect_order_keeps_a_width():
    found = stats.spearman(range(25), range(25))
    assert found.mean == found.high == pytest.approx(1.0) and 0.9 < found.low < 1.0
    with pytest.raises(ValueError, match="at least 10"):
        stats.spearman(range(5), range(5))
    assert stats.spearman_p(range(25), range(25)) < 1e-6


def test_clustered_spearman_is_wider_where_a_cluster_moves_together():
    rng = np.random.default_rng(7)
    seeds = np.repeat(np.arange(25), 8)
    x, y = rng.normal(size=(2, 25))[:, seeds] + 0.1 * rng.normal(size=(2, 200))
    whole, alone = stats.clustered_spearman(x, y, seeds, n_resamples=400), stats.spearman(x, y)
    assert whole.mean == pytest.approx(alone.mean) and whole.n == 25
    assert whole.high - whole.low > 1.8 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="10 clusters"):
        stats.clustered_spearman(x, y, seeds // 5)


def test_equal_differences_have_the_p_of_their_signs():
    assert stats.paired_difference([2.0] * 5, [1.0] * 5).p == 2.0**-4
    assert stats.paired_difference([1.0] * 5, [1.0] * 5).p == 1.0


def test_bootstrap_needs_25_and_covers():
    with pytest.raises(ValueError, match="at least 25"):
        stats.bootstrap(np.arange(10.0))
    rng = np.random.default_rng(6)
    drawn = [stats.bootstrap(rng.normal(size=40), n_resamples=300, seed=i) for i in range(300)]
    assert 0.89 < np.mean([i.low <= 0 <= i.high for i in drawn]) < 0.98


def test_a_bootstrap_of_few_resamples_or_of_no_number_is_refused():
    x = np.arange(30.0)
    for few in (
        lambda: stats.bootstrap(x, n_resamples=99),
        lambda: stats.clustered_spearman(x, x**2, np.arange(30) // 2, n_resamples=1),
        lambda: scores.crossed_bootstrap(lambda rows, columns: 0.5, 5, 5, n=39),
    ):
        with pytest.raises(ValueError, match=r"n(_resamples)? must be a whole number of at least 100"):
            few()
    with pytest.raises(ValueError, match="the statistic of the values is nan"):
        stats.bootstrap(x, lambda values: float("nan"))
    with pytest.raises(ValueError, match=r"in \d+ of 200 resamples the statistic is not finite"):
        stats.bootstrap(x, lambda values: 1.0 if 0.0 in values else math.nan, n_resamples=200)


def test_bootstrap_takes_any_statistic():
    x = np.random.default_rng(7).normal(size=30)
    rows = np.random.default_rng(3).integers(0, 30, size=(200, 30))
    wanted = np.quantile([np.median(x[row]) for row in rows], [0.025, 0.975])
    found = stats.bootstrap(x, lambda values: float(np.median(values)), n_resamples=200, seed=3)
    assert [found.low, found.high] == pytest.approx(list(wanted))


def test_a_ratio_of_means_covers():
    rng = np.random.default_rng(4)
    y = rng.normal(2.0, 0.5, size=(2000, 25))
    x = 0.3 * y + rng.normal(0, 0.2, size=y.shape)
    found = [stats.ratio_of_means(a, b) for a, b in zip(x, y, strict=True)]
    assert 0.93 < np.mean([i.low <= 0.3 <= i.high for i in found]) < 0.97
    assert stats.ratio_of_means([1, 1.0], [2, 2.0]).mean == 0.5
    with pytest.raises(ValueError, match="mean of 0"):
        stats.ratio_of_means([1, 1], [-1, 1])


def test_shapley_values_against_all_orders():
    import itertools

    rng = np.random.default_rng(5)
    players = ("a", "b", "c", "d")
    sets = [frozenset(s) for n in range(5) for s in itertools.combinations(players, n)]
    value = {some: float(rng.normal()) for some in sets}
    found = stats.shapley(value)
    orders = list(itertools.permutations(players))
    for player in players:
        gains = [value[b | {player}] - value[b] for o in orders for b in [frozenset(o[: o.index(player)])]]
        assert found[player] == pytest.approx(np.mean(gains))
    assert sum(found.values()) == pytest.approx(value[sets[-1]] - value[sets[0]])
    # One that adds nothing to any set has no share; two that are needed together have half each.
    needed = stats.shapley({some: float({"a", "b"} <= some) for some in sets})
    assert needed == pytest.approx({"a": 0.5, "b": 0.5, "c": 0, "d": 0})
    with pytest.raises(ValueError, match="1 are missing"):
        stats.shapley({some: value[some] for some in sets[1:]})
