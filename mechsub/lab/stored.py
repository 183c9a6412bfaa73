"""Findings of stored cells."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from mechsub.lab import store
from mechsub.lab.cells import records_of, stale_line
from mechsub.lab.declared import Study
from mechsub.lab.findings import Cell, Finding, all_findings, cells
from mechsub.lab.study import planned


def read(study: Study, flags: Sequence[str], out: str | Path = "artifacts") -> list[Finding]:
    """Findings of the cells that a command of a study names; LookupError where a cell is not stored, or stale."""
    named, _ = planned(study, list(flags), str(out))
    if absent := [cell for cell, kind in named.items() if kind != "stored"]:
        kind = named[absent[0]]
        why = f"the cell {absent[0].name} is stale" if kind == "stale" else f"no stored cell {absent[0].name}"
        raise LookupError(f"{study.name}: {why} under {out}; run its command{' with --rerun' * (kind == 'stale')}")
    records = records_of(study, named)
    return all_findings(
        cells(records, study.Config, study.needed("findings"), study.together), study.part("comparisons")
    )


def stored(study: Study, out: str | Path = "artifacts") -> list[Cell]:
    """Every cell of a study under `out` that is what the study would store today, with its findings.

    Damaged and stale cells are left out, with a warning: replicates of two versions are not one sample.
    """
    records: list[dict] = []
    left_out: dict[str, list[str]] = {"stale": [], "damaged": []}
    for cell in store.complete_cells(Path(out) / study.name):
        try:
            if line := stale_line(cell, store.read_provenance(cell) or {}, study, study.sibling):
                left_out["stale"].append(line)
            else:
                records += store.read_records(cell)
        except store.DamagedCell as error:
            left_out["damaged"].append(str(error))
    for kind, lines in left_out.items():
        if lines:
            more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
            warnings.warn(f"{kind}, and left out: {min(lines)}{more}", stacklevel=2)
    return cells(records, study.Config, study.needed("findings"), study.together)


def readable(study: Study, cell: Path, rows: list[dict]) -> bool:
    """Whether today's code finds what it looks for in rows: another version may have stored them otherwise."""
    findings, made = study.part("findings"), store.read_provenance(cell) or {}
    if findings is None or made.get("version") == study.version:
        return True
    try:
        return bool(list(findings(rows)))
    except (LookupError, TypeError, ValueError):
        return False
