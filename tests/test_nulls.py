"""Cells that are the null of others: beside what they stand, what is left out, and clusters of replicates."""

import numpy as np
import pytest

from mechsub import stats
from mechsub.lab import nulls, verdicts
from mechsub.lab.findings import Cell, Finding, clustered, over_clusters


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
