"""The manifest of a folder that is sent from one machine to another: `manifest.json` has the sum of every file.

write(folder, {"studies": ...})   # lists all files that are there
checked(folder)                   # the manifest; raises Wrong where the folder is not what was sent
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from mechsub import files
from mechsub.machine import provenance

NAME = "manifest.json"
CELLS = "cells"  # the folder of stored cells within
FORMAT = 1


class Wrong(ValueError):
    """A folder is not what its manifest says."""


def write(folder: Path, about: Mapping[str, object]) -> None:
    """List every file of a folder, with the versions and the commit of the code that made it."""
    listed = {
        name: {"sha256": files.sum_anew(folder / name), "bytes": (folder / name).stat().st_size}
        for name in _names(folder)
    }
    content = {
        "format": FORMAT,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": provenance.versions(),
        "git": provenance.git_state(Path(__file__).parent),
        **about,
        "files": dict(sorted(listed.items())),
    }
    files.write_text(folder / NAME, json.dumps(content, indent=2, allow_nan=False) + "\n")


def checked(folder: Path) -> dict:
    """The manifest of a folder. Raises unless the folder holds exactly the files of the manifest, unchanged."""
    content = _read(folder / NAME)
    listed = content["files"]
    for name in listed:
        if not _stays_inside(name):
            raise Wrong(f"{folder / NAME} names {name!r}, which is no path within the folder")
    there = set(_names(folder)) - {NAME}
    if absent := sorted(set(listed) - there):
        raise Wrong(f"{folder / absent[0]} is missing; {NAME} lists it")
    if further := sorted(there - set(listed)):
        raise Wrong(f"{folder / further[0]} is not in {NAME}")
    for name, entry in listed.items():
        if (now := files.sum_anew(folder / name)) != entry["sha256"]:
            raise Wrong(f"{folder / name} is not what was sent (sha256 {now[:12]}, {NAME} has {entry['sha256'][:12]})")
    return content


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
        form = content["format"]
        sums = [entry["sha256"] for entry in content["files"].values()]
    except FileNotFoundError:
        raise Wrong(f"{path} is missing: the folder was not made by `python -m mechsub export`") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Wrong(f"{path} is not a manifest") from None
    if type(form) is not int or not all(isinstance(each, str) for each in sums):
        raise Wrong(f"{path} is not a manifest")
    if form > FORMAT:
        raise Wrong(f"{path} has format {form}, and this mechsub reads format {FORMAT}; update mechsub")
    return content


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


def _names(folder: Path) -> Iterator[str]:
    """Every file under a folder. A link could lead out of the folder: links and other non-files are refused."""
    for place, inner, names in os.walk(folder):
        for path in (Path(place, name) for name in (*inner, *names)):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise Wrong(f"{path} is a link or no plain file; it is not read")
        yield from (Path(place, name).relative_to(folder).as_posix() for name in names)
