"""What predictions.toml holds: entries for mechsub.lab.verdicts, and how the law of the inputs is found."""

import functools
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence

from mechsub.lab import finder, verdicts
from mechsub.lab.findings import Cell, Finding

FILE = finder.folder() / "predictions.toml"


@functools.cache
def told() -> dict:
    """The whole file."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@functools.cache
def entries() -> list[verdicts.Entry]:
    """The entries of the file, of which mechsub.lab.verdicts is the judge."""
    return verdicts.read(FILE)


def rows(study: str, cells: Iterable[Cell], comparisons: Sequence[Finding] = ()) -> list[dict]:
    """Rows of a study's table: the verdict on every entry that its cells, or comparisons of them, speak of."""
    cells = [*cells, compared(comparisons)]
    judged = (verdict for entry in entries() if entry.study == study for verdict in verdicts.judge(entry, cells))
    return verdicts.rows(judged)


def compared(comparisons: Sequence[Finding]) -> Cell:
    """What is said of several cells together, for the judge: it has no options."""
    return Cell({}, [], findings=comparisons)


def mean(scores: Mapping) -> float:
    return math.fsum(scores.values()) / len(scores)
