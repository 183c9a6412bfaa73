"""`benchmarks/edits.py`: what is in its list, and that an edit which no longer applies is named, not passed over."""

import shutil
from pathlib import Path

import pytest

from benchmarks import edits
from mechsub.lab import finder

ROOT = Path(__file__).parent.parent
EDITS = edits.read_edits()


def test_the_list_is_as_long_as_was_asked_and_spread_over_all_studies_that_measure():
    assert len(EDITS["preserving"]) == 20 and len(EDITS["changing"]) >= 30
    names = [edit["name"] for some in EDITS.values() for edit in some]
    assert len(set(names)) == len(names)
    measuring = {name for name in finder.all_names() if finder.find_study(name).probes}
    assert {study for edit in EDITS["changing"] for study in edit["studies"]} == measuring


@pytest.mark.parametrize(
    ("text", "change", "problem"),
    [
        ("a\nb\n", ["study.py", "b", "c"], ""),
        ("b\nb\n", ["study.py", "b", "c"], "study.py holds its text 2 times, not once"),
        ("a\n", ["study.py", "b", "c"], "study.py holds its text 0 times, not once"),
        ("a\n", ["gone.py", "b", "c"], "gone.py holds its text 0 times, not once"),
        ("a\n", ["new.py", "", "c"], ""),
        ("a\n", ["study.py", "", "c"], "study.py is there already"),
    ],
)
def test_an_edit_applies_where_its_text_stands_once(tmp_path, text, change, problem):
    (tmp_path / "study.py").write_text(text)
    assert edits.apply({"name": "x", "changes": [change]}, tmp_path) == problem
    if not problem:
        assert (tmp_path / change[0]).read_text() == text.replace("b", "c") if change[1] else "c"
    else:
        assert (tmp_path / "study.py").read_text() == text


def test_a_module_is_renamed_once(tmp_path):
    (tmp_path / "a.py").write_text("1")
    edit = {"name": "x", "moves": [["a.py", "b.py"]], "changes": []}
    assert edits.apply(edit, tmp_path) == "" and (tmp_path / "b.py").read_text() == "1"
    assert edits.apply(edit, tmp_path) == "a.py cannot become b.py"


def test_only_a_number_that_differs_or_is_refused_counts_as_caught():
    told = 'row 3 ({"kind": "share"}): value 0.25 -> 0.5, low [1, 2] -> [1, 3]; in all value by 2.5e-01. Mend the code'
    assert edits.answer_to(told) == "caught" and edits.first_difference(told) == "row 3: value 0.25 -> 0.5"
    told = "row 1 ({}): values [1.0, 2.0] -> [1.0, 3.0], a 1.0 -> 2.0; in all values by 1.0e+00. Mend the code"
    assert edits.first_difference(told) == "row 1: values in values"
    assert edits.apart("0.12345678", "0.12345999") == ("0.123457", "0.12346")
    assert edits.apart('"a"', "null") == ('"a"', "null")
    assert edits.answer_to("it cannot be made: ValueError: the parts do not sum") == "caught"
    assert edits.answer_to("it cannot be made: NameError: name 'x' is not defined") == "does not run"
    assert edits.answer_to("it cannot be made: its process left with exit code 1") == "does not run"
    assert edits.answer_to("a.jsonl is missing or cannot be read; restore it") == "no record"


@pytest.mark.parametrize("kind", ["preserving", "changing"])
def test_every_edit_still_applies(kind, tmp_path):
    """To the text of today: one that does not would be found out after an hour."""
    for number, edit in enumerate(EDITS[kind]):
        folder = tmp_path / str(number)
        for name in {name for name, *_ in edit["changes"]} | {old for old, _ in edit.get("moves", ())}:
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        for name, _, _ in edit["changes"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert edits.apply(edit, folder) == "", edit["name"]
