"""Findings of stored cells."""

import contextlib
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

    Damaged cells are left out; stale ones too, with a warning: replicates of two versions are not one sample.
    """
    records: list[dict] = []
    stale: list[str] = []
    for cell in store.complete_cells(Path(out) / study.name):
        with contextlib.suppress(store.DamagedCell):
            if line := stale_line(cell, store.read_provenance(cell) or {}, study, study.sibling):
                stale.append(line)
            else:
                records += store.read_records(cell)
    if stale:
        more = f", and {len(stale) - 1} more" if len(stale) > 1 else ""
        warnings.warn(f"stale, and left out: {min(stale)}{more}", stacklevel=2)
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
