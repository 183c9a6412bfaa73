"""The commands of `python -m mechsub`, one a file: `add` declares the options of the command, `run` does its work."""

from pathlib import Path

from mechsub.lab import terminal


def folder(path: str) -> Path:
    """A folder that is there; the command stops where it is not."""
    root = Path(path).expanduser()
    if not root.is_dir():
        terminal.stop(f"{root} is not a folder", 2)
    return root
