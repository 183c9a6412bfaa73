"""The predictions of predictions.toml: the rules of their verdicts, and those on studies with several arms.

A prediction names its study (factors where none is named). `factor` is a key of the records (an option, or "arm",
"steps", ...), `levels` are its values in order, `where` pins other keys, `score` is what is compared (accuracy where
none is named). Every group of records that differ in nothing else is judged, by the rules at the head of the file.
"""

import dataclasses
import functools
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources

Scores = dict[int, float]  # member -> score


@functools.cache
def told() -> dict:
    """The whole file."""
    return tomllib.loads(resources.files("studies").joinpath("predictions.toml").read_text(encoding="utf-8"))


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


def verdict(direction: str, students: list[Scores], nulls: list[Scores], margin: float) -> str:
    """ "hit", "miss" or "open", by the rules at the head of predictions.toml; one dict of scores for every level."""
    if direction == "works":
        above = [paired(own, null) for own, null in zip(students, nulls, strict=True)]
        return "hit" if all(pair is not None and pair.interval.low > 0 for pair in above) else "miss"
    if direction == "peak":
        return _peak(students)
    ends = paired(students[-1], students[0])
    if ends is None:
        return "open"
    low, high = ends.interval.low, ends.interval.high
    if direction == "none":
        return "hit" if -margin <= low and high <= margin else "miss" if low > margin or high < -margin else "open"
    sign = {"increases": 1, "decreases": -1}[direction]
    low, high = sorted((sign * low, sign * high))
    if low > 0 and sign * rank(students) > 0:
        return "hit"
    return "miss" if high < 0 else "open"


def _peak(students: list[Scores]) -> str:
    means = [mean(s) for s in students]
    inner = means[1:-1]
    if not inner:
        return "open"
    best = students[1 + inner.index(max(inner))]
    over = [paired(best, end) for end in (students[0], students[-1])]
    if all(pair is not None and pair.interval.low > 0 for pair in over):
        return "hit"
    return "miss" if any(pair is not None and pair.interval.high < 0 for pair in over) else "open"


def rank(students: list[Scores]) -> float:
    """Spearman's correlation of the order of levels with their means; 0 where all are equal."""
    from scipy.stats import spearmanr

    from mechsub.stats import joined

    means = joined([mean(s) for s in students]).tolist()
    return float(spearmanr(range(len(means)), means).statistic) if len(set(means)) > 1 else 0.0


def mean(scores: Scores) -> float:
    return math.fsum(scores.values()) / len(scores)


def turns(levels: Sequence, students: list[Scores]) -> dict[str, str]:
    """{"turns": steps from a level to the next that go against the difference of the extremes, 95% interval without 0}.

    The rules of "increases", "decreases" and "none" do not see them. {} where there are none.
    """
    sign = math.copysign(1, mean(students[-1]) - mean(students[0]))
    found = []
    for (a, before), (b, after) in itertools.pairwise(zip(levels, students, strict=True)):
        step = paired(after, before)
        if step is not None and max(sign * step.interval.low, sign * step.interval.high) < 0:
            found.append(f"{a} to {b} {step.interval}")
    return {"turns": ", ".join(found)} if found else {}
