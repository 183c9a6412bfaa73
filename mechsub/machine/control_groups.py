"""Control groups: Linux's limits on containers and Slurm jobs, which psutil does not know."""

import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def folders(controller: str, own: Path = OWN, root: Path = ROOT) -> list[Path]:
    """Folders of this process's group and of the groups around it, the innermost first, in versions 2 and 1.

    Each group may have a limit, and the smallest limit counts.
    """
    found = []
    for controllers, group in re.findall(r"^\d+:(.*?):(/.*)$", text(own), re.MULTILINE):
        if not controllers or controller in controllers.split(","):  # version 2 names no controllers
            top = root / controllers
            inner = top / group.lstrip("/")
            found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return found


def text(path: Path) -> str:
    """The text of a file of the kernel, or nothing where there is no such file."""
    try:
        return path.read_text()
    except OSError:
        return ""
