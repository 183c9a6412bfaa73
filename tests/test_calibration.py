"""Short forms of `benchmarks/calibration.py`: intervals cover, nulls are uniform, debiased CKA is unbiased."""

import numpy as np
import pytest

from benchmarks import calibration as c
from mechsub import stats

HALF = c.rank_correlation(0.5)


@pytest.mark.parametrize(
    ("experiment", "truth", "trials", "band"),
    [
        (c.paired(5), 0.3, 2000, (0.93, 0.97)),
        (c.mean_of(c.normal, 25, lambda x: stats.bootstrap(x, n_resamples=500)), 0.0, 800, (0.90, 0.965)),
        (c.pairs(0.5, 25), HALF, 2000, (0.935, 0.97)),
        (c.clusters(0.5, 25, 4, 150), HALF, 60, (0.85, 0.99)),
    ],
    ids=["paired, 5", "bootstrap, 25", "spearman, 25", "25 clusters"],
)
def test_intervals_cover(experiment, truth, trials, band):
    low, high = band
    assert low < c.coverage(experiment, truth, trials) < high


def test_pairs_within_clusters_need_the_clustered_interval():
    assert c.coverage(c.spearman_of_clusters(0.5, 25, 4), HALF, 1000) < 0.92


def test_the_crossed_bootstrap_covers():
    experiment, truth = c.crossed(60, 26, 0.8, 1.0, 100)
    assert 0.88 < c.coverage(experiment, truth, 60) <= 1


@pytest.mark.parametrize("n", [10, 49])
def test_clopper_pearson_covers_at_least_nominally(n):
    least, mean = c.clopper_pearson_least(n)
    assert 0.95 <= least and mean < 0.985  # not by being wide


@pytest.mark.parametrize(
    ("experiment", "n"),
    [
        (c.null_permutation, 2000),
        (c.null_sign_flip(12, 499), 2000),
        (c.null_spearman(25), 2000),
        (c.null_paired(c.normal, 5), 2000),
        (c.null_two_way(79), 200),
        (c.null_two_way(79, strata=True, effect="own"), 200),
    ],
    ids=["permutation", "sign flip", "spearman", "paired, 5", "two-way", "two-way in strata"],
)
def test_p_values_of_nulls_are_uniform(experiment, n):
    values = c.null_p_values(experiment, n)
    assert c.uniform_p(values) > 0.01
    assert np.mean(values <= 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / n)


def test_what_strata_share_is_no_part_of_the_two_way_null():
    """Rows move within strata, but columns move too: an effect of the stratum on both matrices counts as agreement."""
    assert np.mean(c.null_p_values(c.null_two_way(39, strata=True, effect="shared"), 60) <= 0.05) > 0.5
    assert np.mean(c.null_p_values(c.null_two_way(39, effect="own"), 120) <= 0.05) > 0.09


def test_debiased_cka_is_unbiased_where_the_biased_one_is_near_one():
    assert abs(float(c.cka_of_independent(64, 256, 300).mean())) < 0.005
    assert float(c.cka_of_independent(64, 256, 50, debiased=False).mean()) > 0.75
    values, large = c.cka_of_related(64, 256, 50, 1.0)
    assert abs(float(values.mean()) - large) < 0.02
