"""python -m studies: every study with its question."""

import re

from mechsub.lab import finder
from studies import __main__ as index


def test_every_study_is_listed_with_its_question_and_cells(capsys):
    index.main([])
    said = capsys.readouterr().out
    listed = re.findall(r"^(\w+) +(\d+) +([\d.]+)?  +(.+)$", said, re.M)
    assert [name for name, *_ in listed] == ["study", *finder.all_names()][1:]
    assert all((minutes == "") == (cells == "0") and question[0].isupper() for _, cells, minutes, question in listed)


def test_an_empty_store_is_no_error(tmp_path, capsys):
    index.main(["--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"digits +0 +Is it whole numbers", line) for line in lines)
