"""One page with every question of the research brief, answered from stored cells alone: artifacts/index.html.

Runs nothing. Every answer is a sentence made from the table that the question's study prints, with its null, a verdict
on the published claim, the study's own figure and the command that remakes it. Missing and stale cells are said to be
so, damaged ones are named and not shown. The page needs no network, only `plotly.min.js`, which is written beside it.

To add a question, add one row to QUESTIONS in studies/_report_questions.py:

    Question("Topic A, step 2", "n_aux", "Do more auxiliary logits teach more?", "factors", "--arms aux --n-aux 3 10",
             sweep("n_aux"), claim="They do (Jiang et al. 2025).")

that is topic, name (the anchor), question, study, its flags, and a function from the rows of `studies.<study>.table` to
an Answer(sentence, null, verdict). Cells are found by study and flags, as the study's own command finds them. A function
may raise LookupError where a row is not there: the question is then not answered yet.

    python -m studies.report --out artifacts --export svg png    # also static images, in artifacts/images
"""

import argparse
import importlib
import itertools
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mechsub import store, study
from studies import _report_page as page
from studies._report_questions import QUESTIONS, Answer, Question

OPEN = "not answered yet"


@dataclass
class Finding:
    """A question and all that the store holds of it."""

    question: Question
    cells: dict[Path, str] = field(default_factory=dict)  # status of each
    answer: Answer | None = None
    why_not: str = ""
    rows: list[dict] = field(default_factory=list)
    figure: Any = None

    @property
    def command(self) -> str:
        return f"python -m studies.{self.question.study} {self.question.flags}".strip()

    @property
    def verdict(self) -> str:
        return OPEN if self.answer is None else self.answer.verdict

    @property
    def whole(self) -> list[Path]:
        return [cell for cell, status in self.cells.items() if status in ("stored", "stale")]


def find(question: Question, root: Path) -> Finding:
    found = Finding(question)
    try:
        module = importlib.import_module(f"studies.{question.study}")
    except ModuleNotFoundError as error:
        if error.name != f"studies.{question.study}":
            raise
        found.why_not = f"There is no study {question.study} yet."
        return found
    found.cells, display = study.planned(module, shlex.split(question.flags), str(root))
    if not found.whole:
        found.why_not = "No whole cell is stored."
        return found
    records = list(itertools.chain.from_iterable(store.read_records(cell) for cell in found.whole))
    found.rows = module.table(records, **display)
    found.figure = module.plot(records, **display)
    try:
        found.answer = question.answer(found.rows)
    except LookupError as error:
        found.why_not = f"The stored cells do not hold what the answer is made of: {' '.join(map(str, error.args))}."
    return found


def build(root: Path) -> tuple[str, list[Finding]]:
    """The page, and what it is made of."""
    from studies import _report_predictions

    findings = [find(question, root) for question in QUESTIONS]
    return page.page(findings, list(_report_predictions.judged(root)), root), findings


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.error = lambda message: _stop(message, 2)
    parser.add_argument("--out", default="artifacts", metavar="DIR", help="root of the results (default: artifacts)")
    formats = "also write every figure as static images to DIR/images (needs the extra `export` and Chromium)"
    parser.add_argument("--export", nargs="+", choices=("svg", "png"), default=[], help=formats)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="the questions whose images are written")
    options = parser.parse_args(argv)
    root = Path(options.out)
    if not root.is_dir():
        _stop(f"--out {options.out!r} is not a folder of results; run a study first", 2)
    _check(options)
    from mechsub import plot

    html, findings = build(root)
    plot.share_plotlyjs(root / "plotly.min.js")
    store.write_text(root / "index.html", html)
    _export(findings, root / "images", options)
    answered = sum(found.answer is not None for found in findings)
    print(f"{answered} of {len(findings)} questions answered; report: {root / 'index.html'}")


def _check(options) -> None:
    from mechsub import export

    known = {question.name for question in QUESTIONS}
    if unknown := set(options.only) - known:
        _stop(f"--only: {min(unknown)!r} is not one of {', '.join(sorted(known))}", 2)
    if options.export and (missing := export.problem()):
        _stop(missing, 2)


def _export(findings: list[Finding], folder: Path, options) -> None:
    from mechsub import export

    drawn = [f for f in findings if f.figure is not None and (not options.only or f.question.name in options.only)]
    try:
        export.write_images({folder / f"{f.question.name}.{kind}": f.figure for f in drawn for kind in options.export})
    except export.Failed as error:
        _stop(str(error), 1)


def _stop(message: str, code: int):
    print(f"error: {' '.join(str(message).split())[:800]}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
