"""What a command prints: its table, within a terminal and as files, and how long what is missing will take."""

import math

from mechsub.lab import durations, store
from mechsub.lab.findings import PValue
from mechsub.lab.tables import cell_text, format_table, write_table
from mechsub.stats import Interval


def test_a_table_fits_the_width_and_says_what_it_leaves_out():
    rows = [
        {"cell": "all", "quantity": f"a quantity of many words, number {i}", "value": 0.5, "null": 0.0, "p": 0.01}
        for i in range(3)
    ]
    wide = format_table(rows)
    assert format_table(rows, 200) == wide and max(map(len, wide.splitlines())) > 45
    fitted = format_table(rows, 45).splitlines()
    assert max(map(len, fitted)) <= 45 and fitted[0].split() == ["quantity", "value", "null", "p"]
    assert fitted[1].startswith("a quantity of many") and fitted[2].startswith("  ")
    assert fitted[-2:] == ["not shown: cell (--wide shows all, --csv FILE", "  writes them)"]
    narrow = format_table(rows, 32).splitlines()
    assert max(map(len, narrow)) <= 32 and narrow[-2].startswith("not shown: cell, p (")


def test_a_long_table_is_cut_where_it_has_a_width_and_verdicts_are_kept():
    rows = [{"quantity": f"number {i}", "value": float(i), "null": 0.0, "p": 0.01} for i in range(100)]
    judged = [{"quantity": f"prediction {i}", "value": float(i), "verdict": "hit"} for i in range(5)]
    lines = format_table([*rows, *judged], 100).splitlines()
    assert lines[0].split() == ["quantity", "value", "null", "p", "verdict"] and len(lines) == 62
    told = [line.split("  ")[0] for line in lines[1:-1]]
    assert told == [f"number {i}" for i in range(55)] + [f"prediction {i}" for i in range(5)]
    assert lines[-1] == "not shown: 45 of 105 rows (--wide shows all, --csv FILE writes them)"
    narrow = " ".join(format_table([*rows, *judged], 34).split())
    assert "prediction 0: hit 0.000" in narrow and "not shown: 45 of 105 rows, verdict (" in narrow
    assert len(format_table([*rows, *judged]).splitlines()) == 106
    assert "not shown" not in format_table(rows[:60], 100)


def test_what_a_value_is_compared_with_is_left_out_last():
    """And the cell is said with what is measured, where it is not `all`."""
    found = [
        {"cell": cell, "quantity": f"price of {cell}, a quantity of many words", "value": 1.0, "null": "1.009", "p": ""}
        for cell in ("all", "model=a_long_name_of_a_model")
    ]
    judged = {"cell": "prediction: price", "value": 1.0, "predicted": "below 1.2", "verdict": "hit"}
    said = format_table([*found, judged], 70).splitlines()
    assert said[0].split() == ["quantity", "value", "null", "predicted", "verdict"] and max(map(len, said)) <= 70
    text = " ".join(" ".join(line.split("  ")[0 if line[0] != " " else 1] for line in said).split())
    assert "price of all" in text and "model=a_long_name" in text and "prediction: price" in text
    narrow = format_table([*found, judged], 50).splitlines()
    assert narrow[0].split() == ["quantity", "value", "null", "verdict"] and "not shown: predicted (" in narrow[-2]
    scores = [
        {
            "arm": f"arm {i}",
            "a": 0.5,
            "p holm": 0.01,
            "b": 0.25,
            "p, b": PValue(0.02),
            "words of a rule": "b" * 9 + str(i),
        }
        for i in range(3)
    ]
    assert format_table(scores, 34).splitlines()[0].split() == ["arm", "a", "p", "holm", "b", "p,", "b"]
    few = format_table(scores, 24).splitlines()
    assert few[0].split() == ["arm", "a", "p", "holm"] and few[4] == "not shown: b, p, b,"


def test_the_numbers_of_a_column_have_one_form():
    rows = [
        {"a": 0.000493, "b": 2e-5, "p": 0.0001},
        {"a": -0.011, "b": -1e-4, "p": 0.5},
        {"a": -0.0002, "b": 0.0, "p": ""},
    ]
    lines = [line.split() for line in format_table(rows).splitlines()]
    assert lines == [["a", "b", "p"], ["0.000", "2e-05", "1e-04"], ["-0.011", "-0.0001", "0.500"], ["0.000", "0.000"]]
    assert format_table([{"a": -0.0}]).split() == ["a", "0.000"]


def test_nan_and_infinity_are_printed_as_they_are():
    """NaN stood as 0.000; an infinity is no reason to hide the other numbers of its column."""
    assert format_table([{"a": math.nan}, {"a": 0.5}]).split() == ["a", "nan", "0.500"]
    assert format_table([{"a": math.inf}, {"a": 2e-5}, {"a": -math.inf}]).split() == ["a", "inf", "2e-05", "-inf"]
    assert [cell_text(value) for value in (math.nan, math.inf, -math.inf, -0.0)] == ["nan", "inf", "-inf", "0.000"]


def test_a_table_of_any_width_has_all_rows_and_no_blank_line():
    cases = [
        [{"s": "ab", "v": 1.0}, {"s": "cd", "v": 2.0}],
        [{"s": "x", "v": 1.0}],
        [{"a": "same words here", "b": "other"}] * 2,
        [{"a": 1.0, "bbbbbbbbbbbbbbbb": 2.0, "w": "long words " * 8}] * 3,
        [{"k": "same", "w": "long words that fit it"}, {"k": "same", "w": "bbb"}],
        [{"k": "a", "w": None}, {"k": "b"}],
    ]
    for rows in cases:
        for width in range(1, 60):
            lines = format_table(rows, width).splitlines()
            assert all(line.strip() for line in lines) and len(lines) > len(rows), (rows, width)
    assert "long words that fit it" in format_table(cases[4], 22)


def test_a_table_is_written_as_csv_and_latex(tmp_path):
    rows = [{"arm": "a_b", "accuracy": Interval(0.5, 0.4, 0.6, 5), "p": 0.01}, {"arm": "50%", "accuracy": 0.1}]
    write_table(rows, tmp_path / "t.csv", "csv")
    csv = (tmp_path / "t.csv").read_text().splitlines()
    assert csv == ["arm,accuracy,accuracy low,accuracy high,p", "a_b,0.5,0.4,0.6,0.01", "50%,0.1,,,"]
    write_table(rows, tmp_path / "t.tex", "latex")
    latex = (tmp_path / "t.tex").read_text()
    assert r"a\_b & 0.500 [0.400, 0.600] & 0.010 \\" in latex and r"50\%" in latex and r"\toprule" in latex


def test_a_missing_cell_will_take_as_long_as_the_one_most_like_it(tmp_path):
    like = [
        durations.Known(frozenset({("model", "a"), ("n", "1")}), 60.0),
        durations.Known(frozenset({("n", "2")}), 7.0),
    ]
    assert durations.expected({"model": "a", "n": 2}, like[:1]) == 60.0
    assert durations.expected({"model": "b", "n": 2}, like) == 7.0
    assert durations.expected({"model": "a", "n": 3}, like) == 60.0
    assert durations.expected({"n": 1}, []) is None
    for i, seconds in enumerate([None, "soon", 5.0]):
        made = {"study": "s", "version": 1, "config": {"n": i}, "seconds": seconds}
        store.write_cell(tmp_path / str(i), [{"value": 1}], made)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "provenance.json").write_text('{"sec')
    assert [one.seconds for one in durations.known(tmp_path)] == [5.0]
    assert [durations.words(s) for s in (40.0, 720.0, 12_000.0)] == ["40 s", "12 min", "3 h 20 min"]


def test_a_verdict_that_does_not_fit_stands_behind_the_words_and_empty_rows_are_left_out():
    rows = [
        {"quantity": "share of all that is there", "value": 0.51234567, "null": "0.500 (animals shuffled)"},
        {"quantity": "prediction: share", "value": 0.5, "predicted": "above 0.4", "verdict": "hit"},
        {"quantity": "highest by the rule", "rule": "refuted, and no more than any other direction"},
    ]
    said = format_table(rows, width=44)
    assert "prediction: share: hit" in said and "highest" not in said
    assert "not shown: null, predicted, verdict, rule" in " ".join(said.split())
    assert "highest by the rule" in format_table(rows)
