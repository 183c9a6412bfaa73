"""Every prediction of ours with what the stored cells say of it: hit, miss, open, or not measured yet.

mechsub.lab.verdicts is the judge, of all stored cells of the study that an entry of predictions.toml names.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from mechsub.lab import finder, predictions, verdicts
from mechsub.lab.findings import Cell, value_text
from mechsub.lab.stored import stored

UNMEASURED = "not measured yet"


def judged(root: Path) -> Iterator[dict]:
    cells = functools.cache(lambda study: stored(finder.find_study(study), root))
    for entry in predictions.entries():
        if entry.author == "mechsub":
            yield from _of_entry(entry, cells(entry.study))


def _of_entry(entry: verdicts.Entry, cells: list[Cell]) -> Iterator[dict]:
    for verdict in verdicts.judge(entry, cells):
        turns = f"; the other way: {verdict.turns}" if verdict.turns and entry.rule != "peak" else ""
        measured = verdict.word != "untested"
        yield {
            "study": entry.study,
            "of": entry.subject,
            "predicted": entry.expected,
            "found": f"{value_text(verdict.value)}{turns}",
            "verdict": verdict.word if measured else UNMEASURED,
            "why": entry.reason,
        }
