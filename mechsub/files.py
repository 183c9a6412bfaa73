"""Files: written whole, summed by sha256, and noted as inputs of a computation.

write_text(path, text)         # the old content or the new one, after any crash
file_sum(path)                 # sha256, kept for a large file whose size, times and inode are unchanged
with noting() as inputs: ...   # the inputs that mechsub's loaders read meanwhile, by name, with their sums
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mechsub import processes

LARGE = 2**20  # bytes, from which on a sum is kept on disk
SETTLED = 2.0  # seconds: a file that was written just now may be written again within the same tick of its clock

_sums: dict[Path, tuple[tuple[int, ...], str]] = {}
_open: list[dict[str, dict]] = []


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader, at any moment and after any crash, sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into; it gets its name when it is whole. Raises FileExistsError where the name exists."""
    path = path.absolute()
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise FileExistsError(f"{path} is there already; give the name of a new folder")
    fresh = temporary_path(path)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        os.rename(fresh, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(path: Path, names: Collection[str]) -> Iterator[Path]:
    """A folder to write these files into; when it is whole, it takes the place of one that holds no others.

    After a crash the name stands for the old folder, for none or for the new one. Raises FileExistsError for a name of
    something else, whose content would be lost.
    """
    path = path.resolve()
    if path.exists() and (other := "a file" if not path.is_dir() else _other(path, names)):
        raise FileExistsError(f"{path} holds {other}, which would be lost; give the name of a new folder")
    fresh, aside = temporary_path(path), temporary_path(path.with_name(f"{path.name}.old"))
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if path.exists():
            os.rename(path, aside)
        os.rename(fresh, path)
        shutil.rmtree(aside, ignore_errors=True)
        sync_folder(path.parent)
    finally:
        if aside.exists() and not path.exists():
            os.rename(aside, path)
        shutil.rmtree(fresh, ignore_errors=True)


def _other(folder: Path, names: Collection[str]) -> str | None:
    """A name in the folder that is none of these."""
    return next((each.name for each in sorted(folder.iterdir()) if each.name not in names), None)


def temporary_path(path: Path) -> Path:
    """A name that no other process uses; other processes see by it whether its maker lives."""
    return path.with_name(f".{path.name}.{processes.owner()}.tmp")


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cache_folder() -> Path:
    """$MECHSUB_CACHE, else ~/.cache/mechsub."""
    named = os.environ.get("MECHSUB_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "mechsub"


def file_sum(path: Path) -> str:
    """sha256 of a file.

    The sum is kept with the file's size, times (of content and of status) and inode, in this process and, for a file
    of a megabyte and more, in the cache folder. It is computed again where one of these has changed.
    """
    state = _state(path)
    value = kept_sum(path)
    if value is None:
        value = sum_anew(path)
    keep_sum(path, value, state)
    return value


def sum_anew(path: Path) -> str:
    """The sum of a file, computed anew: a kept sum does not show damage by a disk or a copy since."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept_sum(path: Path) -> str | None:
    """The sum that `file_sum` kept, if the file's size, times and inode are unchanged; else None."""
    path = path.resolve()
    state = _state(path)
    if path in _sums and _sums[path][0] == state:
        return _sums[path][1]
    kept = _kept(path) if state[0] >= LARGE else None
    return kept["sha256"] if kept and tuple(kept["state"]) == state else None


def keep_sum(path: Path, value: str, state: tuple[int, ...] | None = None) -> None:
    """Keep a sum that was computed just now, for `file_sum`."""
    path = path.resolve()
    state = state or _state(path)
    if _state(path) != state or time.time() - max(state[1:3]) / 1e9 < SETTLED:
        return
    known = _sums.get(path)
    _sums[path] = state, value
    if state[0] >= LARGE and known != _sums[path] and (_kept(path) or {}).get("state") != list(state):
        with contextlib.suppress(OSError):  # a folder that cannot be written costs time, nothing else
            write_text(_sum_file(path), json.dumps({"path": str(path), "state": state, "sha256": value}) + "\n")


def _state(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _sum_file(path: Path) -> Path:
    return cache_folder() / "sums" / f"{sha256(str(path).encode())[:32]}.json"


def _kept(path: Path) -> dict | None:
    try:
        kept = json.loads(_sum_file(path).read_text())
        return kept if kept["path"] == str(path) and kept["state"] and kept["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# What is read.


def note(kind: str, name: str, sums: Mapping[str, str], place: Path | None = None) -> None:
    """Note that `name` is read, with the sums of its files. A loader calls this every time, also if it keeps the data.

    place: the folder or file behind a name that means something else on other machines.
    Raises ValueError where the same input had other sums earlier in the same computation.
    """
    entry = {"sha256": dict(sums), **({"place": place_sum(place)} if place else {})}
    for inputs in _open:
        if inputs.setdefault(f"{kind} {name}", entry) != entry:
            raise ValueError(f"the {kind} {name} changed while it was used; run the same command again")


def note_files(pattern: str) -> None:
    """Note the files that a path with `*` in its last part names, for files that no loader notes.

    Raises ValueError where it names no file: a study would read files that nobody noted.
    """
    sums = file_sums(pattern)
    if not sums:
        raise ValueError(f"{pattern} names no file; give a path, with * in its last part alone")
    note("files", pattern, sums, Path(pattern).expanduser().parent)


def file_sums(pattern: str) -> dict[str, str]:
    """Name -> sha256 of these files."""
    path = Path(pattern).expanduser()
    named = [path] if path.is_file() else sorted(path.parent.glob(path.name))  # a name may hold [1]
    return {each.name: file_sum(each) for each in named if each.is_file()}


def place_sum(place: Path) -> str:
    """The sum of a place, in which its path cannot be read."""
    return sha256(str(place.resolve()).encode())[:16]


@contextlib.contextmanager
def noting() -> Iterator[dict[str, dict]]:
    """Collect the inputs noted within this context, by all threads of this process."""
    inputs: dict[str, dict] = {}
    _open.append(inputs)
    try:
        yield inputs
    finally:
        _open[:] = [other for other in _open if other is not inputs]
