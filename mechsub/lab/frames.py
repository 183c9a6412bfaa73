"""Records of a study's stored cells as a pandas frame.

ms.frame("subliminal_accuracy", n_aux=[1, 3])             # of the cells with these options
ms.frame("token_entanglement", kind="animal")             # of the records that hold this
ms.frame("subliminal_accuracy", out="foreign/results")    # of another store
"""

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechsub import arguments
from mechsub.lab import finder, flat, store, verify
from mechsub.lab.declared import Study

if TYPE_CHECKING:
    import pandas as pd


def frame(study: str, *, out: str | Path = store.USUAL, **options: object) -> "pd.DataFrame":
    """A row for every record of every stored cell with these options: the cell, all its options, the measurements.

    An option takes a value or a list of values; an option that is left out may have any value. So does a key of the
    records, such as `kind`. Columns that are empty in these records are left out; whole numbers stay whole where a
    record lacks one (pandas' Int64). Warns of stale cells. Raises LookupError for an unknown study and where nothing is
    stored, TypeError for what is neither an option nor a key, and DamagedCell.
    """
    arguments.text(study, "study")
    if not isinstance(out, str | Path):
        arguments.refuse("out", "a folder", out)
    root = Path(out).expanduser()
    known, cells = _known(study, root), store.complete_cells(root / study)
    wanted = {name: value if isinstance(value, list | tuple) else [value] for name, value in options.items()}
    options_of = {cell: options_in(known, cell) for cell in cells}
    there = dict.fromkeys([*usual_options(known), *(name for has in options_of.values() for name in has)])
    of_cells = {name: values for name, values in wanted.items() if name in there}
    of_records = {name: values for name, values in wanted.items() if name not in there}
    chosen = [cell for cell, has in options_of.items() if all(_among(has, *each) for each in of_cells.items())]
    lacking = {  # of several values, one that no cell has is a slip that would lose an arm
        name: [value for value in values if not any(_among(has, name, [value]) for has in options_of.values())]
        for name, values in of_cells.items()
    }
    if not chosen or any(lacking.values()):
        unknown = {name: values for name, values in lacking.items() if values}
        raise LookupError(_nothing(study, root, unknown if chosen else of_cells, options_of.values()))
    found = [row for cell in chosen for row in rows(cell, known)]
    _check_keys(study, of_records, found, there)
    _warn_of_stale(chosen)
    found = [row for row in found if all(_among(row, *each) for each in of_records.items())]
    if not found:
        asked = ", ".join(f"{name} = {' or '.join(map(repr, values))}" for name, values in of_records.items())
        raise LookupError(f"no record of {study} has all of these: {asked}; leave one out")
    return _table(found, ["cell", *there])


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


def _check_keys(study: str, wanted: Mapping, found: Sequence[Mapping], options: Iterable[str]) -> None:
    """Raise for what no record has as a key, and for values that none has there."""
    keys = dict.fromkeys(name for row in found for name in row if name not in {"cell", *options})
    for name, values in wanted.items():
        if name not in keys:
            raise TypeError(
                f"{study} has no option and no key of records {name!r}; options: {', '.join(options)}; keys of "
                f"records: {', '.join(keys)}"
            )
        there = list(dict.fromkeys(str(row[name]) for row in found if row.get(name) is not None))
        lacking = [value for value in values if not any(_among(row, name, [value]) for row in found)]
        if lacking or not values:
            asked = " or ".join(map(repr, lacking)) or "no value"
            raise LookupError(f"no record of {study} has {name} = {asked}; there are {', '.join(there[:12])}")


def _table(found: Sequence[Mapping], options: Sequence[str]) -> "pd.DataFrame":
    """The rows, without the columns that are empty in all of them; whole numbers and flags with gaps stay what they
    are."""
    import pandas as pd

    columns = flat.columns(found)
    kept = [name for name, values in columns.items() if name in options or any(value is not None for value in values)]
    table = pd.DataFrame(found, columns=kept)
    for name in kept:
        kind = {type(value) for value in columns[name] if value is not None}
        if None in columns[name] and kind in ({int}, {bool}):
            table[name] = pd.array(columns[name], "boolean" if kind == {bool} else "Int64")
    return table


def _nothing(study: str, root: Path, wanted: Mapping, stored: Iterable[Mapping]) -> str:
    """One line: nothing is stored with these options, and which cells are stored."""
    stored = list(stored)
    if not stored:
        elsewhere = finder.results_elsewhere(root)
        if elsewhere is not None and store.complete_cells(elsewhere / study):
            return (
                f"no cell of {study} is stored under {root} in this folder; give out={str(elsewhere)!r}, which has some"
            )
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
