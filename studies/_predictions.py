"""Verdicts on the predictions of a study whose records hold several arms, from predictions.toml.

A prediction names its study. `factor` is a key of the records (an option, or "arm", "steps", ...), `levels` are its
values in order, `where` pins other keys, `score` is what is compared (accuracy where none is named). Every group of
records that differ in nothing else is judged, by the rules at the head of predictions.toml.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from studies import _factors_report as report


def of(study: str) -> list[dict]:
    """The predictions of a study."""
    return [p for p in report.told().get("prediction", []) if p.get("study", "factors") == study]


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
    ends, margin = report._paired(students[-1], students[0]), report.told()["margin"]
    where = "".join(f", {key}={value}" for key, value in pinned.items())
    yield {
        "cell": f"prediction: {factor} {' to '.join(map(str, levels))}{where}",
        "score": score,
        "difference": ends.interval,
        "predicted": prediction["direction"],
        "verdict": report.verdict(prediction["direction"], students, [], prediction.get("margin", margin)),
    }
