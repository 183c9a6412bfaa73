"""Names of processes, unique among all machines and fit for file names; and whether a named process still lives.

filelock keeps such names for its locks and has no public function for them; temporary files need them too.
"""

import functools
import hashlib
import os
import platform
import uuid
from pathlib import Path


def owner() -> str:
    """The name of this process."""
    return f"{_machine()}-{_boot()}-{os.getpid()}-{_started(os.getpid())}"


def alive(name: str) -> bool | None:
    """Whether the process of that name lives; None if it runs on another machine."""
    machine, boot, pid, started = (*name.split("-"), "", "", "")[:4]
    if machine != _machine() or not pid.isdigit():
        return None
    return boot == _boot() and started == _started(int(pid))


@functools.cache
def _machine() -> str:
    """The name of one kernel's process numbers: containers have their own numbers, and may share the machine's name."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
        machine = Path("/etc/machine-id").read_text() if os.path.exists("/etc/machine-id") else ""
    except OSError:  # this is no Linux, and nothing is known of other processes
        return uuid.uuid4().hex[:12]
    return hashlib.sha256(f"{platform.node()} {machine} {numbers}".encode()).hexdigest()[:12]


@functools.cache
def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text()[:8] if path.is_file() else ""


def _started(pid: int) -> str:
    """Clock ticks from boot to the start of a process; "" if it is dead or a zombie.

    The system reuses a process's number after its death, so the number alone is no name. psutil gives the start in
    seconds of the wall clock, which shifts whenever the clock is set.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
