"""A lease: while a process holds that of a cell, no other makes the cell.

    with lease.hold(cell) as check:   # waits while another process holds it
        ...
        check()                       # raises Lost if another process has taken it over

Leases are files `<study>/.leases/<cell>.<n>` with their owner's name. Each is created with `link`, which only one
process can win, on network file systems too. The highest n holds. The lease of a dead process is not removed by those
who want it: they try to create n + 1, so exactly one of them takes over, and the old holder, should it still live, sees
n + 1 and writes nothing. Who lets go removes all of them.

A process of this machine is dead when no process has its number and its start time. Of another machine it is dead when
its heartbeat, the file's time, has stood still for STALE seconds of the observer's own clock; clocks are not compared.
"""

import contextlib
import functools
import hashlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = ".leases"
BEAT, STALE = 2.0, 10.0  # seconds

_watched: dict[Path, tuple[tuple, float]] = {}  # leases of other machines: what was seen, and since when


class Lost(RuntimeError):
    """Another process has taken the cell over."""


# Processes.


def owner() -> str:
    """The name of this process among all processes of all machines, fit for file names."""
    return f"{_machine()}-{_boot()}-{os.getpid()}-{_started(os.getpid())}"


def alive(name: str) -> bool | None:
    """Whether the process of that name lives; None if it is not of this machine."""
    machine, boot, pid, started = (*name.split("-"), "", "", "")[:4]
    if machine != _machine() or not pid.isdigit():
        return None
    return boot == _boot() and started == _started(int(pid))


@functools.cache
def _machine() -> str:
    """One kernel's process numbers: containers have their own, and may share the machine's name."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
        machine = Path("/etc/machine-id").read_text() if os.path.exists("/etc/machine-id") else ""
    except OSError:  # no Linux: nothing is known of other processes, so that heartbeats decide
        return uuid.uuid4().hex[:12]
    return hashlib.sha256(f"{platform.node()} {machine} {numbers}".encode()).hexdigest()[:12]


@functools.cache
def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text()[:8] if path.is_file() else ""


def _started(pid: int) -> str:
    """Clock ticks from boot to the start of a process, since numbers are used again; "" if it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


# Leases.


@contextlib.contextmanager
def hold(cell: Path, wait: bool = True) -> Iterator[Callable[[], None]]:
    """Hold the lease of a cell, whose folder need not exist. Where another process has it: wait, or raise Lost."""
    while (lease := _acquire(cell)) is None:
        if not wait:
            raise Lost(f"another process makes {cell}")
        time.sleep(0.05)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(lease[0], stop), daemon=True)
    beat.start()
    try:
        yield lambda: _check(*lease)
    finally:
        stop.set()
        beat.join()
        _release(*lease)


def held(cell: Path) -> str | None:
    """Who holds the lease of a cell at the moment, for people; None if nobody does."""
    generations = _generations(cell)
    if not generations:
        return None
    path = generations[max(generations)]
    text = _read(path)
    if not text or not _lives(path, text):
        return None
    return text.partition(" ")[2].rpartition(" ")[0] or "another process"


def abandoned(folder: Path) -> set[Path]:
    """Cells of a study with leases that nobody holds any more; removes the folder of leases if it is empty."""
    _tidy(folder)
    leases = [path for path in _list(folder / FOLDER) if not path.name.startswith(".")]
    return {cell for cell in {_cell(path) for path in leases} if not held(cell)}


def _cell(path: Path) -> Path:
    return path.parent.parent / path.name.rpartition(".")[0]


def _acquire(cell: Path) -> tuple[Path, str] | None:
    """The new lease of this process and its text, or None if another process holds it or was faster."""
    before = _generations(cell)
    last = max(before, default=0)
    seen = _read(before[last]) if last else ""
    if seen.partition(" ")[0] == owner():
        raise RuntimeError(f"{cell} is made from itself")
    if last and (not seen or _lives(before[last], seen)):
        return None
    path = cell.parent / FOLDER / f"{cell.name}.{last + 1}"
    text = f"{owner()} process {os.getpid()} on {platform.node()} {uuid.uuid4().hex}"
    if not _create(path, text):
        _tidy(cell.parent)
        return None
    after = _generations(cell)
    # If the lease seen above was let go meanwhile, there was nothing to take over, and another process may hold 1.
    if max(after, default=0) != last + 1 or (last and (last not in after or _read(after[last]) != seen)):
        _unlink(path)
        _tidy(cell.parent)
        return None
    return path, text


def _create(path: Path, text: str) -> bool:
    """Whether this process created the file: it appears with its text, and once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".lease.{owner()}.tmp")
    try:
        draft.write_text(text)
        os.link(draft, path)
    except FileExistsError:
        return _read(path) == text  # a network file system may repeat a request that succeeded
    except FileNotFoundError:
        return False  # another process let go of the last lease and removed the folder
    finally:
        draft.unlink(missing_ok=True)
    return True


def _generations(cell: Path) -> dict[int, Path]:
    """The leases of a cell by number."""
    found = ((path.name.rpartition("."), path) for path in _list(cell.parent / FOLDER))
    return {int(number): path for (name, _, number), path in found if name == cell.name and number.isdigit()}


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _lives(path: Path, text: str) -> bool:
    """Whether who wrote that text lives. A lease that was let go since is no dead one: nothing is to be taken over,
    and to try would make the next holder believe, for a moment, that it has lost."""
    state = alive(text.partition(" ")[0])
    if state is False:  # it may have let go before it ended, since its lease was read; the dead cannot let go
        return _read(path) != text
    if state:
        return True
    try:
        sign = (text, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return True
    now = time.monotonic()
    if path not in _watched or _watched[path][0] != sign:
        _watched[path] = (sign, now)
    return now - _watched[path][1] < STALE


def _beat(path: Path, stop: threading.Event) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)  # the file, not its name, which may become that of another's lease
    except OSError:
        return
    while not stop.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(handle)
    os.close(handle)


def _check(path: Path, text: str) -> None:
    cell = _cell(path)
    if not cell.parent.exists():
        raise FileNotFoundError(f"{cell.parent} has vanished")
    if _read(path) != text or max(_generations(cell), default=0) > int(path.name.rpartition(".")[2]):
        raise Lost(f"another process took {cell} over")


def _release(path: Path, text: str) -> None:
    """Let go: remove the lease and those that it took over, the oldest first, so that ours is highest to the end."""
    try:
        _check(path, text)
    except (Lost, FileNotFoundError):
        return
    for _, lease in sorted(_generations(_cell(path)).items()):
        _unlink(lease)
    _tidy(path.parent.parent)


def _tidy(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or other leases are in it
        (folder / FOLDER).rmdir()


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
    _watched.pop(path, None)
