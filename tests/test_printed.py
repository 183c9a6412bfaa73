"""What a command prints: its table, within a terminal and as files, and how long what is missing will take."""

from mechsub.lab import durations, store
from mechsub.lab.tables import format_table, write_table
from mechsub.stats import Interval


def test_a_table_fits_the_width_and_says_what_it_leaves_out():
    rows = [
        {"cell": "all", "quantity": f"a quantity of many words, number {i}", "value": 0.5, "null": 0.0, "p": 0.01}
        for i in range(3)
    ]
    wide = format_table(rows)
    assert format_table(rows, 200) == wide and max(map(len, wide.splitlines())) > 45
    fitted = format_table(rows, 45).splitlines()
    assert max(map(len, fitted[:-1])) <= 45 and fitted[0].split() == ["quantity", "value", "null", "p"]
    assert fitted[1].startswith("a quantity of many") and fitted[2].startswith("  ")
    assert fitted[-1] == "not shown: cell (--wide shows all, --csv FILE writes them)"
    narrow = format_table(rows, 32).splitlines()
    assert max(map(len, narrow[:-1])) <= 32 and narrow[-1].startswith("not shown: cell, p (")


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
