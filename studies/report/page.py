"""What the page of `studies.report` shows. jinja2 fills the template and escapes all text in it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mechsub.lab import recheck, store, tables
from mechsub.lab.figures import drawing
from studies.report.question import NO_CLAIM, NOT_TESTABLE
from studies.report.story import Story

CLASSES = {"confirmed": "good", "hit": "good", "refuted": "bad", "miss": "bad", "partly": "part"}
FOLDER = Path(__file__).parent
WARNINGS = {
    "missing": "Not stored, so not in this answer",
    "stale": "Stale, made by other code than this; the command with --rerun recomputes it",
    "unreadable": "Of another version, which this code cannot read; the command with --rerun recomputes it",
    "damaged": "Damaged, so not shown; the command with --rerun recomputes it",
}


def page(findings: list, predictions: list[Mapping], root: Path, story: Story | None = None) -> str:
    """The page as HTML. It begins with the story, which has the figures of some questions."""
    import jinja2

    drawings = _drawings(findings)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "shown": tables.cell_text,
        "columns": lambda rows: list(dict.fromkeys(key for row in rows for key in row)),
        "warnings": _warnings,
        "told": lambda cells: _provenance([_told(cell, status, root) for cell, status in cells.items()]),
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
        story=story,
        drawings=drawings,
        by_name={f.question.name: f for f in findings},
        topics=[_topic(name, findings) for name in dict.fromkeys(f.question.topic for f in findings)],
        first=_first(findings, drawings, story.figures if story else []),
        predictions=_predictions(predictions),
        rechecks=_rechecks(root),
    )


def _topic(name: str, findings: list) -> dict:
    own = [f for f in findings if f.question.topic == name]
    return {
        "name": name,
        "anchor": f"waiting-{''.join(c if c.isalnum() else '-' for c in name.lower())}",
        "answered": [f for f in own if f.answer],
        "waiting": [f for f in own if not f.answer],
    }


def _drawings(findings: list) -> dict[str, drawing.Drawing]:
    """The figure of every answered question; questions of the same cells share it."""
    figures = {id(f.figure): f.figure for f in findings if f.answer}
    drawn = {key: drawing.drawing(figure) for key, figure in figures.items()}
    return {f.question.name: drawn[id(f.figure)] for f in findings if f.answer}


def _first(findings: list, drawings: Mapping[str, drawing.Drawing], told: Sequence[str]) -> dict[str, dict[str, str]]:
    """Where the figure, and the cells, of every answered question are shown: each once, a figure in the story first."""
    figures = {drawings[name].data: f"figure-{name}" for name in told}
    cells: dict[int, str] = {}
    return {
        f.question.name: {
            "figure": figures.setdefault(drawings[f.question.name].data, f.question.name),
            "cells": cells.setdefault(id(f.found), f.question.name),
        }
        for f in findings
        if f.answer
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


def _provenance(told: list[dict]) -> dict:
    """What all cells of a command have in common, said once, and the rest of each."""
    made = [cell["made"] for cell in told if cell["made"]]
    if len(made) < 2:
        return {"common": {}, "cells": told}
    common = {key: value for key, value in made[0].items() if all(each.get(key) == value for each in made)}
    own = [cell | {"made": {k: v for k, v in cell["made"].items() if k not in common}} for cell in told]
    return {"common": common, "cells": own}


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
