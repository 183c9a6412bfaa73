"""The audit of a whole store: which files are damaged, missing, stale, foreign, unsealed or unfinished?

    python -m mechsub verify [PATH]

A study is looked for as `studies.<name>`; no other code is imported, whatever a provenance file says.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mechsub.lab import cells, imports, lease, recheck, store
from mechsub.lab.finder import CannotImport, find_study, usable_study

KINDS = {
    "damaged": "not what was written",
    "missing": "half of a cell",
    "stale": "of another version or other options, or built on cells or inputs that changed since",
    "foreign": "not the store's",
    "unsealed": "provenance of a format that had no checksum of its own",
    "unfinished": "in the making, or left by a process that was killed: the study's next run removes it",
    "unknown": "of a study that is not found or cannot be imported here: its code was not compared",
}
FAILURES = ("damaged", "missing")
_LEDGERS = {recheck.LEDGER: recheck.ledger, imports.LEDGER: imports.ledger}
_SHARED = {"plotly.min.js", "index.html", *_LEDGERS}


def findings(root: Path) -> Iterator[tuple[str, str]]:
    """(kind, line) for every problem of a store; ("cell", path) for every complete cell."""
    for path in sorted(root.iterdir()):
        if path.name in _SHARED and path.is_file():
            if path.name in _LEDGERS:
                yield from _ledger(path)
            continue
        if path.name == ".recheck":
            yield "unfinished", f"{path} is a recheck that was not finished; the same command goes on with it"
        elif lease.is_lease(path):
            yield "unfinished", f"{path} belongs to an import that is at work, or was killed"
        elif path.name.endswith(".tmp") and path.name.startswith("."):
            yield "unfinished", f"{path} is a temporary file"
        elif path.is_dir() and any(map(_belongs, path.iterdir())):
            yield from _study(path)
        else:
            yield "foreign", f"{path} is no study's folder"


def _ledger(path: Path) -> Iterator[tuple[str, str]]:
    try:
        _LEDGERS[path.name](path.parent)
    except ValueError as error:
        yield "damaged", str(error)


def _belongs(path: Path) -> bool:
    """Whether a path shows that its folder belongs to a study."""
    if path.is_dir():
        return any((path / file).is_file() for file in _FILES)
    return path.suffix == ".html" or lease.is_lease(path)


_FILES = (store.RECORDS, store.SHORT_RECORDS, store.TENSORS, store.PROVENANCE)


def _study(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            yield _hidden(path)
        elif path.is_dir() and any((path / file).is_file() for file in _FILES):
            yield from _cell(path)
        elif not path.is_file() or path.suffix != ".html":
            yield "foreign", f"{path} is neither a cell nor a figure"


def _hidden(path: Path) -> tuple[str, str]:
    cell = path.with_name(path.name[1:-4])
    if path.suffix == ".old" and not cell.exists():
        return "missing", f"{cell} stepped aside and was not replaced; the study's next run brings it back"
    if lease.is_lease(path) or path.suffix in (".old", ".tmp", ".job"):
        return "unfinished", f"{path} is in the making, or left by a process that was killed"
    return "foreign", f"{path} is neither a cell nor a figure"


def _cell(cell: Path) -> Iterator[tuple[str, str]]:
    try:
        made = store.read_provenance(cell)
        if made is None:
            yield "missing", f"{cell} has no {store.PROVENANCE}: it is half-written"
            return
        of_rows = store.records_file(cell).name
        recorded = [of_rows, *([store.TENSORS] if "tensors" in made else []), store.PROVENANCE]
        if absent := [file for file in recorded if not (cell / file).is_file()]:
            yield "missing", f"{cell / absent[0]} is missing"
            return
        store.checked(cell)
    except store.DamagedCell as error:
        yield "damaged", str(error).removesuffix(store.REMEDY)
        return
    yield "cell", str(cell)
    for path in sorted(cell.iterdir()):
        if path.name not in recorded:
            yield "foreign", f"{path} is not recorded in the cell's provenance"
    if "seal" not in made:
        yield "unsealed", f"{cell / store.PROVENANCE} has no checksum of its own"
    yield from currency(cell, made)


def currency(cell: Path, made: Mapping) -> Iterator[tuple[str, str]]:
    """Whether the code of today would make the same cell."""
    if made.get("study") != cell.parent.name:
        yield "foreign", f"{cell} was made as a cell of {made.get('study')!r}"
        return
    try:
        study = usable_study(made["study"])
        if study is None:
            yield "unknown", f"{cell} was made by a study that is not found as studies.{made['study']}"
        elif line := cells.stale_line(cell, made, study, find_study):
            yield "stale", line
    except CannotImport as error:  # its own study, or one that it is built on
        yield "unknown", f"{cell}: {error}"
