"""Every entry of predictions.toml with what the stored cells of `studies.factors` say of it: hit, miss or open."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mechsub import store
from studies import _factors_report as rules

IGNORED = ("arms",)  # which other students a cell has changes none of them


def judged(root: Path) -> Iterator[dict]:
    """A row for every prediction and every group of cells that differ in its factor alone; one "open" row if none."""
    told = rules.predictions()
    cells = list(_cells(root / "factors"))
    for prediction in told.get("prediction", []):
        rows = list(_rows(prediction, cells, told["margin"])) if prediction.get("study", "factors") == "factors" else []
        yield from rows or [_row(prediction, "", "", "open", "")]
    for contrast in told.get("contrast", []):
        yield _row({"factor": "inputs", "levels": contrast["inputs"], **contrast}, "", "", "open", "")


def _cells(folder: Path) -> Iterator[tuple[dict, list[dict]]]:
    """Config and records of every whole cell."""
    for cell in sorted(path.parent for path in folder.glob("*/" + store.PROVENANCE)):
        try:
            yield store.read_provenance(cell)["config"], store.read_records(cell)
        except store.DamagedCell:
            continue


def _rows(prediction: Mapping, cells: list, margin: float) -> Iterator[dict]:
    factor, where = prediction["factor"], prediction.get("where", {})
    groups: dict[str, dict] = {}
    for config, records in cells:
        if all(config.get(key) == value for key, value in where.items() if key != "signal_moments"):
            others = {key: value for key, value in config.items() if key not in (factor, *IGNORED)}
            groups.setdefault(json.dumps(others, sort_keys=True), {}).setdefault(config.get(factor), records)
    for levels in groups.values():
        if any(row.get(key) != value for row in next(iter(levels.values()))[:1] for key, value in where.items()):
            continue
        ordered = [level for level in prediction.get("levels", _sorted(levels)) if level in levels]
        if len(ordered) < 2 or len(ordered) < min(3, len(prediction.get("levels", ordered))):
            continue
        yield _judged(prediction, ordered, [levels[level] for level in ordered], margin)


def _sorted(levels: Mapping) -> list:
    return sorted(levels, key=lambda level: (isinstance(level, str), level))


def _judged(prediction: Mapping, levels: list, records: list, margin: float) -> dict:
    value = rules.score({prediction["factor"]: levels})
    students, nulls = ([rules._scores(rows, arm, value) for rows in records] for arm in ("aux", rules.NULL))
    verdict = rules.verdict(prediction["direction"], students, nulls, margin)
    brief = rules.verdict(prediction["brief"], students, nulls, margin) if "brief" in prediction else ""
    ends = rules._paired(students[-1], students[0])
    return _row(prediction, levels, ends.interval if ends else "", verdict, brief)


def _row(prediction: Mapping, levels, difference, verdict: str, brief: str) -> dict:
    said = prediction.get("brief", "")
    return {
        "factor": str(prediction.get("factor", "")),
        "levels": ", ".join(map(str, levels or prediction.get("levels", []))),
        "predicted": prediction["direction"],
        "last - first level": str(difference),
        "verdict": verdict,
        "brief": f"{said}: {brief or 'open'}" if said else "",
        "why": prediction.get("reason", ""),
    }
