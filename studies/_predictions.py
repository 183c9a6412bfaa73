"""The predictions of predictions.toml: the rules of their verdicts, and those on studies with several arms.

A prediction names its study (factors where none is named). `factor` is a key of the records (an option, or "arm",
"steps", ...), `levels` are its values in order, `where` pins other keys, `score` is what is compared (accuracy where
none is named). Every group of records that differ in nothing else is judged, by the rules at the head of the file.
"""

import dataclasses
import functools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """The predictions of a study."""
    return [p for p in told().get("prediction", []) if p.get("study", "factors") == study]


def judged(study: str, records: Iterable[Mapping], Config) -> Iterator[dict]:
    """A row for every prediction of the study that the records speak of, and every group of cells that it is about."""
    records = list(records)
    for prediction in of(study):
        yield from judge(prediction, records, Config)


def judge(prediction: Mapping, records: list[Mapping], Config) -> Iterator[dict]:
    # Which students a cell has beside others changes none of them.
    options = [field.name for field in dataclasses.fields(Config) if field.name not in ("seed", "arms")]
    score, pinned = prediction.get("score", "accuracy"), prediction.get("where", {})
    chosen = [r for r in records if score in r and all(r.get(key) == value for key, value in pinned.items())]
    others = [name for name in options if name != prediction["factor"]]
    groups: dict[tuple, list[Mapping]] = {}
    for r in chosen:
        groups.setdefault(tuple(r[name] for name in others), []).append(r)
    varied = [name for name in others if name not in pinned and len({r[name] for r in chosen}) > 1]
    for group in groups.values():
        yield from _row(prediction, group, {**pinned, **{name: group[0][name] for name in varied}}, score)


def _row(prediction: Mapping, group: list[Mapping], pinned: Mapping, score: str) -> Iterator[dict]:
    factor = prediction["factor"]
    levels = [level for level in prediction["levels"] if any(r[factor] == level for r in group)]
    if len(levels) < 2:
        return
    students = [{r["member"]: r[score] for r in group if r[factor] == level} for level in levels]
    ends, margin = paired(students[-1], students[0]), told()["margin"]
    where = "".join(f", {key}={value}" for key, value in pinned.items())
    yield {
        "cell": f"prediction: {factor} {' to '.join(map(str, levels))}{where}",
        "score": score,
        "difference": ends.interval,
        "predicted": prediction["direction"],
        "verdict": verdict(prediction["direction"], students, [], prediction.get("margin", margin)),
        **turns(levels, students),
    }


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
