"""The report: answers follow the stored cells; in a real Chromium it is whole, offline, at every width and scheme."""

import dataclasses
import gzip
import html
import importlib.util
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import chromium
import pytest

from mechsub.lab import store
from mechsub.lab.figures import export
from mechsub.lab.predictions import entries
from studies import report
from studies.report import page as report_page
from studies.report import predictions

ROOT = Path(__file__).parent.parent
CELLS = (
    "subliminal_accuracy/default", "factors/arms=aux", "factors/n_aux=2__arms=aux", "factors/n_aux=100__arms=aux",
    "factors/lr=0.001__arms=aux", "factors/lr=0.003__arms=aux", "factors/signal=0.5__arms=aux", "digits/default",
    "factors/d_model=64__arms=aux", "factors/d_model=512__arms=aux", "bottleneck/default", "contributions/default",
    "association/default",
)  # fmt: skip
DRAWN = "document.documentElement.dataset.drawn === 'all'"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Some cells of the repository: one built on another version, one damaged."""
    folder = tmp_path_factory.mktemp("report") / "artifacts"
    for cell in CELLS:
        shutil.copytree(ROOT / "artifacts" / cell, folder / cell)
    stale = folder / "factors/n_aux=2__arms=aux/provenance.json"
    made = store.read_provenance(stale.parent)
    stale.write_bytes(store._sealed({**made, "upstream_versions": {"teachers": 2}}))
    store.records_file(folder / "factors/lr=0.003__arms=aux").write_bytes(gzip.compress(b"{}\n"))
    return folder


ASKED = (
    "learns", "start", "squared-error", "write-up", "auxiliary-logits", "fashion", "signal", "signal-matched", "lr",
    "pairs", "directions", "width", "bottleneck", "ratio", "passes", "association",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(root):
    made = report.findings(root, ASKED)
    report.write(made, root)
    return {finding.question.name: finding for finding in made}


def test_every_step_has_questions_every_question_a_name_and_a_study():
    assert len({question.name for question in report.QUESTIONS}) == len(report.QUESTIONS)
    topics = " ".join(question.topic for question in report.QUESTIONS)
    steps = ("A, step 1", "A, step 2", "A, step 3", "B, steps 1 and 2", "B, step 3", "B, step 4", "B, step 5", "Bonus")
    assert all(step in topics for step in steps)
    assert all(importlib.util.find_spec(f"studies.{question.study}") for question in report.QUESTIONS)


def test_an_answer_holds_the_numbers_of_its_cell(found):
    row = next(row for row in found["learns"].found.rows if row["arm"] == "student, auxiliary logits only")
    assert str(row["accuracy"]) in found["learns"].answer.sentence and found["learns"].verdict == "confirmed"
    assert found["learns"].found is found["start"].found


def test_a_sweep_has_the_levels_that_are_stored(found):
    assert found["auxiliary-logits"].command == "python -m studies.factors --arms aux --n-aux 2 3 100"
    answer = found["auxiliary-logits"].answer
    assert re.search(r" at 100 \(raw 0\.\d{3}\)\. Paired", answer.sentence) and answer.verdict == "confirmed"
    assert "--signal-moments matched --signal" in found["signal-matched"].command
    assert found["signal-matched"].answer is None


def test_other_stores_and_other_models_answer_beside_ones_own(root, tmp_path):
    """A store of another model alone is answered for that one, and named; nothing of it is said to be one's own."""
    theirs = tmp_path / "theirs"
    for cell in ("model=organisms%2F110-base", "model=organisms%2F110-instruct"):
        shutil.copytree(ROOT / "artifacts/contributions" / cell, theirs / "contributions" / cell)
    (ratio, learns) = report.findings(root, ("ratio", "learns"), [theirs])[::-1]
    if ratio.question.name != "ratio":
        ratio, learns = learns, ratio
    assert [other.where.partition(", ")[2] for other in ratio.elsewhere] == [
        "organisms/110-base",
        "organisms/110-instruct",
    ]
    assert ratio.where == "" and learns.elsewhere == []
    assert ratio.elsewhere[0].command == (f"python -m studies.contributions --model organisms/110-base --out {theirs}")
    assert ratio.elsewhere[0].answer.sentence != ratio.answer.sentence
    (alone,) = report.findings(theirs, ("ratio",), other_models=True)
    assert alone.where == "organisms/110-base" and alone.answer == ratio.elsewhere[0].answer
    made = report.findings(theirs, ("ratio", "learns"), [theirs], other_models=True)
    assert report.findings(theirs, ("ratio",))[0].answer is None
    report.write(made, theirs)
    page = (theirs / "index.html").read_text()
    assert "In organisms/110-base: " in page and f"{theirs}, organisms/110-instruct:" in page
    assert page.count(ratio.elsewhere[0].answer.sentence.split(":")[0]) >= 1
    assert f"{theirs}, organisms/110-base:" not in page  # it stands above


def test_a_store_of_the_toy_alone_answers_what_it_can(tmp_path):
    """The question of the metrics asks for two that the toy has not."""
    shutil.copytree(
        ROOT / "artifacts/unembed_projection/model=toy__metric=cosine",
        tmp_path / "unembed_projection" / "model=toy__metric=cosine",
    )
    found = report.findings(tmp_path, ("cosine", "learns"), other_models=True)
    assert [finding.answer for finding in found] == [None, None]


def test_a_store_that_is_not_there_is_one_line(root, capsys):
    for name in (str(root / "none"), "", str(root / "index.html")):
        with pytest.raises(SystemExit) as stopped:
            report.main(["--out", str(root), "--beside", name])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and "is not a folder of results" in said and said.count("\n") == 1


def test_a_claim_of_one_direction_is_not_confirmed_by_its_ends_alone(root, found):
    told = next(row for row in predictions.judged(root) if row["of"] == "aux/accuracy over d_model (target_noise=0.0)")
    assert (told["predicted"], told["verdict"]) == ("peak", "hit") and "the other way" not in told["found"]
    answer = found["width"].answer  # recentred, 64 and 256 are not told apart; raw, a step goes the other way
    assert answer.verdict == "confirmed" and "By raw accuracy the claim is true in part." in answer.sentence


def test_open_claims_are_counted_with_the_others(root, found):
    """`directions`: of numbers beyond their digits, whose interval holds 0, nothing is shown."""
    assert found["directions"].verdict == "open"
    told = re.search(r"of the published claims, ([^.]*)\.", (root / "index.html").read_text())[1]
    counts = [finding.verdict for finding in found.values()]
    assert f"{counts.count('open')} open" in told and f"{counts.count('confirmed')} confirmed" in told


def test_a_question_may_have_a_figure_of_its_own(root, found):
    ratio, passes = found["ratio"], found["passes"]
    assert ratio.found is passes.found and "animal and number (interaction)" in [
        trace.name for trace in ratio.figure.data
    ]
    assert passes.figure is passes.found.figure is not ratio.figure
    page = html.unescape((root / "index.html").read_text())
    assert page.count(html.unescape(ratio.figure.layout.title.text) + ".</b>") == 1
    assert page.count("Numbers and provenance of this command") == 1


def test_stale_cells_are_used_and_said_damaged_ones_are_said(root, found):
    assert list(found["auxiliary-logits"].found.cells.values()) == ["stale", "stored", "stored"]
    assert found["lr"].found.cells[root / "factors/lr=0.003__arms=aux"] == "damaged"
    page = (root / "index.html").read_text()
    assert page.count("Stale, made by other code") == 1 and page.count("Damaged, so not shown") == 1


def test_a_cell_of_another_version_that_cannot_be_read_is_said_and_is_no_answer(tmp_path):
    """As somebody sent it: its rows lack what today's findings look for."""
    cell = tmp_path / "subliminal_accuracy" / "default"
    made = store.read_provenance(ROOT / "artifacts/subliminal_accuracy/default")
    rows = [{"arm": "teacher", "correct": 0.9, "member": member} for member in (0, 1)]
    told = {key: made[key] for key in ("study", "config", "command")}
    store.write_cell(cell, [{**made["config"], **row} for row in rows], told | {"version": 1})
    (found,) = report.findings(tmp_path, ("learns",))
    assert found.answer is None and list(found.found.cells.values()) == ["unreadable"]
    report.write([found], tmp_path)
    assert "Of another version, which this code cannot read" in (tmp_path / "index.html").read_text()
    assert [row["verdict"] for row in predictions.judged(tmp_path) if row["study"] == "subliminal_accuracy"] == []


def test_what_is_not_stored_is_not_answered(found):
    assert found["pairs"].answer is None and found["pairs"].verdict == report.UNANSWERED
    assert found["fashion"].why_not and found["squared-error"].why_not


def test_the_write_ups_claims_are_judged_anew(found):
    verdicts = [row["verdict"] for row in found["write-up"].answer.shown]
    assert "partly" in verdicts and "not measured yet" in verdicts


def test_every_prediction_has_its_row(root):
    told = list(predictions.judged(root))
    wanted = [entry for entry in entries() if entry.author == "mechsub"]
    for entry in wanted:  # groups of cells are named behind the subject
        own = [
            row
            for row in told
            if (row["study"], row["predicted"], row["why"]) == (entry.study, entry.expected, entry.reason)
        ]
        assert any(row["of"].startswith(entry.subject) for row in own), entry
    row = next(row for row in told if row["of"] == "aux/accuracy over n_aux")
    assert (row["predicted"], row["verdict"]) == ("increases", "hit")


def test_the_page_is_the_same_again_and_text_is_escaped(root, found):
    findings = list(found.values())
    findings[0] = dataclasses.replace(findings[0], question=dataclasses.replace(findings[0].question, question="<b>?"))
    text = report_page.page(findings, [], root)
    assert text == report_page.page(findings, [], root) and "&lt;b&gt;?" in text and "<b>?" not in text


def test_bad_options_are_one_line(capsys, tmp_path):
    root = ["--out", str(tmp_path)]
    wrong = (["--only", "nothing"], ["--only", "learns"], ["--panels"])
    for argv in (["--out", str(tmp_path / "none")], *([*root, *words] for words in wrong)):
        with pytest.raises(SystemExit) as stop:
            report.main(argv)
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_every_panel_is_written_as_an_image_of_its_own(root, tmp_path, monkeypatch, capsys, kind):
    """Which images are asked for; tests/test_export.py draws such."""
    asked = {}
    monkeypatch.setattr(export, "problem", lambda: None)
    monkeypatch.setattr(export, "write_images", asked.update)
    told = ["--out", str(root), "--export", str(tmp_path), "--only", "learns", "ratio", "--format", kind]
    report.main(told)
    assert {path.name for path in asked} == {f"learns.{kind}", f"ratio.{kind}"}
    asked.clear()
    report.main([*told, "--panels"])
    titles = {path.name: figure.layout.title.text for path, figure in asked.items()}
    assert titles.keys() == {f"learns-1.{kind}", f"learns-2.{kind}", f"ratio-1.{kind}"}
    assert (titles[f"learns-1.{kind}"], titles[f"learns-2.{kind}"]) == ("raw", "recentred")
    assert f"figure: {tmp_path / f'learns-2.{kind}'}\n" in capsys.readouterr().out


# In a browser.


@pytest.fixture(scope="module")
def page(found):
    with chromium.page() as opened:
        yield opened


@chromium.needed
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_drawn_without_an_error_a_request_or_an_overflow(root, page, width, dark):
    page.open(root / "index.html", width=width, dark=dark, until=DRAWN)
    assert [e for e in page.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")] == []
    assert not [e for e in page.events if e["method"] == "Runtime.consoleAPICalled"]
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}
    names = {Path(unquote(urlsplit(url).path)).name for url in asked if url.startswith("file:")}
    assert names == {"index.html", "plotly.min.js"}
    figures = page.value("document.querySelectorAll('.plot').length")
    assert figures >= 4
    assert page.value("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg .trace'))")
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    paper = page.value("getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor")
    assert paper == ("rgb(32, 34, 38)" if dark else "rgb(255, 255, 255)")


@chromium.needed
@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_no_two_texts_of_a_figure_lie_on_each_other_and_none_is_cut(root, page, width):
    page.open(root / "index.html", width=width, until=DRAWN)
    assert page.value(chromium.OVERLAPS) == []


@chromium.needed
def test_a_text_on_a_text_is_found(root, page):
    page.open(root / "index.html", until=DRAWN)
    page.value("document.querySelectorAll('.plot .xtick text').forEach(t => t.setAttribute('x', 300))")
    assert page.value(chromium.OVERLAPS) != []


@chromium.needed
def test_links_lead_somewhere_figures_have_words_and_the_keyboard_reaches_all(root, page):
    page.open(root / "index.html", until=DRAWN)
    for link in page.value("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"):
        path, _, anchor = link.partition("#")
        assert (root / unquote(path)).exists() if path else page.value(f"!!document.getElementById({anchor!r})"), link
    texts = page.value("[...document.querySelectorAll('.plot')].map(p => p.getAttribute('aria-label'))")
    assert all(len(text) > 60 for text in texts)
    page.press("Tab")
    assert page.value("document.activeElement.className") == "skip"
    page.value("document.querySelector('details summary').focus()")
    page.press("Enter")
    assert page.value("document.querySelector('details').open")


@chromium.needed
def test_it_prints_in_light_colours(root, page):
    page.open(root / "index.html", dark=True, until=DRAWN)
    page.value("dispatchEvent(new Event('beforeprint'))")
    paper = page.value("getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert len(page.call("Page.printToPDF")["data"]) > 50_000
