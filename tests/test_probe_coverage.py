"""What `make probe-coverage` says, without running the probes."""

import ast
import tomllib

import pytest

from tools import probe_coverage as coverage

SOURCE = {path: path.read_text(encoding="utf-8") for path in coverage._files()}
TREES = {path: ast.parse(text) for path, text in SOURCE.items()}


@pytest.fixture(scope="module")
def measuring():
    return coverage.measuring(TREES)


def test_measuring_code_is_what_makes_numbers(measuring):
    names = {name for _, name in measuring}
    assert {"run", "distill", "linear_cka", "HookedMLP.forward", "student_t", "projection_share"} <= names
    assert not names & {"table", "plot", "check", "main", "write_cell", "read_records", "format_table"}
    assert not any(path.parts[-2] == "lab" for path, _ in measuring)


def test_what_is_listed_is_there(measuring):
    """Whether no probe runs it, `make probe-coverage` finds out, which takes minutes."""
    listed = tomllib.loads(coverage.ACCEPTED.read_text(encoding="utf-8"))["unreached"]
    functions = {name for _, name in measuring}
    lines = set()
    for path, name in measuring:
        source = SOURCE[path].splitlines()
        lines |= {f"{name}: {source[n - 1].strip()}" for n in coverage._body(coverage._functions(TREES[path])[name])}
    for entry in listed:
        assert entry["reason"] and set(entry.get("functions", ())) <= functions
        assert set(entry.get("lines", ())) <= lines


def report(missed, accepted, capsys):
    """Of a run in which every line of `linear_cka` counts and these were missed; the code and what was said."""
    path, node = next(
        (path, coverage._functions(tree)["linear_cka"])
        for path, tree in TREES.items()
        if "linear_cka" in coverage._functions(tree)
    )
    counted = coverage._body(node)
    lines = {each: coverage.Lines(set(), set()) for each in TREES}
    lines[path] = coverage.Lines(counted, {sorted(counted)[i] for i in range(len(counted))[missed]})
    code = coverage.report(lines, {"unreached": [{"reason": "because", **accepted}]})
    return code, capsys.readouterr().out.splitlines()


def test_a_line_that_nobody_listed_and_a_list_that_is_outdated_fail(capsys):
    every, last, none = slice(None), slice(-1, None), slice(0, 0)
    code, said = report(last, {}, capsys)
    assert code == 1 and said[0].startswith("not run") and "linear_cka: " in said[0] and "1 are not" in said[-1]
    line = said[0][said[0].index("linear_cka: ") :]
    assert report(last, {"lines": [line]}, capsys)[0] == 0
    assert report(every, {"functions": ["linear_cka"]}, capsys)[0] == 0
    assert report(last, {"functions": ["linear_cka"]}, capsys)[0] == 1  # it is entered
    for accepted in ({"lines": [line]}, {"functions": ["linear_cka"]}, {"functions": ["gone"]}):
        code, said = report(none, accepted, capsys)
        assert code == 1 and said[0].startswith("outdated") and "1 outdated" in said[-1]
        assert report(none, {**accepted, "sometimes": True}, capsys)[0] == 0
