"""Cores that this process may use: those of the machine, and what a control group grants of their time."""

import os
import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allowed() -> int:
    """Cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def granted(group: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> float | None:
    """Cores' worth of time that control groups grant, the least of this process's and those around it; None: no limit.

    A container with half a core still sees every core of its machine.
    """
    limits = [_limit(folder) for folder in _groups(_text(group), root)]
    return min((limit for limit in limits if limit is not None), default=None)


def usable() -> int:
    """Threads that can run at once."""
    limit = granted()
    return max(1, int(min(allowed(), allowed() if limit is None else limit)))


def _groups(lines: str, root: Path) -> list[Path]:
    """Folders of the groups of versions 2 (no controllers named) and 1, the innermost first."""
    found = []
    for controllers, group in re.findall(r"^\d+:(.*?):(/.*)$", lines, re.MULTILINE):
        if not controllers or "cpu" in controllers.split(","):
            top = root / controllers
            inner = top / group.lstrip("/")
            found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return found


def _limit(folder: Path) -> float | None:
    quota = _text(folder / "cpu.max").split()
    quota = quota or [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    return int(quota[0]) / int(quota[1]) if all(word.isdigit() for word in quota) else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
