"""The expected time of cells: the time of the most similar stored cell of the study."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mechsub.lab import store

MOST = 50  # stored cells that are looked at, the newest


class Known(NamedTuple):
    options: frozenset
    seconds: float


def known(folder: Path) -> list[Known]:
    """Seconds of the newest stored cells of a study, and their options."""
    found: list[tuple[float, Known]] = []
    for path in folder.glob("*/provenance.json") if folder.is_dir() else ():
        try:
            made = store.read_provenance(path.parent) or {}
            seconds, options = float(made["seconds"]), _items(made["config"])
            found.append((path.stat().st_mtime, Known(options, seconds)))
        except (store.DamagedCell, OSError, KeyError, TypeError, ValueError, AttributeError):
            continue  # a cell that says no time, or is replaced just now: another one is looked at
    newest = sorted(found, key=lambda item: item[0], reverse=True)[:MOST]
    return [one for _, one in newest if math.isfinite(one.seconds)]


def expected(options: Mapping, like: list[Known]) -> float | None:
    """Seconds of the known cell that shares most options with these (the mean of several); None without known cells."""
    if not like:
        return None
    own = _items(options)
    shared = [len(own & one.options) for one in like]
    nearest = [one.seconds for one, n in zip(like, shared, strict=True) if n == max(shared)]
    return sum(nearest) / len(nearest)


def _items(options: Mapping) -> frozenset:
    return frozenset((name, str(value)) for name, value in options.items())


def words(seconds: float) -> str:
    """A time in a unit for people: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
