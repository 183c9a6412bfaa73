"""Every entry of predictions.toml with what the stored cells say of it: hit, miss, open, or not measured yet.

Entries are judged by mechsub.lab.verdicts, of all stored cells of their study. Verdicts on other predictions are those
of the studies' own tables and rules, of the cells that the report's questions found.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from mechsub.lab import finder, predictions, verdicts
from mechsub.lab.findings import Cell, value_text
from mechsub.lab.stored import stored

UNMEASURED = "not measured yet"


def judged(findings: list, root: Path) -> Iterator[dict]:
    told = predictions.told()
    for prediction in told.get("prediction", []):
        yield from _rows(prediction, _of_prediction(prediction, findings))
    cells = functools.cache(lambda study: stored(finder.find_study(study), root))
    for entry in predictions.entries():
        yield from _of_entry(entry, cells(entry.study))
    for contrast in told.get("contrast", []):
        yield from _rows(contrast, _of_contrast(contrast, findings))
    for kind, key in (("mechanism", "outcome"), ("maximise", "quantity")):
        for prediction in told.get(kind, []):
            yield from _rows({"study": kind, **prediction}, _of_outcome(prediction, kind, key, findings))


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


def _of_prediction(prediction: Mapping, findings: list) -> Iterator[dict]:
    for found in findings:
        if found.question.study in ("factors", "input_distributions") and found.found.records:
            records = [row for row in found.found.records if row["arm"] != "inputs"]
            factors = predictions.swept([row | {"arms": "aux"} for row in records], found.found.study.Config)
            yield from predictions.judge_factor(prediction, records, factors)


def _of_contrast(contrast: Mapping, findings: list) -> Iterator[dict]:
    value = f", {contrast['value']}" if "value" in contrast else ""
    label = f"claim {contrast['row']}: {' to '.join(contrast['inputs'])}{value}"
    for row in _table_rows(findings, "input_distributions"):
        if row.get("cell") == label and "predicted" in row:
            yield {**row, "verdict": row["predicted"].rpartition(": ")[2]}


def _of_outcome(prediction: Mapping, study: str, key: str, findings: list) -> Iterator[dict]:
    for found in findings:
        entry = found.found.records[0].get("entry") if found.found.records else None
        if found.question.study == study and entry == prediction.get("entry"):
            yield from (r for r in found.found.rows if r.get(key) == prediction["outcome"] and "verdict" in r)


def _table_rows(findings: list, study: str) -> Iterator[dict]:
    for found in findings:
        if found.question.study == study:
            yield from found.found.rows


def _rows(prediction: Mapping, measured: Iterator[dict]) -> Iterator[dict]:
    """Several findings may hold the same cells: each row once."""
    rows = {(row["verdict"], row.get("cell", ""), str(_value(row))): row for row in measured}
    for row in rows.values() or [{"verdict": UNMEASURED}]:
        yield {
            "study": prediction.get("study", "input_distributions" if "inputs" in prediction else "factors"),
            "of": _subject(prediction),
            "predicted": _said(prediction),
            "found": f"{_value(row)}{_against(prediction, row)}",
            "verdict": row["verdict"],
            "why": prediction.get("reason", ""),
        }


def _against(prediction: Mapping, row: Mapping) -> str:
    """Steps that a direction's rule does not look at; a peak has one."""
    seen = "turns" in row and prediction.get("direction") in ("increases", "decreases", "none")
    return f"; the other way: {row['turns']}" if seen else ""


def _value(row: Mapping):
    return next((row[key] for key in ("difference", "to the reference", "value") if row.get(key)), "")


def _subject(prediction: Mapping) -> str:
    if "outcome" in prediction:
        return ": ".join(filter(None, (prediction.get("entry"), prediction["outcome"])))
    levels = prediction.get("levels", prediction.get("inputs", []))
    subject = f"{prediction.get('factor', 'inputs')} {', '.join(map(str, levels))}".strip()
    where = [f"{key}={value}" for key, value in prediction.get("where", {}).items()]
    more = [prediction[key] for key in ("score", "value") if key in prediction]
    return f"{subject} ({', '.join([*more, *where])})" if more or where else subject


def _said(prediction: Mapping) -> str:
    bounds = [f"{key.replace('_', ' ')} {prediction[key]:g}" for key in ("at_least", "at_most") if key in prediction]
    return ", ".join(bounds) or prediction["direction"]
