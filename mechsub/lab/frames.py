"""Records of a study's stored cells as a pandas frame.

ms.frame("subliminal_accuracy", n_aux=[1, 3])             # of the cells with these options
ms.frame("subliminal_accuracy", out="foreign/results")    # of another store
"""

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechsub import arguments
from mechsub.lab import finder, store, verify
from mechsub.lab.declared import Study

if TYPE_CHECKING:
    import pandas as pd


def frame(study: str, *, out: str | Path = store.USUAL, **options: object) -> "pd.DataFrame":
    """A row for every record of every stored cell with these options: the cell, all its options, the measurements.

    An option takes a value or a list of values; an option that is left out may have any value. Warns of stale cells.
    Raises LookupError for an unknown study and where nothing is stored, TypeError for an unknown option, and
    DamagedCell.
    """
    import pandas as pd

    arguments.text(study, "study")
    if not isinstance(out, str | Path):
        arguments.refuse("out", "a folder", out)
    root = Path(out).expanduser()
    known, cells = _known(study, root), store.complete_cells(root / study)
    wanted = {name: value if isinstance(value, list | tuple) else [value] for name, value in options.items()}
    options_of = {cell: options_in(known, cell) for cell in cells}
    _check_options(study, wanted, options_of.values(), usual_options(known))
    chosen = [cell for cell, has in options_of.items() if all(_among(has, *each) for each in wanted.items())]
    if not chosen:
        raise LookupError(_nothing(study, root, wanted, options_of.values()))
    _warn_of_stale(chosen)
    return pd.DataFrame([row for cell in chosen for row in rows(cell, known)])


def usual_options(study: Study | None) -> dict[str, object]:
    """The options that make the cells of a study, with their defaults; empty for a study that is not found."""
    fields = dataclasses.fields(study.Config) if study else ()
    return {field.name: field.default for field in fields if not field.metadata.get("display")}


def options_in(study: Study | None, cell: Path) -> dict[str, object]:
    """All options of a stored cell. An option that is newer than the cell has its default."""
    return {**usual_options(study), **(store.read_provenance(cell) or {}).get("config", {})}


def rows(cell: Path, study: Study | None) -> Iterator[dict]:
    """The records of a cell, each with the cell's name and all its options before it."""
    options = options_in(study, cell)
    for row in store.read_records(cell):
        if "cell" in row:
            raise ValueError(f"records of {cell} have a key 'cell', which is the column for the cell's name")
        yield {"cell": cell.name, **options, **row}


def stale(cells: Iterable[Path]) -> dict[str, str]:
    """Name -> reason, for the stale cells among stored cells, and for those that were made as another study's."""
    kinds = {cell.name: dict(verify.currency(cell, store.read_provenance(cell) or {})) for cell in cells}
    reasons = {name: kind.get("stale") or kind.get("foreign") for name, kind in kinds.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _known(study: str, root: Path) -> Study | None:
    """The study of this name. Its cells can be read without it: they may be another person's."""
    known = finder.find_study(study)
    if known is None and not (study.isidentifier() and store.complete_cells(root / study)):
        raise LookupError(f"there is no study {study!r}; there are {', '.join(finder.all_names())}")
    return known


def _among(options: Mapping, name: str, values: Sequence) -> bool:
    return name in options and options[name] in values


def _check_options(study: str, wanted: Mapping, stored: Iterable[Mapping], usual: Mapping) -> None:
    there = dict.fromkeys([*usual, *(name for options in stored for name in options)])
    if unknown := sorted(set(wanted) - set(there)):
        raise TypeError(f"{study} has no option {unknown[0]!r}; it has {', '.join(there)}")


def _nothing(study: str, root: Path, wanted: Mapping, stored: Iterable[Mapping]) -> str:
    """One line: nothing is stored with these options, and which cells are stored."""
    stored = list(stored)
    if not stored:
        there = finder.results_elsewhere(root)
        if there is not None and store.complete_cells(there / study):
            return f"no cell of {study} is stored under {root} in this folder; give out={str(there)!r}, which has some"
        return f"no cell of {study} is stored under {root}; run python -m studies.{study}"
    for name, values in wanted.items():
        there = list(dict.fromkeys(options[name] for options in stored if name in options))
        if not any(value in values for value in there):
            asked = " or ".join(map(repr, values)) or "no value"
            return f"no stored cell of {study} has {name} = {asked}; stored: {', '.join(map(repr, there[:12]))}"
    return f"no stored cell of {study} has all of these options; python -m studies.{study} makes one"


def _warn_of_stale(cells: Iterable[Path]) -> None:
    old = stale(cells)
    if old:
        more = f", and {len(old) - 1} more" if len(old) > 1 else ""
        warnings.warn(f"stale: {next(iter(old.values()))}{more}", stacklevel=3)
