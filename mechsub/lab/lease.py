"""Leases: while a process holds the lease of a cell, no other process makes the cell.

    with lease.hold(cell) as check:   # waits while another process holds the lease
        ...
        check()                       # raises Lost if another process has taken the lease over

The lease is filelock's `SoftFileLease` in a hidden file beside the cell. Another process of this machine sees at once
that a holder is dead. Another machine waits until the holder has sent no heartbeat for STALE seconds of its own clock.
"""

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

BEAT, STALE = 2.0, 10.0  # seconds; all processes that share a store must agree on the second
SUFFIX = ".lease"
# filelock takes a lease over by way of files with these names; a process that is killed just then leaves one.
_HIDDEN = re.compile(rf"\.(?P<cell>.+){re.escape(SUFFIX)}(?P<trace>\.(break|restore)\.\d+\.[0-9a-f]+)?")

_empty: dict[Path, tuple[tuple[int, int, int], float]] = {}  # leases without a text: their file, and since when


class Lost(RuntimeError):
    """Another process has taken the cell over."""


@contextlib.contextmanager
def hold(cell: Path, wait: bool = True) -> Iterator[Callable[[], None]]:
    """Hold the lease of a cell, whose folder need not exist. Where another process has it: wait, or raise Lost."""
    lock = _lock(cell)
    if lock.is_locked:
        raise RuntimeError(f"{cell} is made from itself")
    while not _acquire(lock, 1.0 if wait else 0.0):
        if not wait:
            raise Lost(f"another process makes {cell}")
    token = lock.token
    try:
        yield lambda: _check(cell, lock, token)
    finally:
        lock.release()


def held(cell: Path) -> str | None:
    """Name the holder of a cell's lease for people; None if nobody holds it."""
    lock = _lock(cell)
    if (holder := lock.owner) is None:
        return None
    if not lock.is_locked:
        if _acquire(lock, 0.0):
            lock.release()
            return None
        holder = lock.owner or holder
    return f"process {holder.pid} on {holder.hostname.partition('?')[0]}"


def leased(folder: Path) -> set[Path]:
    """The cells of a study that have a lease of any process, or traces of a lease."""
    found = (_HIDDEN.fullmatch(path.name) for path in folder.glob(f".*{SUFFIX}*"))
    return {folder / match["cell"] for match in found if match}


def remove_traces(cell: Path) -> None:
    """Remove the traces of processes that were killed while they took the lease over. Needs the lease."""
    for path in cell.parent.glob(f".*{SUFFIX}.*"):
        match = _HIDDEN.fullmatch(path.name)
        if match and match["cell"] == cell.name and match["trace"]:
            path.unlink(missing_ok=True)


def is_lease(path: Path) -> bool:
    """Whether a file is a lease or the trace of one."""
    return _HIDDEN.fullmatch(path.name) is not None


def _lock(cell: Path) -> filelock.SoftFileLease:
    return _lock_of(str(cell.absolute()), os.getpid(), STALE, BEAT)


@functools.cache  # the same object watches a silent holder from one call to the next; a fork needs its own
def _lock_of(cell: str, pid: int, stale: float, beat: float) -> filelock.SoftFileLease:
    folder, name = os.path.split(cell)
    path = os.path.join(folder, f".{name}{SUFFIX}")
    return filelock.SoftFileLease(path, lease_duration=stale, heartbeat_interval=beat, thread_local=False)


def _acquire(lock: filelock.SoftFileLease, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout:
        _fill_empty(Path(lock.lock_file))
        return False
    except FileNotFoundError:  # another process has just removed the study's empty folder
        return False
    return True


def _fill_empty(path: Path) -> None:
    """Give a lease that has been empty for STALE seconds a text, so that filelock takes it over as a broken one.

    A process that is killed between the creation of its lease and the first byte leaves an empty file. filelock (4.3.1)
    never takes over an empty file, because its versions before 3.22 wrote such files.
    """
    try:
        with open(path, "r+") as file:
            now = os.fstat(file.fileno())
            sign = (now.st_ino, now.st_mtime_ns, now.st_ctime_ns)
            if now.st_size == 0 and _empty.setdefault(path, (sign, time.monotonic()))[0] != sign:
                _empty[path] = (sign, time.monotonic())
            elif now.st_size == 0 and time.monotonic() - _empty[path][1] >= STALE:
                file.write("its process was killed\n")
    except OSError:
        pass


def _check(cell: Path, lock: filelock.SoftFileLease, token: str | None) -> None:
    if not cell.parent.exists():
        raise FileNotFoundError(f"{cell.parent} has vanished")
    holder = lock.owner
    if token is None or holder is None or holder.token != token:
        raise Lost(f"another process took {cell} over")
