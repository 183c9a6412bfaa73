"""Predicted against found: errors, ranks and slopes over conditions."""

from collections.abc import Sequence

import mechsub as ms
from mechsub.designs import conditions
from mechsub.lab import predictions
from mechsub.lab.agreement import agreement, extremes, line_error
from mechsub.lab.findings import (
    Cell,
    Finding,
    all_findings,
    arm_means,
    by_group,
    cells,
    holm,
    less,
    like_the_first,
    rows,
)
from mechsub.lazy import go
from studies.first_principles import Config, design

SCORES = ("raw", "recentred", "prior_matched")
PREDICTED = {
    "midpoint": "linearised halfway to the teacher",
    "again": "linearised again, halfway to that prediction",
    "start": "linearised at the start",
    "line": "the point of the teacher's line at the predicted shares",
    "untrained": "the untrained network",
    "two_stages": "linearised in two stages, where each begins",
    "two_stages_again": "linearised in two stages, halfway through each",
    "four_stages": "linearised in four stages, where each begins",
    "four_stages_again": "linearised in four stages, halfway through each",
    "quarters": "the mean of two Jacobians, at a quarter and at three quarters of the way",
}
FURTHER = ("two_stages", "four_stages", "quarters")  # parts
OPTIONS = ("d_model", "n_layers", "n_aux", "init", "activation", "loss", "epochs")
QUANTITIES = {"drive": "drive of Theorem 1", "least_squares_cosine": "cosine of the least-squares move"}


def findings(cell: list[dict]) -> list[Finding]:
    shown = [row | {f"s_{i}": s for i, s in enumerate(row["shares"], 1)} for row in cell]
    scores = [*SCORES, *(name for name in shown[0] if name.startswith("s_")), *QUANTITIES]
    return [finding for score in scores for finding in arm_means(shown, score, unit="seeds").values()]


def comparisons(found: Sequence[Cell]) -> list[Finding]:
    """Over conditions whose students are trained: all of the design, new ones, FRESH; and those of them without images
    that have their mean."""
    return by_group(("condition", "part"), found, _compared)


def _compared(found: dict[tuple[str, str], Cell]) -> list[Finding]:
    every = {condition: _values(cell) for (condition, part), cell in found.items() if part == "train"}
    for (condition, part), cell in found.items():
        if part in FURTHER and condition in every:
            every[condition] |= _values(cell)
    trained = {c: v for c, v in every.items() if c not in design.FRESH}
    sets = {
        "": trained,
        "no_mean_images": {c: v for c, v in trained.items() if not _has_mean_images(c)},
        "new": {c: v for c, v in trained.items() if design.is_new(c)},
        "fresh": {c: v for c, v in every.items() if c in design.FRESH},
        "fresh_no_mean_images": {c: v for c, v in every.items() if c in design.FRESH and not _has_mean_images(c)},
    }
    whole = [finding for name, some in sets.items() if len(some) > 1 for finding in _of_set(name, some)]
    return whole + [finding for option in OPTIONS for finding in _of_option(option, trained)]


def _of_option(option: str, trained: dict[str, dict[str, float]]) -> list[Finding]:
    """Errors over the conditions that change this option, maybe beside others."""
    changed = {c: v for c, v in trained.items() if option in conditions.parsed(c).changed()}
    found = []
    for arm in ("midpoint", "again", "line", "two_stages_again", "four_stages_again"):
        some = {c: v for c, v in changed.items() if f"{arm}/recentred" in v}
        if len(some) < 2:
            continue
        said, true = ({c: v[f"{who}/recentred"] for c, v in some.items()} for who in (arm, "student"))
        told = f"{arm}/recentred_by_{option}", f"{PREDICTED[arm]}, recentred, {option}"
        found += [*agreement(*told, said, true)[:2], *extremes(*told, said, true)]
    return found


def _has_mean_images(condition: str) -> bool:
    return condition.split("+")[0] in design.WITH_THEIR_MEAN


def _values(cell: Cell) -> dict[str, float]:
    return {finding.key: finding.value.mean for finding in cell.findings}


def _of_set(name: str, trained: dict[str, dict[str, float]]) -> list[Finding]:
    behind, words = (f"_{name}", f" ({name.replace('_', ' ')})") if name else ("", "")
    out = []
    for arm, label in PREDICTED.items():
        some = {c: v for c, v in trained.items() if f"{arm}/recentred" in v}
        for score in (*SCORES, "s_1") if len(some) > 1 else ():
            said, true = ({c: v[f"{who}/{score}"] for c, v in some.items()} for who in (arm, "student"))
            text = f"{label}, {score.replace('_', '-')}{words}"
            out += agreement(f"{arm}/{score}{behind}", text, said, true)
            out += extremes(f"{arm}/{score}{behind}", text, said, true) if score == "recentred" else []
    out += _further(out, behind, words)
    for quantity, label in QUANTITIES.items():
        some = {c: v for c, v in trained.items() if f"midpoint/{quantity}" in v}
        for score in ("raw", "recentred") if len(some) > 3 else ():
            values = {c: v[f"midpoint/{quantity}"] for c, v in some.items()}
            true = {c: v[f"student/{score}"] for c, v in some.items()}
            out.append(line_error(f"{quantity}/{score}{behind}", f"{label}, {score}{words}", values, true))
            out += agreement(f"{quantity}/{score}{behind}", f"{label}, {score}{words}", values, true)[2:3]
    return out


def _further(found: list[Finding], behind: str, words: str) -> list[Finding]:
    """Errors of further orders less those of the midpoint, paired by conditions."""
    errors = {finding.subject: finding for finding in found if finding.score == f"recentred{behind}_error"}
    orders = [arm for arm in PREDICTED if arm.startswith(FURTHER) and arm in errors]
    return holm(
        less(errors[arm], errors["midpoint"], label=f"error, {PREDICTED[arm]}, less halfway to the teacher{words}")
        for arm in orders
    )


def table(records: list[dict]) -> list[dict]:
    found = cells(records, Config, findings)
    compared = comparisons(found)
    return rows(compared or all_findings(found)) + predictions.rows("first_principles", found, compared)


def plot(records: list[dict]):
    """Every condition: recentred and raw accuracy, found against predicted; in stages where these are there."""
    every = cells(records, Config, findings)
    trained = [cell for cell in every if cell.options["part"] == "train"]
    found = {cell.options["condition"]: _values(cell) for cell in like_the_first(("condition",), trained)}
    series = {"recentred": ("midpoint", "recentred"), "raw": ("midpoint", "raw")}
    for cell in every:
        if cell.options["part"] == "four_stages" and cell.options["condition"] in found:
            found[cell.options["condition"]] |= _values(cell)
    if all("four_stages_again/recentred" in values for values in found.values()):
        series = {"in one stage": ("midpoint", "recentred"), "in four stages": ("four_stages_again", "recentred")}
    more = "" if len(found) == len(trained) else " Other cells are in the table."
    kinds = ms.kinds  # it registers the template
    figure = go.Figure()
    for name, (said, score) in series.items():
        x, y = ([values[f"{arm}/{score}"] for values in found.values()] for arm in (said, "student"))
        figure.add_scatter(x=x, y=y, text=list(found), mode="markers", name=name)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="as predicted", line={"dash": "dash", "color": "gray"})
    figure.update_layout(
        title="What students learn, predicted before they are trained", template="mechsub",
        xaxis_title="predicted accuracy on the test images", yaxis_title="found",
    )  # fmt: skip
    return kinds.add_caption(figure, f"A point is a condition, mean over seeds; nothing is fitted.{more}")
