"""The store: one configuration of a study is one cell, a folder with `records.jsonl` and `provenance.json`.

A cell may hold `tensors.safetensors` too. It is complete when its provenance exists, which is written last and holds
the sha256 of the others. Cells and files appear whole or not at all: temporary name in the same folder, fsync, rename,
fsync of the folder.

    write_cell(cell, rows, provenance)     # replaces a stored cell only once the new one is complete
    cell_status(cell, fingerprint, config) # "missing" | "stored" | "stale" | "damaged"
    read_records(cell)                     # rows, checked against the hash; raises DamagedCell
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

RECORDS, TENSORS, PROVENANCE = "records.jsonl", "tensors.safetensors", "provenance.json"
MAX_NAME = 180  # bytes; file systems stop at 255, and temporary names are longer


class DamagedCell(ValueError):
    """A stored file is not what was written."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader, at any moment and after any crash, sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def value_name(value) -> str:
    """A value as part of a file name: nothing but letters, digits and `.-_~%`, and different for different values."""
    if isinstance(value, bool):
        return str(value).lower()
    return quote(str(value), safe="")


def name(parts: Mapping[str, Iterable]) -> str:
    """`k=v1,v2` joined by `__`, or "default" for no parts; a longer name than file systems take ends in its hash."""
    text = "__".join(f"{key}={','.join(map(value_name, values))}" for key, values in parts.items()) or "default"
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 26]}__sha256={sha256(text.encode())[:16]}"


def cell_name(config: Mapping, defaults: Mapping) -> str:
    """The folder of a configuration: only the fields that differ from their default are named."""
    return name({key: [value] for key, value in config.items() if value != defaults[key]})


def record_row(config: Mapping, record) -> dict:
    """The configuration merged into a record, as plain JSON values; NaN and double keys are refused."""
    if not isinstance(record, Mapping):
        raise TypeError(f"a record must be a dict, not {type(record).__name__}")
    if both := sorted(set(config) & set(record)):
        raise ValueError(f"record key {both[0]!r} is also a field of Config; rename one of them")
    return {**config, **{key: _plain(value, key) for key, value in record.items()}}


def _plain(value, key: str):
    """The value as JSON types; raises where it would not be read back as the same number."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"record value {key!r} is {value}")
    if isinstance(value, list | tuple):
        return [_plain(item, key) for item in value]
    if isinstance(value, Mapping):
        return {str(inner): _plain(item, f"{key}.{inner}") for inner, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"record value {key!r} is a {type(value).__name__}; numbers, text, lists and dicts can be stored")


def write_cell(cell: Path, rows: list[dict], provenance: Mapping, tensors: Mapping | None = None) -> None:
    """Store a cell whole. Until the new one is complete on disk, a stored one stays untouched."""
    records = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    packed = _packed(tensors) if tensors else b""
    stamped = {**provenance, "records": {"sha256": sha256(records), "rows": len(rows)}}
    if tensors:
        shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
        stamped["tensors"] = {"sha256": sha256(packed), "shapes": shapes}
    text = json.dumps(stamped, indent=2, allow_nan=False) + "\n"
    fresh = cell.with_name(f".{cell.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        write_bytes(fresh / RECORDS, records)
        if tensors:
            write_bytes(fresh / TENSORS, packed)
        write_text(fresh / PROVENANCE, text)
        _replace_folder(fresh, cell)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace_folder(fresh: Path, cell: Path) -> None:
    """Folders cannot be exchanged in one step: the old one steps aside, and `recover` brings it back after a crash."""
    aside = _aside(cell)
    if cell.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(cell, aside)
    os.rename(fresh, cell)
    _sync_folder(cell.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(cell: Path) -> Path:
    return cell.with_name(f".{cell.name}.old")


def recover(cell: Path) -> None:
    """Bring back a complete cell that stepped aside for one that never came."""
    if not cell.exists() and (_aside(cell) / PROVENANCE).is_file():
        try:
            os.rename(_aside(cell), cell)
        except OSError:
            if not cell.exists():  # else another process was faster
                raise


def read_provenance(cell: Path) -> dict | None:
    """What made the cell; None if it is not complete."""
    path = cell / PROVENANCE
    if not path.is_file():
        return None
    try:
        provenance = json.loads(path.read_bytes())
        provenance["records"]["sha256"], provenance["fingerprint"], provenance["config"]
    except (ValueError, KeyError, TypeError):
        raise DamagedCell(f"{path} is not a provenance file; --rerun recomputes the cell") from None
    return provenance


def read_records(cell: Path) -> list[dict]:
    """All rows of a complete cell, exactly as they were written."""
    provenance = read_provenance(cell)
    path = cell / RECORDS
    if provenance is None or not path.is_file():
        raise DamagedCell(f"{path} is missing or incomplete; --rerun recomputes the cell")
    data = path.read_bytes()
    _check(path, data, provenance["records"]["sha256"], "; --rerun recomputes the cell")
    return [json.loads(line) for line in data.splitlines()]


def read_tensors(cell: Path) -> dict:
    """All tensors of a complete cell, checked; an empty dict for a cell without any."""
    data = _tensor_bytes(cell, read_provenance(cell))
    if not data:
        return {}
    from safetensors.torch import load

    return load(data)


def _tensor_bytes(cell: Path, provenance: dict | None) -> bytes:
    path = cell / TENSORS
    if provenance is None:
        raise DamagedCell(f"{cell} is missing or incomplete; --rerun recomputes the cell")
    if "tensors" not in provenance:
        return b""
    if not path.is_file():
        raise DamagedCell(f"{path} is missing; --rerun recomputes the cell")
    data = path.read_bytes()
    _check(path, data, provenance["tensors"]["sha256"], "; --rerun recomputes the cell")
    return data


def _check(path: Path, data: bytes, wanted: str, remedy: str = "") -> None:
    if (found := sha256(data)) != wanted:
        was = f"sha256 {found[:12]}, recorded {str(wanted)[:12]}"
        raise DamagedCell(f"{path} was changed after it was written ({was}){remedy}")


def cell_status(cell: Path, fingerprint: str, config: Mapping) -> str:
    """ "missing", "stored" (complete, by this code), "stale" (by other code or other defaults) or "damaged"."""
    try:
        provenance = read_provenance(cell)
        if provenance is None:
            return "missing"
        read_records(cell)
        _tensor_bytes(cell, provenance)
    except DamagedCell:
        return "damaged"
    same = provenance["fingerprint"] == fingerprint and provenance["config"] == dict(config)
    return "stored" if same and not _moved_on(cell, provenance) else "stale"


def sums(cell: Path) -> dict[str, str]:
    """sha256 of a complete cell's records, and of its tensors if it has any, as recorded."""
    made = read_provenance(cell)
    return {key: made[key]["sha256"] for key in ("records", "tensors") if key in made}


def _moved_on(cell: Path, provenance: Mapping) -> bool:
    """Whether a cell that this one was made from has been made anew since with other content; absent ones count not."""
    for name, recorded in provenance.get("made_from", {}).items():
        source = cell.parent.parent.joinpath(*name.split("/"))
        if (source / PROVENANCE).is_file() and sums(source) != recorded:
            return True
    return False


def _packed(tensors: Mapping) -> bytes:
    from safetensors.torch import save

    # Copies: safetensors refuses tensors that share memory, as a row of a stored matrix does.
    return save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()})
