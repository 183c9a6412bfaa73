"""Cells that are the null of others: beside what they stand, what is left out, and clusters of replicates."""

import numpy as np
import pytest

from mechsub import stats
from mechsub.lab import nulls, verdicts
from mechsub.lab.findings import Cell, Finding, clustered, least_p, linked, over_clusters, share_of_chosen


def cell(weights: str, family: str, mean: float, **more) -> Cell:
    found = [
        Finding("a/score", "score", stats.Interval(mean, mean - 0.1, mean + 0.1, 9), 0.0, 0.01),
        Finding("a/share", "share", mean / 2),
        Finding("a/word", "word", "infinite"),
        *(Finding(f"{key}/only", key, value) for key, value in more.items()),
    ]
    return Cell({"weights": weights, "family": family}, [], f"weights={weights}, family={family}", found)


def beside(*cells: Cell) -> dict[str, Finding]:
    return {finding.name: finding for finding in nulls.beside(cells, "weights", "trained", "random", "untrained")}


def test_a_trained_cell_stands_beside_the_mean_of_its_own_nulls():
    found = beside(
        cell("trained", "names", 0.8, own=1.0), cell("random-0", "names", 0.3), cell("random-1", "names", 0.5),
        cell("random-0", "cities", 9.0), cell("rounding-0", "names", 7.0), cell("trained", "colors", 0.6),
    )  # fmt: skip
    assert set(found) == {"family=names: a/score", "family=names: a/score_above_null", "family=names: a/share"}
    score, above = found["family=names: a/score"], found["family=names: a/score_above_null"]
    assert score.value.mean == 0.8 and score.null == stats.student_t([0.3, 0.5]) and score.p is None
    assert above.value == stats.independent_difference(score.value, score.null) and "2 draws" in score.null_label
    assert found["family=names: a/share"].null.mean == pytest.approx(0.2)


def test_of_one_null_cell_there_is_a_value_and_no_interval():
    found = beside(cell("trained", "names", 0.8), cell("random-0", "names", 0.3))
    assert found["family=names: a/score"].null == 0.3 and len(found) == 2


def test_the_difference_of_independent_estimates_covers():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        a, b = stats.student_t(rng.normal(1, 1, 12)), stats.student_t(rng.normal(0.4, 3, 8))
        covered.append(stats.independent_difference(a, b).low <= 0.6 <= stats.independent_difference(a, b).high)
    assert 0.93 < np.mean(covered) < 0.99
    with pytest.raises(ValueError, match="one level"):
        stats.independent_difference(a, stats.student_t([1.0, 2.0], 0.9))


def test_a_prediction_that_names_neither_weights_nor_words_is_of_trained_ones_and_of_numbers():
    cells = [cell("trained", "numbers", 0.8), cell("random-0", "numbers", 0.3), cell("trained", "names", 0.1)]
    (own,) = verdicts.judge(verdicts.Entry("s", "a/score", "above", 0.5), cells)
    (null,) = verdicts.judge(verdicts.Entry("s", "a/score", "above", 0.5, where={"weights": "random-0"}), cells)
    (words,) = verdicts.judge(verdicts.Entry("s", "a/score", "above", 0.5, where={"family": "names"}), cells)
    assert (own.word, null.word, words.word) == ("hit", "miss", "miss")


def test_intervals_over_clusters_are_those_of_the_ratio_of_sums():
    values, weights, names = [1.0, 2.0, 4.0, 3.0, 5.0], [1.0, 1.0, 2.0, 1.0, 2.0], ["a", "b", "a", "c", "b"]
    found = over_clusters(clustered(values, names, weights))
    wanted = stats.ratio_of_means([5.0, 7.0, 3.0], [3.0, 3.0, 1.0])
    assert found.n == 3 and (found.mean, found.low) == pytest.approx((wanted.mean, wanted.low))
    assert over_clusters(clustered([1.0, 3.0], "aa")) == stats.Interval(2.0, -np.inf, np.inf, 1)


def test_what_shares_a_label_is_one_cluster():
    assert linked("aabbc") == linked([1, 1, 2, 2, 3])
    joined = linked("aabbcd", "xyyzzw")  # a and b share y, b and c share z
    assert len(set(joined[:5])) == 1 and joined[5] not in joined[:5]


def test_a_share_at_chosen_numbers_is_over_the_numbers():
    """Forty animals, of which ten each share one of four numbers that works for all of them or for none."""
    chosen, own = [str(i // 10) for i in range(40)], [float(i < 20) for i in range(40)]
    found = share_of_chosen("by/over_2x", "", own, [0.1] * 40, chosen, "others'")
    by_number = stats.student_t([1.0, 1.0, 0.0, 0.0])
    assert found.value.mean == 0.5 and (found.value.low, found.value.high) == (0.0, 1.0) and found.n == 4
    assert by_number.low < 0 < 1 < by_number.high  # it is cut to what a share can be
    assert found.p == pytest.approx(stats.paired_difference([1, 1, 0, 0], [0.1] * 4).p) and found.null == pytest.approx(
        0.1
    )
    one = share_of_chosen("by/over_2x", "", own, [0.1] * 40, ["7"] * 40)
    assert (one.p, one.n, one.value.low, one.value.high) == (None, 1, 0.0, 1.0)
    never = share_of_chosen("by/over_2x", "", [0.0] * 40, [0.1] * 40, chosen)
    assert never.value == stats.clopper_pearson(0, 4)


def test_the_least_p_of_holm():
    assert least_p(50, 999).value == 0.05 and least_p(2_000, 999).value == 1.0
    assert stats.holm([1 / 1000] * 50)[0] == least_p(50, 999).value
