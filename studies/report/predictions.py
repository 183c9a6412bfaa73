"""Every prediction of ours with what the stored cells say of it: hit, miss, open, or not measured yet.

mechsub.lab.verdicts is the judge, of all stored cells of the study that an entry of predictions.toml names.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from mechsub.lab import finder, predictions, verdicts
from mechsub.lab.findings import Cell, Finding, value_text
from mechsub.lab.stored import stored

UNMEASURED = "not measured yet"


def judged(root: Path) -> Iterator[dict]:
    cells = functools.cache(lambda study: _stored(study, root))
    compared = functools.cache(lambda study: _compared(study, cells(study)))  # some take a minute: only where asked
    for entry in predictions.entries():
        if entry.author == "mechsub":
            of_study = functools.partial(compared, entry.study)
            yield from _of_entry(entry, predictions.judged(entry, cells(entry.study), of_study))


def _stored(study: str, root: Path) -> list[Cell]:
    declared = finder.find_study(study)
    if declared is None:
        raise LookupError(f"predictions.toml speaks of the study {study!r}, which is not there")
    return stored(declared, root)


def _compared(study: str, cells: list[Cell]) -> list[Finding]:
    declared = finder.find_study(study)
    compare = declared and declared.part("comparisons")
    return compare(cells) if compare and cells else []


def _of_entry(entry: verdicts.Entry, found: list[verdicts.Verdict]) -> Iterator[dict]:
    several = {name for name, wanted in entry.where.items() if isinstance(wanted, list)}  # which of them is to be said
    for verdict in found:
        turns = f"; the other way: {verdict.turns}" if verdict.turns and entry.rule != "peak" else ""
        measured = verdict.word != "untested"
        yield {
            "study": entry.study,
            "of": ", ".join(
                [entry.subject, *(part for part in verdict.at.split(", ") if part.partition("=")[0] in several)]
            ),
            "predicted": entry.expected,
            "found": f"{value_text(verdict.value)}{turns}",
            "verdict": verdict.word if measured else UNMEASURED,
            "why": entry.reason,
        }
