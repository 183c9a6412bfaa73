"""One page with the story and every question of the research write-up, from stored cells alone: artifacts/index.html.

Runs nothing. The page begins with the story, docs/findings.md, where the numbers of that are those of the store. Every
answer is a sentence made from the table that the question's study prints, with its null, a verdict on the published
claim, the study's own figure and the command that remakes it. Missing and stale cells are said to be so, damaged ones
are named and not shown. The page needs no network, only `plotly.min.js`, which is written beside it.

To add a question, add the function that answers it, from the rows of the study's table, under `@question(...)` in
studies/report/toy.py or studies/report/language.py (CONTRIBUTING.md has an example). It may raise LookupError where a
row is not there: the question is then not answered yet. Cells are found by study and flags, as the study's own command
finds them; of an option that a question sweeps, all levels that are stored.

    python -m studies.report
    python -m studies.report --write    # instead of the page: marked numbers of README.md and docs/, docs/answers.md
    python -m studies.report --export docs/figures --only learns ratio    # static images instead of the page
    python -m studies.report --export slides --format png --only mechanism --panels    # each panel as an image
    python -m studies.report --beside foreign/llama    # with the answers of a store that `mechsub import` made

Where a store has no cell of a question's own model but of another, the question is answered for that one.
"""

import argparse
import dataclasses
import functools
import itertools
import shlex
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import mechsub as ms
from mechsub.lab import finder, pages, store, terminal
from mechsub.lab.cells import run_here, twins
from mechsub.lab.declared import Study
from mechsub.lab.findings import Cell, all_findings
from mechsub.lab.findings import cells as lab_cells
from mechsub.lab.stored import readable
from mechsub.lab.study import planned, table_of
from studies.report import amounts, answers, defences, elsewhere, factors, language, page, toy  # noqa: F401 - some ask questions
from studies.report.question import ASKED, TOPICS, Answer, Findings, Question

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUESTIONS = sorted(ASKED, key=lambda question: TOPICS.index(question.topic))
UNANSWERED = "not answered yet"


@dataclass
class Found:
    """What the store holds for a command: cells with their status, and what the study makes of the whole ones."""

    study: Study
    flags: str
    cells: dict[Path, str] = field(default_factory=dict)
    records: list[dict] = field(default_factory=list)
    display: Mapping[str, tuple] = field(default_factory=dict)
    lab_cells: list[Cell] = field(default_factory=list)  # with their findings, of a study that has such

    @functools.cached_property
    def rows(self) -> list[dict]:
        return table_of(self.study, self.records, self.display) if self.records else []

    @functools.cached_property
    def findings(self) -> list:
        if not self.lab_cells:
            return []
        return Findings(all_findings(self.lab_cells, self.study.part("comparisons")), self.lab_cells)

    @functools.cached_property
    def figure(self) -> "go.Figure":
        return self.study.needed("plot")(self.records, **self.display) if self.records else None


@dataclass
class Finding:
    """A question and its answer; `found` is shared by the questions that ask the same cells."""

    question: Question
    found: Found
    answer: Answer | None = None
    why_not: str = ""
    where: str = ""  # the store and the models, where these are not the page's own
    out: str = ""  # that store, for the command
    elsewhere: list["Finding"] = field(default_factory=list)

    @property
    def command(self) -> str:
        out = f"--out {shlex.quote(self.out)}" if self.out else ""
        return " ".join(filter(None, (f"python -m studies.{self.question.study}", self.found.flags, out)))

    @functools.cached_property
    def figure(self) -> "go.Figure":
        """Its own; else the study's, which other questions of the same cells share."""
        if not self.question.figure:
            return self.found.figure
        return self.found.study.needed(self.question.figure)(self.found.records) if self.found.records else None

    @property
    def verdict(self) -> str:
        return UNANSWERED if self.answer is None else self.answer.verdict


def findings(
    root: Path, names: Container[str] = (), beside: Sequence[Path] = (), *, other_models: bool = False
) -> list[Finding]:
    """Of the questions with these names, of all without any; with the answers of other stores beside each.

    other_models: where a store has no cell of a question's own model, the question is answered for another.
    """
    ask = functools.cache(_found)
    chosen = [q for q in QUESTIONS if not names or q.name in names]
    own = [_own(q, root, ask) if other_models else _finding(q, ask(q.study, q.flags, q.sweep, root)) for q in chosen]
    return [_with_others(finding, beside, ask) for finding in own]


def _own(question: Question, root: Path, ask: Callable[..., Found]) -> Finding:
    """The answer of the question's own cells; where there are none, of the first other model that has one."""
    found = ask(question.study, question.flags, question.sweep, root)
    finding = _finding(question, found)
    if found.records:
        return finding
    return next(filter(lambda other: other.answer, _of_models(question, found.study, root, ask)), finding)


def _with_others(finding: Finding, beside: Sequence[Path], ask: Callable[..., Found]) -> Finding:
    question = finding.question
    for root in beside:
        same = _finding(question, ask(question.study, question.flags, question.sweep, root))
        found = [same, *_of_models(question, finding.found.study, root, ask)]
        for other in (other for other in found if other.answer and other.found is not finding.found):
            other.where = ", ".join(filter(None, (str(root), other.where)))
            other.out = str(root)
            finding.elsewhere.append(other)
    return finding


def _of_models(question: Question, study: Study, root: Path, ask: Callable[..., Found]) -> Iterator[Finding]:
    for models, flags in elsewhere.commands(question, study, root):
        try:
            found = ask(question.study, flags, question.sweep, root)
        except ValueError:  # options of the question that are not for this model
            continue
        finding = _finding(question, found)
        finding.where = models
        yield finding


def _finding(question: Question, found: Found) -> Finding:
    finding = Finding(question, found)
    if not found.records:
        finding.why_not = "No whole cell is stored."
        return finding
    try:
        finding.answer = question.answer(found.findings or found.rows)
    except LookupError as error:
        finding.why_not = f"Not in the stored cells: {' '.join(map(str, error.args))}."
    return finding


def _found(name: str, flags: str, sweep: str, root: Path) -> Found:
    study = finder.find_study(name)
    if study is None:
        raise LookupError(f"there is no study {name!r}")
    if name == "audit_toy":
        return _audited(study, flags, root)
    if sweep:
        flags = _stored_levels(study, flags, sweep, root)
    cells, display = planned(study, shlex.split(flags), str(root))
    found = Found(study, flags, cells)
    whole = {cell: store.read_records(cell) for cell, status in cells.items() if status in ("stored", "stale")}
    doubled = {cell for pair in twins(study, whole) for cell in pair if cells[cell] == "stale"}
    for cell in [cell for cell, rows in whole.items() if cell in doubled or not readable(study, cell, rows)]:
        cells[cell] = "unreadable"
        del whole[cell]
    found.records = list(itertools.chain.from_iterable(whole.values()))
    if found.records:
        found.display = display
        if (findings := study.part("findings")) is not None:
            found.lab_cells = lab_cells(found.records, study.Config, findings, study.together)
    return found


def _audited(study: Study, flags: str, root: Path) -> Found:
    """The audit as it would be made now: it trains nothing, and other studies' cells keep arriving."""
    config = study.Config()
    rows = (row for row in run_here(study, config, root) if "provenance" not in row)
    made = [store.record_row(dataclasses.asdict(config), row) for row in rows]
    return Found(study, flags, {}, made)


def _stored_levels(study: Study, flags: str, sweep: str, root: Path) -> str:
    """The flags, with all stored levels of one option in place of those given; as given for fewer than two.

    Of cells that differ in nothing else; where some hold every student and some only one (`--arms`), of the kind that
    has more.
    """
    words = shlex.split(flags)
    place = words.index(_flag(sweep))
    pinned, levels = dict(zip(words[:place:2], words[1:place:2], strict=True)), words[place + 1 :]
    kinds = ({"--arms": "aux"}, {"--arms": "every"}) if study.name == "factors" else ({},)
    chosen = {kind.get("--arms", ""): _levels(study, pinned | kind, sweep, root) for kind in kinds}
    most = max(chosen, key=lambda kind: len(chosen[kind]))
    if len(chosen[most]) > 1:
        levels = [_word(level) for level in chosen[most]]
    arms = ["--arms", most] if most else []
    return shlex.join([*arms, *words[:place], _flag(sweep), *levels])


def _levels(study: Study, pinned: Mapping[str, str], sweep: str, root: Path) -> list:
    """Of the option, in complete cells whose other options are pinned or at their default."""
    wanted = {f.name: pinned.get(_flag(f.name), _word(f.default)) for f in dataclasses.fields(study.Config)}
    found = []
    for cell in store.complete_cells(root / study.name):
        try:
            config = (store.read_provenance(cell) or {})["config"]
        except store.DamagedCell:
            continue
        if all(_word(value) == wanted.get(name) for name, value in config.items() if name != sweep):
            found.append(config[sweep])
    return sorted(found, key=lambda level: (isinstance(level, str), level))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _word(value) -> str:
    """As a command line has it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


# The command line.


@terminal.command
def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    root = Path(options.out).expanduser()
    if not root.is_dir():
        _stop(f"--out {options.out!r} is not a folder of results; run a study first", 2)
    if unknown := set(options.only) - {question.name for question in QUESTIONS}:
        names = ", ".join(sorted(question.name for question in QUESTIONS))
        _stop(f"--only: {min(unknown)!r} is not one of {names}", 2)
    if options.only and not options.export:
        _stop("--only chooses images; give --export too", 2)
    if options.panels and not options.export:
        _stop("--panels chooses images; give --export too", 2)
    if options.beside and (options.export or options.write):
        _stop("--beside is of the page alone; leave out --export and --write", 2)
    if options.write:
        return _write_pages(root)
    if options.export:
        return _export(root, options)
    beside = [Path(name).expanduser() for name in options.beside]
    if absent := [name for name, path in zip(options.beside, beside, strict=True) if not name or not path.is_dir()]:
        _stop(f"--beside {absent[0]!r} is not a folder of results; python -m mechsub import makes one", 2)
    found = findings(root, beside=beside, other_models=True)
    write(found, root)
    answered = sum(finding.answer is not None for finding in found)
    print(f"{answered} of {len(found)} questions answered\nreport: {root / 'index.html'}")


def write(found: list[Finding], root: Path) -> None:
    from studies.report import predictions, story

    ms.kinds.share_plotlyjs(root / "plotly.min.js")
    told = page.page(found, list(predictions.judged(root)), root, story.story(found, root))
    store.write_text(root / "index.html", told)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _stop(message, 2)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m studies.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--out", default="artifacts", metavar="DIR", help="root of the results (default: artifacts)")
    marked = "write the marked numbers of README.md and docs/ anew, and docs/answers.md, not the page"
    parser.add_argument("--write", action="store_true", help=marked)
    sent = "stores that somebody sent (python -m mechsub import); their answers stand beside one's own"
    parser.add_argument("--beside", nargs="+", metavar="DIR", default=[], help=sent)
    images = "write figures as static images to DIR, not the page (needs the extra `export` and Chromium)"
    parser.add_argument("--export", metavar="DIR", help=images)
    parser.add_argument("--format", choices=("svg", "png", "pdf"), default="svg", help="of the images (default: svg)")
    names = "the questions whose images are written (default: all); names are the page's anchors"
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help=names)
    each = "write every panel of a figure as an image of its own: NAME-1.svg, NAME-2.svg, ..."
    parser.add_argument("--panels", action="store_true", help=each)
    return parser.parse_args(argv)


def _export(root: Path, options: argparse.Namespace) -> None:
    from mechsub.lab.figures import export

    if problem := export.problem():
        _stop(problem, 2)
    drawn = [f for f in findings(root, options.only) if f.figure is not None]
    images = {
        Path(options.export) / f"{f.question.name}{part}.{options.format}": figure
        for f in drawn
        for part, figure in _parts(f.figure, options.panels)
    }
    try:
        export.write_images(images)
    except export.Failed as error:
        _stop(str(error), 1)
    print("".join(f"figure: {path}\n" for path in images), end="")


def _parts(figure: "go.Figure", panels: bool) -> "Iterable[tuple[str, go.Figure]]":
    """The figure, or every panel of it with its number, as names of files have it."""
    from mechsub.lab.figures.panels import alone

    return [(f"-{n}", panel) for n, panel in enumerate(alone(figure), 1)] if panels else [("", figure)]


def _write_pages(root: Path) -> None:
    """Numbers of the pages in the current folder."""
    read = pages.reader(finder.find_study, root)
    try:
        changed = [path for path in (Path("README.md"), *sorted(Path("docs").glob("*.md"))) if pages.write(path, read)]
    except (LookupError, OSError) as error:
        _stop(str(error), 1)
    path = Path("docs/answers.md")
    text = answers.table(findings(root))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        store.write_text(path, text)
        changed.append(path)
    print("".join(f"written: {path}\n" for path in changed) or "every page is up to date\n", end="")


def _stop(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(str(message).split())[:800]}", file=sys.stderr)
    raise SystemExit(code)
