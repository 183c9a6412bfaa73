"""What predictions.toml holds: entries for mechsub.lab.verdicts, and predictions on studies without findings."""

import functools
import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mechsub.lab import verdicts
from mechsub.lab.findings import Cell, Finding

FILE = Path(__file__).parent / "predictions.toml"
Scores = dict[int, float]  # member -> score


@functools.cache
def told() -> dict:
    """The whole file."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@functools.cache
def entries() -> list[verdicts.Entry]:
    """The entries of the file, of which mechsub.lab.verdicts is the judge."""
    return verdicts.read(FILE)


def rows(study: str, cells: Iterable[Cell]) -> list[dict]:
    """Rows of a study's table: the verdict on every entry that its cells speak of."""
    cells = list(cells)
    judged = (verdict for entry in entries() if entry.study == study for verdict in verdicts.judge(entry, cells))
    return verdicts.rows(judged)


def of(study: str) -> list[dict]:
    """The predictions on a study that has no findings yet: that of factors."""
    return [p for p in told().get("prediction", []) if p.get("study", "factors") == study]


# The rules.


def paired(a: Scores, b: Scores):
    """Paired by the seeds that both have; None for fewer than two."""
    from mechsub import stats

    common = sorted(a.keys() & b.keys())
    return stats.paired_difference([a[i] for i in common], [b[i] for i in common]) if len(common) > 1 else None


def _levels(scores: Iterable[Scores]) -> list[Finding]:
    """Scores of levels as the judge reads them."""
    return [Finding(f"level_{place}/score", "", None, scores=own) for place, own in enumerate(scores)]


def verdict(direction: str, students: list[Scores], nulls: list[Scores], margin: float) -> str:
    """ "hit", "miss" or "open", by the rules at the head of predictions.toml; one dict of scores for every level."""
    return verdicts.trend(direction, _levels(students), _levels(nulls), margin=margin)[0]


def rank(students: list[Scores]) -> float:
    """Spearman's correlation of the order of levels with their means; 0 where all are equal."""
    return verdicts.rank(_levels(students))


def mean(scores: Scores) -> float:
    return math.fsum(scores.values()) / len(scores)


def turns(levels: Sequence, students: list[Scores]) -> dict[str, str]:
    """{"turns": steps from a level to the next that go against the difference of the ends}; {} where there are none."""
    found = verdicts.turns(dict(zip(levels, _levels(students), strict=True)))
    return {"turns": found} if found else {}
