"""Cores that this process may use: those of the machine, within the time that control groups grant."""

import os
from pathlib import Path

from mechsub.machine import control_groups


def allowed() -> int:
    """Cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def granted(own: Path = control_groups.OWN, root: Path = control_groups.ROOT) -> float | None:
    """Time that control groups grant, in cores: the smallest limit of this group and those around it; None: no limit.

    A container with half a core still sees every core of its machine.
    """
    limits = [_limit(folder) for folder in control_groups.folders("cpu", own, root)]
    return min((limit for limit in limits if limit is not None), default=None)


def usable() -> int:
    """Threads that can run at once."""
    limit = granted()
    return max(1, int(min(allowed(), allowed() if limit is None else limit)))


def _limit(folder: Path) -> float | None:
    quota = control_groups.text(folder / "cpu.max").split()
    quota = quota or [control_groups.text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    return int(quota[0]) / int(quota[1]) if all(word.isdigit() for word in quota) else None
