"""Pages filled from findings: the number behind a mark is that of its row's command, or the page is out of date."""

import math
from pathlib import Path

import pytest

from mechsub import stats
from mechsub.lab import finder, pages
from mechsub.lab.findings import Finding
from studies import report
from studies.report import answers

ROOT = Path(__file__).parent.parent
FOUND = {
    "toy": [Finding("aux/accuracy", "", stats.Interval(0.54, 0.492, 0.587, 25), 0.1, 0.201)],
    "toy --loss mse": [
        Finding("aux/accuracy", "", stats.Interval(0.649, 0.604, 0.695, 25)), Finding("price", "", float("inf")),
        Finding("aux/accuracy", "", -0.25, cell="n_aux=0.5"),
    ],
}  # fmt: skip
TABLE = """# Page

| question | command | answer |
| --- | --- | --- |
| one | `python -m studies.toy` | <!--= aux/accuracy -->0.540 [0.492, 0.587], p = <!--= aux/accuracy.p -->0.201 |
| two | the same | <!--= aux/accuracy.null -->0.100 over <!--= aux/accuracy.n -->25, <!--= aux/accuracy.low -->0.492 |
| three | `python -m studies.toy --loss mse` | <!--= aux/accuracy -->0.649 [0.604, 0.695]; typed 0.123 [0.100, 0.200] |

<!--= from toy --loss mse --> In words <!--= price -->infinite and, wrapped, <!--= aux/accuracy -->0.649 [0.604,
0.695], <!--= n_aux=0.5: aux/accuracy -->-0.250; <!--= aux/accuracy from toy -->0.540 [0.492, 0.587]. <!-- a comment -->
"""


def read(command):
    return FOUND[command]


def test_a_page_that_is_right_stays_as_it_is():
    assert pages.fill(TABLE, read) == TABLE
    assert pages.unmarked(TABLE) == ["0.123 [0.100, 0.200]"]


def test_numbers_are_written_where_there_are_none_and_in_place_of_wrong_ones():
    bare = pages._MARK.sub(lambda match: f"<!--= {match['mark']} -->", TABLE)
    assert pages.fill(bare, read) == TABLE.replace("0.604,\n", "0.604, ")
    assert pages.fill(TABLE.replace("0.201", "0.01").replace("infinite", "7"), read) == TABLE


@pytest.mark.parametrize("gap", ["\n  ", "\n> ", "\n\t", "  "])
def test_a_number_that_is_wrapped_is_replaced_whole(gap):
    old = f"* <!--= aux/accuracy from toy -->0.111{gap}[0.000,{gap}0.222] and more"
    new = "* <!--= aux/accuracy from toy -->0.540 [0.492, 0.587] and more"
    assert pages.fill(old, read) == new
    kept = new.replace(" [", f"{gap}[") if ">" not in gap else new
    assert pages.fill(kept, read) == kept  # the right one keeps its line break
    assert pages.unmarked(old.split("-->")[1]) == [" ".join(f"0.111{gap}[0.000,{gap}0.222]".split())]


def test_an_interval_without_ends_is_replaced_whole_and_words_are_refused():
    found = [Finding("a/x", "", stats.Interval(0.5, -math.inf, math.inf, 1)), Finding("a/y", "", "confirmed"),
             Finding("a/z", "", math.nan), Finding("a/n", "", 5)]  # fmt: skip
    once = pages.fill("<!--= a/x from t -->.", lambda command: found)
    assert once == "<!--= a/x from t -->0.500 [-inf, inf]." == pages.fill(once, lambda command: found)
    for key in ("a/y", "a/z"):
        with pytest.raises(LookupError, match=f"'{key}' from t is '(confirmed|nan)', and a mark takes a number"):
            pages.fill(f"<!--= {key} from t -->", lambda command: found)
    with pytest.raises(LookupError, match=r"filled again, this would be another number; .*>5,000 pairs"):
        pages.fill("<!--= a/n from t -->,000 pairs", lambda command: found)


def test_a_right_number_in_a_wrong_row_is_replaced():
    swapped = TABLE.replace("-->0.540 [0.492, 0.587], p", "-->0.649 [0.604, 0.695], p")
    assert swapped != TABLE and pages.fill(swapped, read) == TABLE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!--= aux/accuracy -->", "no command stands before"),
        ("<!--= pupil/accuracy from toy -->0.1", "no finding has the key 'pupil/accuracy'"),
        ("<!--= price.p from toy --loss mse -->0.1", "has no p"),
    ],
)
def test_a_mark_that_names_nothing_is_said(text, says, tmp_path):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(LookupError, match=f"page.md: .*{says}"):
        pages.write(tmp_path / "page.md", read)
    assert (tmp_path / "page.md").read_text() == text


def test_a_mark_has_no_store_of_its_own():
    read = pages.reader(finder.find_study)
    for out in ("--out /nowhere", "--out=/nowhere"):
        with pytest.raises(LookupError, match=r"'a/x' from subliminal_accuracy --out.*: --out stands in .*leave it"):
            pages.number("a/x", f"subliminal_accuracy {out}", read)
    with pytest.raises(LookupError, match="unknown flag --typo"):
        pages.number("a/x", "subliminal_accuracy --typo 3", read)


def test_a_page_is_written_once(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!--= aux/accuracy from toy -->")
    assert pages.write(page, read) and not pages.write(page, read)
    assert page.read_text() == "<!--= aux/accuracy from toy -->0.540 [0.492, 0.587]"


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = [page for page in PAGES if "<!--= " in page.read_text()]


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.name)
def test_numbers_on_pages_are_those_of_the_store(page, monkeypatch):
    """`python -m studies.report --write` writes them."""
    monkeypatch.chdir(ROOT)
    text = page.read_text()
    assert pages.fill(text, pages.reader(finder.find_study)) == text


def test_no_line_of_a_page_begins_with_a_mark():
    """A comment there begins a block of HTML: the rest of the line would be shown as it is, and end the paragraph."""
    lines = [(page.name, line) for page in PAGES for line in page.read_text().splitlines()]
    assert [(name, line) for name, line in lines if line.lstrip().startswith("<!--=")] == []


def test_no_interval_is_typed_on_a_page_or_in_a_docstring():
    """That of answers is written whole; that of metrics has examples."""
    typed = [page.read_text() for page in PAGES if page.name not in ("answers.md", "metrics.md")]
    asked = [finder.find_study(name).doc for name in finder.all_names()]
    assert [interval for text in (*typed, *asked) for interval in pages.unmarked(text)] == []


@pytest.fixture(scope="module")
def answered():
    return report.findings(ROOT / "artifacts")


def test_the_page_of_answers_is_that_of_the_store(answered):
    """`python -m studies.report --write` writes it too."""
    assert (ROOT / "docs/answers.md").read_text() == answers.table(answered)


def test_every_question_is_answered_in_six_words(answered):
    short = {finding.question.name: finding.answer.short for finding in answered if finding.answer}
    assert len(short) == len(report.QUESTIONS) and [say for say in short.values() if len(say.split()) > 6] == []


def test_write_says_what_it_wrote_and_a_wrong_mark_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!--= directions/all from digits -->0.9")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "findings", lambda root: [])
    for says in ("written: README.md\nwritten: docs/answers.md\n", "every page is up to date\n"):
        report.main(["--write", "--out", str(ROOT / "artifacts")])
        assert capsys.readouterr().out == says
    assert (tmp_path / "README.md").read_text().endswith("-->0.151 [0.071, 0.228]")
    (tmp_path / "README.md").write_text("<!--= directions/some from digits -->0.9")
    with pytest.raises(SystemExit) as left:
        report.main(["--write", "--out", str(ROOT / "artifacts")])
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith("error: README.md: 'directions/some' from digits: no finding")


def test_a_page_is_read_without_its_marks():
    shown = pages.without_marks(TABLE)
    assert "<!--=" not in shown and "| one | `python -m studies.toy` | 0.540 [0.492, 0.587], p = 0.201 |" in shown
    assert shown.endswith(
        "\n In words infinite and, wrapped, 0.649 [0.604,\n0.695], -0.250; 0.540 [0.492, 0.587]. <!-- a comment -->\n"
    )
