"""Import cells that somebody sent, into a store of their own.

    put(folder, root)     # checks every file against the manifest first; raises manifest.Wrong, or Clash

`imported.jsonl` of a store names its imported cells, so that they can be told from one's own. It has a line for each
import, with the sent folder, the code that made it, and the sums of the cells.
"""

import contextlib
import gzip
import json
import re
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mechsub import files
from mechsub.lab import lease, manifest, store

LEDGER = "imported.jsonl"
FIELDS = {"name": str, "manifest": str, "imported": str, "cells": dict}
MOST_UNPACKED = 100  # times the size of a packed file; those of this repository reach 8
_CELL_NAME = re.compile(r"\w[\w.\-~%=,]*")
_FILES = {store.RECORDS, store.SHORT_RECORDS, store.TENSORS, store.PROVENANCE}


class Clash(ValueError):
    """Imported cells cannot be stored at the wanted place."""


class Put(NamedTuple):
    added: list[str]  # "study/cell"
    there: list[str]  # the same cells, stored before
    others: list[str]  # cells of the store that were not sent


def put(folder: Path, root: Path) -> Put:
    """Store the cells of an exported folder under `root`. All is checked before anything is written."""
    if _within(root, folder):
        raise Clash(f"{root} lies within the folder that is imported; give another --into")
    if root.exists() and not root.is_dir():
        raise Clash(f"{root} is not a folder; give another --into")
    sent = manifest.checked(folder)
    cells = _cells(folder, sent)
    there, _ = _split(folder, root, cells)
    ledger(root)  # a damaged one is said before anything is written
    if len(there) == len(cells):  # nothing is to be written, and the store may not be writable
        return Put([], there, sorted(_stored(root) - set(cells)))
    root.mkdir(parents=True, exist_ok=True)
    with lease.hold(root / LEDGER) as check:  # two imports would each write the ledger without the other's line
        for study in {name.split("/")[0] for name in cells}:  # first: what stepped aside is there, too
            store.clean(root / study)
        there, added = _split(folder, root, cells)
        _note(folder, root, sent, added, check)
        for name in added:
            _store(folder / manifest.CELLS / name, root / name)
    return Put(added, there, sorted(_stored(root) - set(cells)))


def _split(folder: Path, root: Path, cells: list[str]) -> tuple[list[str], list[str]]:
    """The cells that are stored already, and those that are to be stored."""
    there = [name for name in cells if _is_there(folder / manifest.CELLS / name, root / name)]
    return there, [name for name in cells if name not in there]


def ledger(root: Path) -> list[dict]:
    """A dict for every import into a store. Raises ValueError for a line that this module did not write."""
    path = root / LEDGER
    try:
        lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        raise ValueError(f"{path} cannot be read; mend it, or restore the file") from None
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not all(type(line.get(key)) is kind for key, kind in FIELDS.items()):
            raise ValueError(f"{path}, line {number}, is no line of an import; mend it, or restore the file")
    return lines


def _within(path: Path, folder: Path) -> bool:
    return folder.resolve() in (path.resolve(), *path.resolve().parents)


def _cells(folder: Path, sent: dict) -> list[str]:
    """ "study/cell" of every cell of the folder; raises unless each is whole."""
    inner = [name.split("/")[1:] for name in sent["files"] if name.split("/")[0] == manifest.CELLS]
    for parts in inner:
        if len(parts) != 3 or not _named_as_stored(*parts):
            raise manifest.Wrong(f"{folder / manifest.CELLS / '/'.join(parts)} is no file of a cell")
    names = sorted({f"{study}/{cell}" for study, cell, _ in inner})
    if not names:
        raise manifest.Wrong(f"{folder} holds no cells")
    for name in names:
        check_cell(folder / manifest.CELLS / name)
    return names


def _named_as_stored(study: str, cell: str, file: str) -> bool:
    return study.isidentifier() and _CELL_NAME.fullmatch(cell) is not None and file in _FILES


def check_cell(cell: Path) -> None:
    """Raise manifest.Wrong unless this is a whole cell of its folder's study, under a name that cells have."""
    if not _named_as_stored(cell.parent.name, cell.name, store.PROVENANCE):
        raise manifest.Wrong(f"{cell} is not named as cells are")
    try:
        _check_unpacked(cell / store.SHORT_RECORDS)
        made = store.checked(cell)
    except store.DamagedCell as error:
        raise manifest.Wrong(str(error).removesuffix(store.REMEDY)) from None
    if made is None:
        raise manifest.Wrong(f"{cell} has no {store.PROVENANCE}: it is half of a cell")
    if made.get("study") != cell.parent.name:
        raise manifest.Wrong(f"{cell} was made as a cell of {made.get('study')!r}")


def _check_unpacked(path: Path) -> None:
    """Refuse a small file that would fill the memory; it is unpacked piece by piece."""
    if not path.is_file():
        return
    most, unpacked = MOST_UNPACKED * path.stat().st_size, 0
    with contextlib.suppress(gzip.BadGzipFile, EOFError, zlib.error), gzip.open(path) as file:  # store.checked says so
        while piece := len(file.read(2**20)):
            unpacked += piece
            if unpacked > most:
                raise manifest.Wrong(f"{path} unpacks to more than {MOST_UNPACKED} times its size; it is not read")


def _is_there(sent: Path, target: Path) -> bool:
    """Whether the same cell is stored already. Raises Clash where another one stands in its place."""
    if not target.exists():
        return False
    try:
        same = store.checked(target) is not None and store.read_files(target) == store.read_files(sent)
    except store.DamagedCell:
        same = False
    if not same:
        raise Clash(f"{target} is there with other content; nothing was imported; give another --into")
    return True


def _store(sent: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with lease.hold(target) as check:
        store.recover(target)
        if not _is_there(sent, target):  # another process may have made it since
            store.write_files(target, store.read_files(sent), check)


def _note(folder: Path, root: Path, sent: dict, added: list[str], check: Callable[[], None]) -> None:
    """Add a line to the ledger, unless its last word on these cells is this one: the import was killed then."""
    cells = {name: store.sums(folder / manifest.CELLS / name) for name in added}
    known = ledger(root)
    said = {name: sums for line in known for name, sums in line["cells"].items()}
    if all(said.get(name) == sums for name, sums in cells.items()):
        return
    line = {
        "name": folder.resolve().name,
        "manifest": files.sha256((folder / manifest.NAME).read_bytes()),
        "imported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **{key: sent.get(key) for key in ("created", "versions", "git")},
        "cells": cells,
    }
    text = "".join(json.dumps(each) + "\n" for each in [*known, line])
    check()
    files.write_text(root / LEDGER, text)


def _stored(root: Path) -> set[str]:
    return {f"{study.name}/{cell.name}" for study in root.glob("[!.]*") for cell in store.complete_cells(study)}
