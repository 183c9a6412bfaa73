"""The figure of `studies.organisms`: the exchange of rows, the doses, and both directions by design."""

from collections.abc import Callable

import mechsub as ms
from mechsub.lab.figures.kinds import Panel
from studies.organisms import DOSES
from studies.organisms.findings import WAYS

WORDS = {"forward": "number to animal", "back": "animal to number"}


def plot(records: list[dict]):
    """The unit is the seed: the mean over its models."""
    scored = [row for row in records if "score" in row]
    colors: dict[str, str] = {}
    made = {
        "Do interactions follow rows that were exchanged?": _followed(scored),
        "Does an animal's row entangle?": _doses(scored, colors),
        "Do both directions agree?": _agreement(scored, colors),
    }
    panels = {title: panel for title, panel in made.items() if panel is not None}
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title="What entangles numbers and animals in small models",
        caption="Rows of W_U are random and held in models that are edited. The unit is the seed, the mean of its "
        "models; means with 95% Student-t intervals. Grey: nulls. Agreement: the correlation of the two interactions, "
        "without slopes.",
    )


def _by_seed(rows: list[dict], where: Callable[[dict], bool]) -> list[float]:
    found: dict[int, list[float]] = {}
    for row in rows:
        if where(row):
            found.setdefault(row["seed"], []).append(row["value"])
    return [sum(some) / len(some) for some in found.values()]


def _of(rows: list[dict], arm: str, score: str) -> list[float]:
    return _by_seed(rows, lambda row: row["arm"] == arm and row["score"] == score)


def _followed(rows: list[dict]) -> Panel | None:
    groups = {
        f"{words}: {what}": _of(rows, "exchanged", f"{way}_follows_{of}")
        for way, words in WORDS.items()
        for of, what in (("rows", "the rows"), ("number", "the number"))
    }
    return (
        ms.kinds.interval_panel(groups, "coefficient of the exchanged model's interaction", 0.0)
        if any(groups.values())
        else None
    )


def _doses(rows: list[dict], colors: dict[str, str]) -> Panel | None:
    drawn = [
        _point(f"{WORDS[way]}{more}", dose, _of(rows, arm, f"{way}_at_dose_{dose:g}"), null=arm == "random")
        for arm, more in (("orthogonal", ""), ("random", ", random rows (null)"))
        for way in WAYS
        for dose in DOSES
    ]
    titles = "dose of the row", "interaction of the pair, nats"
    return ms.kinds.band_panel(drawn, *titles, colors=colors) if all(drawn) else None


def _agreement(rows: list[dict], colors: dict[str, str]) -> Panel:
    lines: dict[tuple[str, int], list[dict]] = {}
    for row in sorted(rows, key=lambda row: (row["n_numbers"], row["tied"], row["d_model"])):
        if row["score"] == "agreement" and row["arm"] in ("trained", "untrained"):
            kind = f"{row['n_numbers']:,} numbers, {'tied' if row['tied'] else 'untied'}"
            name = "untrained" if row["arm"] == "untrained" else kind
            lines.setdefault((name, row["d_model"]), []).append(row)
    drawn = [
        _point(name, width, _by_seed(some, lambda row: True), null=name == "untrained")
        for (name, width), some in lines.items()
    ]
    return ms.kinds.band_panel(drawn, "width", "correlation", colors=colors)


def _point(arm: str, x: float, values: list[float], *, null: bool) -> dict:
    """Mean and interval over seeds; nothing where there are no values."""
    if len(values) < 2:
        return {"arm": arm, "x": x, "value": values[0], "null": null} if values else {}
    mean = ms.stats.student_t(values)
    return {"arm": arm, "x": x, "value": mean.mean, "low": mean.low, "high": mean.high, "null": null}
