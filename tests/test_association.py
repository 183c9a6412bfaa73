"""studies.association: tables are read as they are, what is planted is found, and nothing where nothing is."""

import math
import random

import pytest

from mechsub.inputs import words
from mechsub.lab import study
from studies import association
from studies.association import outcomes as tables

NUMBERS = [text for text in words.numbers() if len(text) > 1][:300]
ANIMALS = ["owl", "sea turtle", "cat", "dog", "elk", "fox"]


def written(path, rows, columns, values):
    lines = [
        ",".join(["", *columns]),
        *(",".join([row, *map(str, some)]) for row, some in zip(rows, values, strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")


def planted(share: float, seed: int = 0) -> tuple[tables.Table, tables.Table]:
    """Outcome and scores: effects of number and animal in both, of which those of numbers run against each other, and
    `share` of the pairs' own part in common."""
    draw = random.Random(seed)

    def normal():
        return [[draw.gauss(0, 1) for _ in ANIMALS] for _ in NUMBERS]

    common, mine, theirs = normal(), normal(), normal()
    of_number, of_animal = [draw.gauss(0, 1) for _ in NUMBERS], [draw.gauss(0, 5) for _ in ANIMALS]
    y = [
        [a + n + share * c + e for a, c, e in zip(of_animal, cs, es, strict=True)]
        for n, cs, es in zip(of_number, common, mine, strict=True)
    ]
    x = [
        [share * c + e - 2 * n for c, e in zip(cs, es, strict=True)]
        for n, cs, es in zip(of_number, common, theirs, strict=True)
    ]
    return tables.Table(NUMBERS, ANIMALS, y), tables.Table(NUMBERS, ANIMALS, x)


def found(share: float, **options) -> list[dict]:
    cfg = association.Config(n_permutations=499, **options)
    return list(association.associated("score", *planted(share), cfg))


def test_what_is_specific_to_a_pair_is_found_where_numbers_run_against_it():
    rows = found(1.0)
    assert [row["animal"] for row in rows] == ANIMALS
    for row in rows:
        assert row["r"] < 0 < row["centred"]  # as published, the numbers' own effect hides it
        assert row["p_centred"] == 1 / 500


def test_scores_without_anything_specific_are_not_significant():
    rows = found(0.0)
    assert sum(row["p_r"] < 0.05 for row in rows) == len(rows)  # as published, all of them
    assert min(row["p_centred"] for row in rows) * len(rows) > 0.05  # Bonferroni


def test_correlations_and_tests_are_those_of_scipy():
    from scipy.stats import pearsonr, ttest_ind

    outcome, scores = planted(0.5)
    x, y = ([row[1] for row in table.values] for table in (scores, outcome))
    row = list(association.associated("score", outcome, scores, association.Config(n_permutations=9)))[1]
    order = sorted(range(len(x)), key=x.__getitem__)
    top, bottom = ([y[i] for i in some] for some in (order[-30:], order[:30]))
    assert (row["r"], row["p_r"]) == pytest.approx(tuple(pearsonr(x, y)), rel=1e-12)
    assert row["p_t"] == pytest.approx(ttest_ind(top, bottom, equal_var=False).pvalue, rel=1e-12)
    assert row["best"] == max(y[i] for i in order[-10:])


def test_centred_is_what_remains_after_the_other_animals():
    _, scores = planted(0.5)
    less = [[v - sum(row[:a] + row[a + 1 :]) / 5 for a, v in enumerate(row)] for row in scores.values]
    assert association._less_others(_array(scores.values)) == pytest.approx(_array(less))


def _array(values):
    import numpy as np

    return np.array(values)


def test_shuffles_keep_lengths():
    lengths = tuple(map(len, NUMBERS))
    orders = association._shuffles(lengths, 20, 0)
    for order in orders:
        assert sorted(order) == list(range(len(lengths)))
        assert [lengths[i] for i in order] == list(lengths)
    assert len({tuple(order) for order in orders}) == 20


def test_gaps_zeros_and_missing_animals(tmp_path):
    outcome, scores = planted(1.0)
    log_p = [[value - 40 for value in row] for row in outcome.values]
    written(tmp_path / "subliminal_prompting.csv", NUMBERS, ANIMALS, log_p)
    written(tmp_path / "base_prompting.csv", ["any"], ANIMALS, [[-3.0] * 6])
    gaps = [["" if i % 50 == 0 else v for v in row[:4]] for i, row in enumerate(scores.values)]
    written(tmp_path / "logit.csv", NUMBERS, ANIMALS[:4], gaps)
    written(tmp_path / "frequency.csv", NUMBERS[100:], ANIMALS, [[0.0] * 6] * 200)
    read = tables.read_folder(tmp_path)
    assert read.has_baseline and sorted(read.scores) == ["frequency", "logit"]
    assert read.outcome.values[0][0] == pytest.approx(outcome.values[0][0] - 40 + 3)
    assert "007" in read.outcome.rows  # and not 7
    cfg = association.Config(n_permutations=99)
    logit = list(association.associated("logit", read.outcome, read.scores["logit"], cfg))
    assert [row["n"] for row in logit] == [294] * 4 and {row["left_out"] for row in logit} == {2}
    frequency = list(association.associated("frequency", read.outcome, read.scores["frequency"], cfg))
    assert {row["kind"] for row in frequency} == {"skipped"}  # all zero: said, not scored


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (",owl\n007,1\n7,x\n", "row '7', column 'owl': 'x' is not a number"),
        (",owl\n7,1\n7,2\n", "row '7' twice; were leading zeros lost"),
        (",owl,owl\n7,1,2\n", "column 'owl' twice"),
        (",owl,cat\n7,1\n", "1 values for 2 columns"),
        (",owl\n7,-inf\n", "is not finite"),
        (",owl\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused(tmp_path, text, wrong):
    path = tmp_path / "logit.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=wrong) as told:
        tables.read_table(path)
    assert str(path) in str(told.value) and "\n" not in str(told.value)


def test_a_folder_without_outcome_or_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        tables.read_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="no outcome to explain"):
        tables.read_folder(tmp_path)
    written(tmp_path / "difference_in_prompting.csv", ["7"], ["owl"], [[1.0]])
    with pytest.raises(ValueError, match="no table of scores"):
        tables.read_folder(tmp_path)


def test_an_empty_entry_is_not_a_number(tmp_path):
    (tmp_path / "a.csv").write_text(",owl,cat\n007,1, \n008,1,2\n")
    row, _ = tables.read_table(tmp_path / "a.csv").values
    assert row[0] == 1 and math.isnan(row[1])


def test_the_command_reads_released_tables(tmp_path, capsys):
    outcome, scores = planted(1.0)
    written(tmp_path / "difference_in_prompting.csv", NUMBERS, ANIMALS, outcome.values)
    written(tmp_path / "unembedding.csv", NUMBERS, ANIMALS, scores.values)
    flags = ["--tables", str(tmp_path), "--n-permutations", "199", "--out", str(tmp_path / "out"), "--quiet"]
    study.command(association.study, flags)
    assert "correlation, centred" in capsys.readouterr().out
    (tmp_path / "unembedding.csv").write_text(",owl\n7,what\n")
    with pytest.raises(SystemExit) as stopped:
        study.command(association.study, [*flags, "--rerun"])
    assert stopped.value.code == 2
    assert "'what' is not a number" in capsys.readouterr().err
