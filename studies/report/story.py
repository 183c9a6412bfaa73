"""The story, docs/findings.md, with which the report's page begins.

It stands in a checkout and not in the wheel; its numbers are those of the shipped cells, so another store's page does
not show it. Raw HTML in it is shown as text.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mechsub.lab import finder, pages
from mechsub.lab.findings import Finding

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"
SCROLLED = {  # a table, so that the page does not
    "table_open": '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n',
    "table_close": "</table></div>\n",
}
FIGURE = re.compile(r"figures/([\w-]+)\.svg")  # as `--export docs/figures` names it: by its question


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list; and the questions whose figures stand in it, which are drawn below it."""

    html: str
    figures: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    depth: int  # of its heading: 2 below the title, 3 below that


@dataclass(frozen=True)
class Story:
    """`link` leads to the Markdown page, where there is a way to it; no blocks: it is about other cells."""

    name: str
    link: str
    blocks: Sequence[Block] = field(default_factory=list)
    sections: Sequence[Section] = field(default_factory=list)

    @property
    def figures(self) -> list[str]:
        return [name for block in self.blocks for name in block.figures]


def story(found: Iterable, root: Path) -> Story | None:
    """The story as the page of these findings of the store `root` shows it; None where there is no docs/findings.md."""
    if not PAGE.is_file():
        return None
    found = list(found)
    text, where = PAGE.read_text(encoding="utf-8"), _beside(root)
    name = f"{PAGE.parent.name}/{PAGE.name}"
    link = f"{where}/{PAGE.name}" if where else ""
    if not _is_of(text, _reader(found, root)):
        return Story(name, link)
    drawn = {one.question.name for one in found if one.answer and one.figure is not None}
    blocks, sections = rendered(pages.without_marks(text), drawn, where)
    return Story(name, link, blocks, sections)


def _beside(root: Path) -> str:
    """The folder of the documentation, from a page in `root`; "" where it is not beside that."""
    docs = root.absolute().parent / PAGE.parent.name
    return f"../{PAGE.parent.name}" if docs.is_dir() and docs.samefile(PAGE.parent) else ""


def _reader(found: Iterable, root: Path) -> pages.Reader:
    """Findings of a command: those that the page has already, else read anew."""
    whole = (one.found for one in found if one.found.cells and set(one.found.cells.values()) == {"stored"})
    known = {f"{each.study.name} {each.flags}".strip(): each for each in whole}
    anew = pages.reader(finder.find_study, root)

    def read(command: str) -> list[Finding]:
        return known[command].findings if command in known else anew(command)

    return read


def _is_of(text: str, read: pages.Reader) -> bool:
    """Whether the numbers of the page are those of these cells."""
    try:
        return pages.fill(text, read) == text
    except LookupError:  # a cell, or a finding, is not there
        return False


def rendered(text: str, drawn: Iterable[str], docs: str) -> tuple[list[Block], list[Section]]:
    """Markdown without marks as blocks and their sections.

    drawn: questions with a figure; of each the first image is that figure, other images are their words.
    docs: the folder of the documentation from the page; "" where links to it would lead nowhere.
    """
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    for side, html in SCROLLED.items():
        markdown.add_render_rule(side, lambda *_, html=html: html)
    left = set(drawn)
    blocks, sections = [], []
    for tokens in _top_level(markdown.parse(text)):
        sections += _headed(tokens, {section.anchor for section in sections})
        figures = [name for token in tokens if token.children for name in _placed(token, left, docs)]
        if figures and tokens[0].type == "paragraph_open" and not _says(tokens[1]):
            tokens = []  # an image alone
        blocks.append(Block(markdown.renderer.render(tokens, markdown.options, {}), figures))
    return blocks, sections


def _top_level(tokens: Sequence) -> Iterator[list]:
    """Tokens of one block after the other."""
    block = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def _headed(tokens: Sequence, taken: set[str]) -> Iterator[Section]:
    """The sections that begin here. Their headings, on a page that has a title already, are one level deeper."""
    for token in tokens:
        if token.type not in ("heading_open", "heading_close"):
            continue
        depth = int(token.tag[1])
        token.tag = f"h{min(depth + 1, 6)}"
        if token.type == "heading_close":
            continue
        words = tokens[tokens.index(token) + 1]
        anchor = own = _anchor(words.content)
        while anchor in taken:
            anchor = f"{own}-{len(taken)}"
        token.attrSet("id", anchor)
        yield Section(anchor, "".join(child.content for child in words.children), depth)


def _anchor(title: str) -> str:
    """As GitHub makes it, with a beginning that no question's name has."""
    return "story-" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _placed(token, left: set[str], docs: str) -> Iterator[str]:
    """Take the images out of a text, and set its links (in place); yields the questions whose figures these are."""
    kept, plain = [], False
    for child in token.children:
        if child.type == "image":
            name = FIGURE.fullmatch(child.attrs["src"])
            if name is not None and name[1] in left:
                left.remove(name[1])
                yield name[1]
                continue
            child.type, child.tag = "text", ""  # its words are its content
        if child.type == "link_open":
            plain = not (href := _href(child.attrs["href"], docs))
            child.attrSet("href", href)
        if not (plain and child.type in ("link_open", "link_close")):
            kept.append(child)
    token.children = kept


def _href(href: str, docs: str) -> str:
    """A link of docs/findings.md, from the report's page; "" where it would lead nowhere."""
    path, _, anchor = href.partition("#")
    if path in ("", PAGE.name):
        return f"#{_anchor(anchor)}" if anchor else "#story"
    if re.match(r"[a-z]+:", href):
        return href
    return posixpath.normpath(f"{docs}/{path}") + (f"#{anchor}" if anchor else "") if docs else ""


def _says(token) -> bool:
    return any(child.content.strip() for child in token.children)
