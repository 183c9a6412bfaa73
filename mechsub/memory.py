"""Free memory: of the machine, and of the control group that a container or a Slurm job is held to."""

import re
from collections.abc import Iterator
from pathlib import Path

from mechsub import arguments

CGROUPS = Path("/sys/fs/cgroup")
_KEYS = {  # limit, usage, and the part of the usage that is given back on demand; version 2 and 1 of control groups
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_bytes() -> int | None:
    """What this process can still take before the system ends it; None where that is not known (no Linux)."""
    free = [_available(_text(Path("/proc/meminfo"))), *_left_in_groups(_text(Path("/proc/self/cgroup")), CGROUPS)]
    return min((value for value in free if value is not None), default=None)


def shortage(needed: int | float) -> str:
    """ "more than 50 GiB are needed, and 20 GiB are free", or nothing where the memory is enough or not known.

    To be asked before anything is made: the system takes minutes to run out of memory, and then ends the process
    without a word.
    """
    arguments.number(needed, "needed", "a number of bytes", least=0)
    free = free_bytes()
    fits = free is None or needed <= free
    return "" if fits else f"more than {_gib(needed)} are needed, and {_gib(free)} are free"  # type: ignore[arg-type]


def _gib(n: int | float) -> str:
    return f"{n / 2**30:.3g} GiB"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _available(meminfo: str) -> int | None:
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo)
    return int(found[1]) * 1024 if found else None


def _left_in_groups(groups: str, root: Path) -> Iterator[int]:
    """What is left in the group of this process and in those around it, each of which may have a limit."""
    for controllers, path in re.findall(r"^\d+:(.*?):(/.*)$", groups, re.MULTILINE):
        kind = "memory" if "memory" in controllers.split(",") else controllers
        if kind in _KEYS:
            limit, usage, cache = _KEYS[kind]
            top = root / kind
            inner = top / path.lstrip("/")
            for folder in (inner, *inner.parents):
                if not folder.is_relative_to(top):
                    break
                most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
                if most.isdigit() and used.isdigit():
                    given_back = re.search(rf"^{cache} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                    yield int(most) - int(used) + (int(given_back[1]) if given_back else 0)
