"""python -m studies: every study with its question."""

import re

import pytest

import mechsub as ms
from mechsub import lab
from mechsub.lab import finder
from studies import __main__ as index


def test_every_study_is_listed_with_its_question_and_cells(capsys):
    index.main([])
    said = capsys.readouterr().out
    listed = re.findall(r"^(\w+) +(\d+) +([\d.]+)?  +(.+)$", said, re.M)
    assert [name for name, *_ in listed] == ["study", *finder.all_names()][1:]
    assert all((minutes == "") == (cells == "0") and question[0].isupper() for _, cells, minutes, question in listed)


def test_a_folder_without_results_is_told_of_those_of_the_checkout(tmp_path, monkeypatch, capsys):
    """Nothing of them is used: who wants them says so."""
    shown = ["token_entanglement", "--n-animals", "9", "--dry-run"]
    command = finder.find_study(shown[0])
    for folder, told in ((tmp_path, True), (finder.folder().parent, False)):
        monkeypatch.chdir(folder)
        index.main([])
        listed = capsys.readouterr().out
        lab.main(command, shown[1:])
        of_study = capsys.readouterr()
        assert of_study.out.startswith("missing artifacts/token_entanglement/n_animals=9")
        there = str(finder.folder().parent / "artifacts")
        assert (f"There is no artifacts in this folder; --out {there} has stored cells." in listed) is told
        said = f"note: there is no artifacts in this folder; {there} has "
        assert (said in of_study.err and of_study.err.count("\n") == 1) if told else of_study.err == ""
        if told:
            with pytest.raises(LookupError, match=f"in this folder; give out='{there}', which has some"):
                ms.frame("token_entanglement")
    monkeypatch.chdir(tmp_path)
    lab.main(command, [*shown[1:], "--out", "mine"])
    assert capsys.readouterr().err == ""


def test_an_empty_store_is_no_error(tmp_path, capsys):
    index.main(["--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"digits +0 +Is it whole numbers", line) for line in lines)
