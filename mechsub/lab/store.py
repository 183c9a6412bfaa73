"""The store: one configuration of a study is one cell, a folder with `records.jsonl` and `provenance.json`.

Every row begins with the configuration. The file leaves it out, because the provenance has it too; from 32 KiB on, the
file is `records.jsonl.gz`. Its sha256 is that of the whole rows. A cell may hold `tensors.safetensors` too. A cell is
complete when its provenance exists. The provenance is written last; it holds the sha256 of the other files and, as a
seal, its own. Cells and files appear whole or not at all: temporary name in the same folder, fsync, rename, fsync of
the folder.

    write_cell(cell, rows, provenance)     # replaces a stored cell only once the new one is complete
    read_records(cell)                     # rows, checked against the hash; raises DamagedCell

`mechsub.lab.versions` decides whether a study would store the same cell today. Among several processes, the holder of
the cell's lease writes the cell (mechsub.lab.lease).
"""

import contextlib
import gzip
import json
import math
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from mechsub import processes
from mechsub.files import sha256, sync_folder, temporary_path, write_bytes, write_text  # noqa: F401, store.write_text is public
from mechsub.lab import lease

_T = TypeVar("_T")

RECORDS, TENSORS, PROVENANCE = "records.jsonl", "tensors.safetensors", "provenance.json"
SHORT_RECORDS = f"{RECORDS}.gz"
USUAL = "artifacts"  # root of the results where nobody names one, in the folder of the command
LARGE = 2**15  # bytes of records, from which on they are compressed
FORMAT = 2  # of provenance.json; 1 had no seal
MAX_NAME = 180  # bytes; file systems stop at 255, and temporary names are longer
REMEDY = "; the command of its study, with --rerun, makes it again"


class DamagedCell(ValueError):
    """A stored file differs from what was written."""


def clean(folder: Path) -> None:
    """Clean a study's folder after dead processes: temporary files, leases, and cells that were moved aside."""
    for place in (folder.parent, folder):
        for path in filter(_is_left, place.glob(".*.*-*-*-*.tmp")):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    aside = {cell.with_name(cell.name[1:-4]) for cell in folder.glob(".*.old")}
    for cell in aside | lease.leased(folder):
        try:
            with lease.hold(cell, wait=False):
                recover(cell)
                lease.remove_traces(cell)
        except lease.Lost:  # another process is at it
            continue


def _is_left(path: Path) -> bool:
    """Whether a temporary file's maker is dead. A file of another machine counts as left after a day."""
    lives = processes.alive(path.name.split(".")[-2])
    try:
        return lives is False or (lives is None and time.time() - path.stat().st_mtime > 86400)
    except FileNotFoundError:
        return False


def value_name(value) -> str:
    """A value as part of a file name: nothing but letters, digits and `.-_~%`, and different for different values."""
    if isinstance(value, bool):
        return str(value).lower()
    return quote(str(value), safe="")


def name(parts: Mapping[str, Iterable]) -> str:
    """`k=v1,v2` joined by `__`, or "default" for no parts; a name too long for file systems ends in its hash."""
    text = "__".join(f"{key}={','.join(map(value_name, values))}" for key, values in parts.items()) or "default"
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 26]}__sha256={sha256(text.encode())[:16]}"


def cell_name(config: Mapping, defaults: Mapping) -> str:
    """The folder's name of a configuration: only fields that differ from their default are named."""
    return name({key: [value] for key, value in config.items() if value != defaults[key]})


def record_row(config: Mapping, record) -> dict:
    """The configuration merged into a record, as plain JSON values; NaN and double keys are refused."""
    if not isinstance(record, Mapping):
        raise TypeError(f"a record must be a dict, not {type(record).__name__}")
    if both := sorted(set(config) & set(record)):
        raise ValueError(f"record key {both[0]!r} is also a field of Config; rename one of them")
    _check_keys(record, "a record")
    return {**config, **{key: _plain(value, key) for key, value in record.items()}}


def _check_keys(values: Mapping, where: str) -> None:
    """JSON has keys of text alone: 1 and "1" would be one key, with the value of the last."""
    texts = [str(key) for key in values]
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise ValueError(f"two keys of {where} are {twice!r} as text; rename one of them")


def _plain(value, key: str):
    """The value as JSON types; raises where a reader would not get the same number."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"record value {key!r} is {value}")
    if isinstance(value, list | tuple):
        return [_plain(item, key) for item in value]
    if isinstance(value, Mapping):
        _check_keys(value, f"record value {key!r}")
        return {str(inner): _plain(item, f"{key}.{inner}") for inner, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"record value {key!r} is a {type(value).__name__}; numbers, text, lists and dicts can be stored")


def write_cell(
    cell: Path,
    rows: list[dict],
    provenance: Mapping,
    tensors: Mapping | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Store a cell whole. An old cell stays untouched until the new cell is complete on disk.

    `check` raises if this process may no longer write the cell; it is called last, just before the exchange.
    """
    records = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    packed = _packed(tensors) if tensors else b""
    stamped = {**provenance, "records": {"sha256": sha256(records), "rows": len(rows)}}
    if tensors:
        shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
        stamped["tensors"] = {"sha256": sha256(packed), "shapes": shapes}
    contents = _packed_rows(records, provenance.get("config") or {}) | ({TENSORS: packed} if tensors else {})
    write_files(cell, {**contents, PROVENANCE: _sealed(stamped)}, check)


def write_files(cell: Path, contents: Mapping[str, bytes], check: Callable[[], None] = lambda: None) -> None:
    """Store the files of a cell, in their order, with the provenance last. `check` as in write_cell."""
    check()
    fresh = temporary_path(cell)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        for name, data in contents.items():
            write_bytes(fresh / name, data)
        check()
        replace_folder(fresh, cell)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read_files(cell: Path) -> dict[str, bytes]:
    """The files of a complete cell, all checked, in the order in which `write_files` stores them."""
    while True:
        before, provenance = made(cell), checked(cell)
        if provenance is None:
            raise DamagedCell(f"{cell} is missing or incomplete{REMEDY}")
        names = [records_file(cell).name, *([TENSORS] if "tensors" in provenance else []), PROVENANCE]
        with contextlib.suppress(FileNotFoundError):  # another process exchanges the cell
            contents = {name: (cell / name).read_bytes() for name in names}
            if made(cell) == before:
                return contents


def records_file(cell: Path) -> Path:
    """The file that holds the rows of a stored cell."""
    return cell / SHORT_RECORDS if (cell / SHORT_RECORDS).is_file() else cell / RECORDS


def _packed_rows(rows: bytes, config: Mapping) -> dict[str, bytes]:
    """The file of a cell's rows, by its name."""
    start = _start(config)
    if all(line.startswith(start) for line in rows.splitlines()):
        rows = (b"\n" + rows).replace(b"\n" + start, b"\n{")[1:]
    if len(rows) < LARGE:
        return {RECORDS: rows}
    return {SHORT_RECORDS: gzip.compress(rows, mtime=0)}


def _start(config: Mapping) -> bytes:
    """The start of a row: the configuration, and the sign that more follows."""
    return json.dumps(config, allow_nan=False).removesuffix("}").encode() + b", " * bool(config)


def _whole_rows(data: bytes, config: Mapping) -> bytes:
    """The whole rows of a file that leaves out the configuration."""
    return (b"\n" + data).replace(b"\n{", b"\n" + _start(config))[1:]


def _sealed(provenance: Mapping) -> bytes:
    """The provenance file: JSON whose last entry is the sha256 of everything before its value."""
    content = {key: value for key, value in provenance.items() if key not in ("format", "seal")}
    text = json.dumps({**content, "format": FORMAT, "seal": ""}, indent=2, allow_nan=False)
    head = text.removesuffix('"\n}').encode()
    return head + sha256(head).encode() + b'"\n}\n'


def _seal(data: bytes, provenance: Mapping) -> str:
    """ "whole", "broken", or "none" for a provenance of the format that had no seal."""
    if "seal" not in provenance and "format" not in provenance:
        return "none"
    return "whole" if data[-68:] == sha256(data[:-68]).encode() + b'"\n}\n' else "broken"


def replace_folder(fresh: Path, cell: Path) -> None:
    """Replace a folder, in two steps: the old folder is moved aside; after a crash, `recover` restores it."""
    aside = _aside(cell)
    if cell.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(cell, aside)
    os.rename(fresh, cell)
    sync_folder(cell.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(cell: Path) -> Path:
    return cell.with_name(f".{cell.name}.old")


def recover(cell: Path) -> None:
    """Finish an exchange after a crash: keep the new cell if it exists, else the old cell. Needs the lease."""
    aside = _aside(cell)
    if (cell / PROVENANCE).is_file() or not (aside / PROVENANCE).is_file():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        shutil.rmtree(cell, ignore_errors=True)
        os.rename(aside, cell)


def _settled(read: Callable[[Path], _T]) -> Callable[[Path], _T]:
    """A reader that reads again where another process exchanged the cell between two of its files."""

    def reading(cell: Path | str):
        cell = Path(cell)
        for _ in range(50):
            before = made(cell)
            try:
                return read(cell)
            except DamagedCell:
                if made(cell) == before and not _aside(cell).exists():
                    raise
            time.sleep(0.01)
        return read(cell)

    reading.__name__, reading.__doc__ = read.__name__, read.__doc__
    return reading


def complete_cells(study: Path) -> list[Path]:
    """Folders of a study's complete cells, by name; hidden ones are cells in the making.

    A cell that stepped aside for one that never came, because its process was killed, is brought back first. Where it
    cannot be, a warning names it.
    """
    for cell in _stepped_aside(study):
        _bring_back(cell)
    for cell in _stepped_aside(study):
        warnings.warn(f"{cell} stepped aside, and is left out; the study's next run brings it back", stacklevel=3)
    return sorted(path.parent for path in study.glob(f"[!.]*/{PROVENANCE}"))


def _stepped_aside(study: Path) -> list[Path]:
    cells = (path.parent.with_name(path.parent.name[1:-4]) for path in study.glob(f".*.old/{PROVENANCE}"))
    return [cell for cell in cells if not (cell / PROVENANCE).is_file()]


def _bring_back(cell: Path) -> None:
    for _ in range(50):
        try:
            with lease.hold(cell, wait=False):
                return recover(cell)
        except RuntimeError:  # lease.Lost, or a thread of this process: it is between its two renames, as a rule
            time.sleep(0.01)
        except OSError:  # a store that this process may not write
            return None
    return None


def made(cell: Path) -> str | None:
    """A mark of one making of a cell; another making has another mark, even with equal content. None without a cell."""
    try:
        status = (cell / PROVENANCE).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return f"{status.st_mtime_ns}-{status.st_ino}"


def read_provenance(cell: Path | str) -> dict | None:
    """The provenance of a cell; None if the cell is not complete."""
    path = Path(cell) / PROVENANCE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        provenance = json.loads(data)
        provenance["records"]["sha256"], provenance.get("tensors", {"sha256": ""})["sha256"]
        _check_form(provenance)
        seal = _seal(data, provenance)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedCell(f"{path} is not a provenance file{REMEDY}") from None
    if seal == "broken":
        raise DamagedCell(f"{path} was changed after it was written (its seal is broken){REMEDY}")
    return provenance


def _check_form(made: Mapping) -> None:
    """Raise where entries of a provenance that others read do not have the form of this package."""
    inner = [made.get(key, {}) for key in ("read", "made_from", "upstream_versions", "code", "certified")]
    sums = [*(entry["sha256"] for entry in inner[0].values()), *inner[1].values()]
    numbers = [made.get("version", 1), *inner[2].values()]
    if not all(isinstance(each, Mapping) for each in (made["config"], *inner, *sums)):
        raise TypeError("no dict")
    if not all(type(each) is int and each > 0 for each in numbers):
        raise TypeError("no version")
    if inner[4] and not all(isinstance(inner[4].get(key), str) for key in ("fingerprint", "commit")):
        raise TypeError("certified by nobody")


@_settled
def read_records(cell: Path) -> list[dict]:
    """All rows of a complete cell, exactly as they were written."""
    lines = _bytes(cell, RECORDS, read_provenance(cell)).splitlines()
    return json.loads(b"[" + b",".join(lines) + b"]")  # at once: a call for each row takes twice as long


@_settled
def read_tensors(cell: Path) -> dict:
    """All tensors of a complete cell, checked; an empty dict for a cell without any."""
    data = _bytes(cell, TENSORS, read_provenance(cell))
    if not data:
        return {}
    from safetensors.torch import load

    return load(data)


@_settled
def checked(cell: Path) -> dict | None:
    """The provenance of a cell, after a check of all its files; None if the cell is not complete."""
    provenance = read_provenance(cell)
    if provenance is not None:
        _bytes(cell, RECORDS, provenance)
        _bytes(cell, TENSORS, provenance)
    return provenance


def _bytes(cell: Path, file: str, provenance: Mapping | None) -> bytes:
    """A file of a cell, compared with its recorded sha256; nothing if the cell has no such file."""
    path, key = records_file(cell) if file == RECORDS else cell / file, file.partition(".")[0]
    if provenance is None and not cell.exists():
        raise DamagedCell(f"there is no cell {cell}; give a folder that a study stored, as {USUAL}/STUDY/CELL")
    if provenance is None:
        raise DamagedCell(f"{cell} is missing or incomplete{REMEDY}")
    if key not in provenance:
        return b""
    try:
        data = path.read_bytes()
        if path.name == SHORT_RECORDS:
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise DamagedCell(f"{path} is missing{REMEDY}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DamagedCell(f"{path} was changed after it was written (it cannot be unpacked){REMEDY}") from None
    wanted = provenance[key]["sha256"]
    for whole in (data, *([_whole_rows(data, provenance["config"])] if file == RECORDS else [])):
        if sha256(whole) == wanted:
            return whole
    was = f"sha256 {sha256(data)[:12]}, recorded {str(wanted)[:12]}"
    raise DamagedCell(f"{path} was changed after it was written ({was}){REMEDY}")


def sums(cell: Path) -> dict[str, str]:
    """sha256 of a complete cell's records, and of its tensors if it has any, as recorded."""
    return sums_in(read_provenance(cell) or {})


def sums_in(made: Mapping) -> dict[str, str]:
    """The same sums, from a provenance."""
    return {key: made[key]["sha256"] for key in ("records", "tensors") if key in made}


def _packed(tensors: Mapping) -> bytes:
    from safetensors.torch import save

    # Copies: safetensors refuses tensors that share memory, as a row of a stored matrix does.
    return save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()})
