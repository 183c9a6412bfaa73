"""What predictions.toml holds: entries for mechsub.lab.verdicts, and predictions on studies without findings."""

import dataclasses
import functools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mechsub.lab import finder, verdicts
from mechsub.lab.findings import Cell, Finding

FILE = finder.folder() / "predictions.toml"
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


def verdict(direction: str, students: list[Scores], nulls: list[Scores], margin: float | int) -> str:
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


# Predictions about a swept option of studies.factors.


def swept(records: list[Mapping], Config) -> dict[str, list]:
    """The options that differ between cells, each with its levels: numbers ascending, others in their order."""
    found = {}
    for field in dataclasses.fields(Config):
        levels = list(dict.fromkeys(record[field.name] for record in records))
        if len(levels) > 1:
            number = all(isinstance(level, int | float) for level in levels)
            found[field.name] = sorted(levels) if number else levels
    return found


def score(factors: Mapping) -> str:
    """What cells are compared by: accuracy, unless chance differs between them."""
    return "kappa" if "n_classes" in factors else "accuracy"


def arm_scores(records: list[Mapping], arm: str, value: str) -> Scores:
    return {r["member"]: r[value] for r in records if r["arm"] == arm}


def judged_factors(records: list[Mapping], Config) -> Iterator[dict]:
    """A row for every prediction about a swept factor, in every group of cells that differ in this factor alone."""
    factors = swept(records, Config)
    for prediction in of("factors"):
        yield from judge_factor(prediction, records, factors)


def judge_factor(prediction: Mapping, records: list[Mapping], factors: Mapping[str, list]) -> Iterator[dict]:
    factor, value = prediction["factor"], score(factors)
    if factor not in factors:
        return
    others = [name for name in factors if name != factor]
    groups: dict[tuple, list[Mapping]] = {}
    for r in records:
        groups.setdefault(tuple(r[name] for name in others), []).append(r)
    for key, group in groups.items():
        if any(group[0][name] != wanted for name, wanted in prediction.get("where", {}).items()):
            continue
        levels = _named_levels(factors[factor], prediction)
        students = [arm_scores([r for r in group if r[factor] == level], "aux", value) for level in levels]
        nulls = [arm_scores([r for r in group if r[factor] == level], "cross_aux", value) for level in levels]
        if len(levels) > 1 and all(len(s) > 1 for s in students):
            at = dict(zip(others, key, strict=True))
            yield _verdict_row(prediction, levels, students, nulls, at, told()["margin"])


def _named_levels(levels: list, prediction: Mapping) -> list:
    """The levels that the prediction speaks of, in its order."""
    ordered = prediction.get("levels")
    return levels if ordered is None else [level for level in ordered if level in levels]


def _verdict_row(prediction: Mapping, levels: list, students: list, nulls: list, at: Mapping, margin: float) -> dict:
    where = "".join(f", {name}={level}" for name, level in at.items())
    ends = paired(students[-1], students[0])
    said = {"brief": prediction["brief"]} if "brief" in prediction else {}
    return {
        "cell": f"prediction: {prediction['factor']} {levels[0]} to {levels[-1]}{where}",
        "arm": "aux",
        "to the reference": ends.interval if ends else "",
        "rho": rank(students),
        "predicted": prediction["direction"],
        "verdict": verdict(prediction["direction"], students, nulls, margin),
        **{who: f"{way}: {verdict(way, students, nulls, margin)}" for who, way in said.items()},
        **turns(levels, students),
    }
