"""Free memory: of the machine, and within the control group of a container or a Slurm job."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from mechsub import arguments
from mechsub.machine import control_groups

_KEYS = (  # limit, usage, and the part of the usage that is given back on demand; versions 2 and 1 of control groups
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes() -> int:
    """Bytes that this process can still take before the system ends it."""
    return min([psutil.virtual_memory().available, *_left_in_groups()])


def shortage(needed: int | float) -> str:
    """ "more than 50 GiB are needed, and 20 GiB are free", or nothing where the memory is enough.

    Call it before anything is made: the system takes minutes to run out of memory, and then ends the process without
    a message.
    """
    arguments.number(needed, "needed", "a number of bytes", least=0)
    free = free_bytes()
    return "" if needed <= free else f"more than {gib(needed)} are needed, and {gib(free)} are free"


def gib(n: int | float) -> str:
    """Bytes as a reader says them."""
    arguments.number(n, "n", "a number of bytes", least=0)
    return f"{n / 2**30:.3g} GiB"


def _left_in_groups(own: Path = control_groups.OWN, root: Path = control_groups.ROOT) -> Iterator[int]:
    for folder in control_groups.folders("memory", own, root):
        for limit, usage, cache in _KEYS:
            most, used = (control_groups.text(folder / name).strip() for name in (limit, usage))
            if most.isdigit() and used.isdigit():
                statistics = control_groups.text(folder / "memory.stat")
                given_back = re.search(rf"^{cache} (\d+)$", statistics, re.MULTILINE)
                yield int(most) - int(used) + (int(given_back[1]) if given_back else 0)
