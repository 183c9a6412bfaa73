"""The story on the report's page: docs/findings.md where its numbers are the store's, with figures that move."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import chromium
import pytest

from mechsub.lab import finder, pages
from studies import report
from studies.report import page as report_page
from studies.report import predictions, story

ROOT = Path(__file__).parent.parent
CELLS = ("subliminal_accuracy/default", "digits/default", "contributions/default")
ASKED = ("learns", "start", "directions", "ratio", "passes")
DRAWN = "document.documentElement.dataset.drawn === 'all'"
PAGE = """# What is found

In the order of the questions ([questions.md](questions.md), [below](#b5-what-causes-it), [README](../README.md)).

## A. In a *toy*

### What causes it?

**It does.** ![Accuracy of students](figures/learns.svg)
<!--= from subliminal_accuracy -->The student has <!--= student_aux/accuracy -->, and 5 < 6 <b>is raw</b>.

## B5. What causes it?

### What causes it?

![Shares](figures/ratio.svg)

Again ![the same shares](figures/ratio.svg), and ![a figure of nothing](figures/nothing.svg).

| a | b |
| --- | --- |
| a wide field of a table, wider | `python -m studies.contributions --family names cities colors --weights trained` |
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with docs/ and artifacts/, as in a checkout."""
    folder = tmp_path_factory.mktemp("story")
    for cell in CELLS:
        shutil.copytree(ROOT / "artifacts" / cell, folder / "artifacts" / cell)
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "README.md", folder)
    read = pages.reader(finder.find_study, folder / "artifacts")
    (folder / "docs/findings.md").write_text(pages.fill(PAGE, read))
    return folder / "artifacts"


@pytest.fixture
def docs(root, monkeypatch):
    monkeypatch.setattr(story, "PAGE", root.parent / "docs/findings.md")
    return story.PAGE


def written(root):
    report.write(report.findings(root, ASKED), root)
    return (root / "index.html").read_text()


def test_the_page_begins_with_the_story_and_its_contents_too(root, docs):
    page = written(root)
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page[page.index("<main") :])
    assert titles[0] == "What is found" and titles[1].startswith("Topic A, step 1")
    contents = re.findall(r'<a href="#([^"]*)">(.*?)</a>', page[page.index("<nav") : page.index("</nav>")])
    assert contents[:4] == [
        ("story-a-in-a-toy", "A. In a toy"),
        ("story-what-causes-it", "What causes it?"),
        ("story-b5-what-causes-it", "B5. What causes it?"),
        ("story-what-causes-it-4", "What causes it?"),
    ]
    assert contents[4][0] == "learns"
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_numbers_are_those_of_the_store_marks_are_gone_and_html_is_text(root, docs):
    page = written(root)
    told = page[page.index('id="story"') : page.index("</section>")]
    assert re.search(r"The student has 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], and 5 &lt; 6 &lt;b&gt;is raw&lt;/b&gt;", told)
    assert "<!--" not in told and "from subliminal_accuracy" not in told and "<em>toy</em>" in told


def test_a_figure_of_the_story_is_drawn_there_once_and_its_question_leads_to_it(root, docs):
    page = written(root)
    assert page.count('<figure id="figure-learns">') == page.count('<figure id="figure-ratio">') == 1
    first = page.index("</section>")
    assert page.count("<figure", 0, first) == 2 and '<article id="learns">' not in page[:first]
    article = re.search(r'<article id="learns">.*?</article>', page, re.S)[0]
    assert "<figure" not in article and '<a href="#figure-learns">Figure</a>' in article
    shared = re.search(r'<article id="start">.*?</article>', page, re.S)[0]  # has the cells of the other
    assert '<a href="#figure-learns">' in shared and '<a href="#learns">\nNumbers' not in shared
    assert '<a href="#learns">Numbers and provenance' in shared
    assert "Again the same shares, and a figure of nothing." in page


def test_links_lead_from_the_page_to_the_documentation_or_are_words(root, docs, tmp_path):
    page = written(root)
    assert '<a href="../docs/questions.md">questions.md</a>, <a href="#story-b5-what-causes-it">below</a>' in page
    assert '<a href="../README.md">README</a>' in page
    elsewhere = tmp_path / "deeper" / "artifacts"
    shutil.copytree(root, elsewhere)
    assert "(questions.md, <a href=" in written(elsewhere)


def test_of_other_cells_one_line_says_where_it_is_and_without_it_nothing(root, docs, tmp_path, monkeypatch):
    kept = docs.read_text()
    docs.write_text(kept.replace("has <!--= student_aux/accuracy -->0", "has <!--= student_aux/accuracy -->1"))
    page = written(root)
    line = 'The story, <a href="../docs/findings.md">docs/findings.md</a>, is about other cells than these.'
    assert page.count(line) == 1 and 'id="story"' not in page and "What is found" not in page
    assert '<figure id="figure' not in page and page.count("<figure") == 4
    docs.write_text(kept)
    other = tmp_path / "artifacts"
    shutil.copytree(root / "digits", other / "digits")
    page = written(other)
    assert "The story, <code>docs/findings.md</code> in mechsub's folder, is about other cells" in page
    monkeypatch.setattr(story, "PAGE", tmp_path / "site-packages/docs/findings.md")
    assert "The story" not in written(root)


def test_a_store_beside_does_not_change_the_story(root, docs, tmp_path):
    theirs = tmp_path / "theirs"
    shutil.copytree(ROOT / "artifacts/contributions/model=organisms%2F110-base", theirs / "contributions/model=110")
    found = report.findings(root, ASKED, [theirs], other_models=True)
    assert story.story(found, root).figures == ["learns", "ratio"]


def test_the_storys_own_page_can_be_shown():
    """Its images are figures of questions, its links lead somewhere, and nothing of its marks is left."""
    text = pages.without_marks(story.PAGE.read_text())
    names = re.findall(r"!\[[^\]]*\]\(figures/([\w-]+)\.svg\)", text)
    assert names and set(names) <= {question.name for question in report.QUESTIONS}
    blocks, sections = story.rendered(text, names, "../docs")
    told = "".join(block.html for block in blocks)
    assert [name for block in blocks for name in block.figures] == list(dict.fromkeys(names))
    assert "!--" not in told and "<img" not in told and len(sections) > 5
    for href in re.findall(r'href="([^"]*)"', told):
        path, _, anchor = href.partition("#")
        if path:
            assert (ROOT / "artifacts" / path).resolve().is_file(), href
        else:
            assert anchor == "story" or f'id="{anchor}"' in told, href


# In a browser.


@pytest.fixture(scope="module")
def browser():
    with chromium.page() as opened:
        yield opened


@chromium.needed
@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_story_is_drawn_at_every_width(root, docs, browser, width, dark):
    written(root)
    browser.open(root / "index.html", width=width, dark=dark, until=DRAWN)
    assert browser.value(chromium.OVERLAPS) == []
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert browser.value("document.querySelectorAll('#story .plot .main-svg .trace').length") >= 2
    assert [e for e in browser.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")] == []


@chromium.needed
def test_its_links_lead_somewhere(root, docs, browser):
    written(root)
    browser.open(root / "index.html", until=DRAWN)
    for link in browser.value("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"):
        path, _, anchor = link.partition("#")
        assert (root / unquote(path)).exists() if path else browser.value(f"!!document.getElementById({anchor!r})"), (
            link
        )


@pytest.mark.slow
@chromium.needed
def test_the_page_of_this_repository_is_light_opens_soon_and_has_no_overlap(tmp_path, browser):
    """All of it, with the story."""
    root = ROOT / "artifacts"
    found = report.findings(root, other_models=True)
    told = story.story(found, root)
    assert told.blocks and told.figures
    text = report_page.page(found, list(predictions.judged(root)), root, told)
    assert len(text.encode()) < 3e6
    (tmp_path / "index.html").write_text(text)
    report.ms.kinds.share_plotlyjs(tmp_path / "plotly.min.js")
    browser.call("Performance.enable", timeDomain="threadTicks")  # others that are busy here do not count
    browser.open(tmp_path / "index.html")
    spent = {one["name"]: one["value"] for one in browser.call("Performance.getMetrics")["metrics"]}
    assert spent["TaskDuration"] < 3  # seconds until it can be read; figures are drawn meanwhile
    for width in (390, 768, 1280, 1920):
        for dark in (False, True):
            browser.open(tmp_path / "index.html", width=width, dark=dark, until=DRAWN)
            assert browser.value(chromium.OVERLAPS) == []
            assert browser.value("document.documentElement.scrollWidth <= innerWidth")
