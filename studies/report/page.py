"""What the page of `studies.report` shows. jinja2 fills the template and escapes all text in it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mechsub.lab import recheck, store, tables
from mechsub.lab.figures import drawing
from studies.report.question import NO_CLAIM, NOT_TESTABLE

CLASSES = {"confirmed": "good", "hit": "good", "refuted": "bad", "miss": "bad", "partly": "part"}
FOLDER = Path(__file__).parent
WARNINGS = {
    "missing": "Not stored, so not in this answer",
    "stale": "Stale, made by other code than this; the command with --rerun recomputes it",
    "unreadable": "Of another version, which this code cannot read; the command with --rerun recomputes it",
    "damaged": "Damaged, so not shown; the command with --rerun recomputes it",
}


def page(findings: list, predictions: list[Mapping], root: Path) -> str:
    """The page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "shown": tables.cell_text,
        "columns": lambda rows: list(dict.fromkeys(key for row in rows for key in row)),
        "warnings": _warnings,
        "drawing": drawing.drawing,
        "told": lambda cells: [_told(cell, status, root) for cell, status in cells.items()],
        "json": json.dumps,
    }
    answered = [f.verdict for f in findings if f.answer]
    words = ("confirmed", "partly", "refuted", "not supported", "open", NOT_TESTABLE)
    counted = ", ".join(f"{n} {word}" for word in words if (n := answered.count(word)))
    return environment.get_template("page.html").render(
        classes=CLASSES,
        no_claim=NO_CLAIM,
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=drawing.script(displayModeBar=False, responsive=True),
        n_answered=len(answered),
        n_questions=len(findings),
        counted=counted or "none",
        topics=[_topic(name, findings) for name in dict.fromkeys(f.question.topic for f in findings)],
        predictions=_predictions(predictions),
        rechecks=_rechecks(root),
    )


def _topic(name: str, findings: list) -> dict:
    """The questions of a topic, and which of them shows a figure, or the cells of a command, first."""
    own = [f for f in findings if f.question.topic == name]
    answered = [f for f in own if f.answer]
    seen: dict[int, str] = {}
    return {
        "name": name,
        "anchor": f"waiting-{''.join(c if c.isalnum() else '-' for c in name.lower())}",
        "answered": answered,
        "waiting": [f for f in own if not f.answer],
        "first": {
            f.question.name: {
                "figure": seen.setdefault(id(f.figure), f.question.name),
                "cells": seen.setdefault(id(f.found), f.question.name),
            }
            for f in answered
        },
    }


def _warnings(f) -> Iterator[tuple[str, str]]:
    """Cells that the answer lacks, or that are not to be trusted."""
    for status, text in WARNINGS.items():
        cells = [cell.name for cell, is_ in f.found.cells.items() if is_ == status]
        if cells and (f.answer or status != "missing"):  # where there is no answer, `why_not` says what is missing
            yield text, ", ".join(cells)


def _predictions(rows: list[Mapping]) -> dict:
    counts = Counter(row["verdict"] for row in rows)
    return {
        "counted": ", ".join(f"{n} {word}" for word, n in sorted(counts.items())),
        "misses": [row for row in rows if row["verdict"] == "miss"],
        "rows": [{key: value for key, value in row.items() if key != "why"} for row in rows],
    }


def _rechecks(root: Path) -> dict:
    """What the ledger of rechecks says of the store as it is."""
    try:
        return {"problem": "", "result": recheck.result(root)}
    except ValueError as error:
        return {"problem": str(error)}


def _told(cell: Path, status: str, root: Path) -> dict:
    """What the page says of a cell's making."""
    names = [store.records_file(cell).name, store.PROVENANCE]
    told = {"place": str(cell.relative_to(root)), "status": status, "made": {}, "files": names}
    if status not in ("stored", "stale"):
        return told
    made = store.read_provenance(cell) or {}
    git = made.get("git") or {}
    told["made"] = {
        "made by": " ".join(made["command"]),
        "created": made.get("created", ""),
        "commit": f"{git.get('commit', 'none')}{', changed since' if git.get('dirty') else ''}",
        "seconds": made.get("seconds", ""),
        "versions": ", ".join(f"{key} {value}" for key, value in made.get("versions", {}).items()),
        "machine": f"{made.get('device')}, {made.get('threads')} threads, {(made.get('cpu') or {}).get('model')}",
        "unit": made.get("unit", ""),
        "null": made.get("null", ""),
        "records": f"{made['records']['rows']} rows, sha256 {made['records']['sha256'][:16]}",
    }
    return told
