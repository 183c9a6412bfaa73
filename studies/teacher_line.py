"""Is a student a point on its teacher's line, start + s_l (teacher - start), one number s_l a hidden layer?

For every condition (`--condition`, written as what differs from the published one: `blurred:1+d_model=64`) students are
trained as in `studies.factors`; s_l is the student's own projection on its teacher's displacement. Arms, beside the
student:

* point: start + s_l (teacher - start), and nothing else of the student; one: one s for all layers; noise: the point
  with Gaussian noise as long as what the student is away from it, in every weight matrix;
* curve_0.1 and so on: one s for all layers, the same for all conditions of a start and teacher: no student is needed;
* cross, the null: the student of the next seed's start.

Scores are raw, recentred (digit logits less their mean over unlabelled training images) and prior-matched accuracy on
the test images. With several conditions the table has, for every score, the mean absolute error of the point against
the student over conditions, beside that of the mean of the other conditions, and the rank correlation.

    python -m studies.teacher_line --condition uniform uniform+d_model=64
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import conditions, population
from mechsub.lab import predictions
from mechsub.lab.agreement import agreement, extremes
from mechsub.lab.findings import Cell, Finding, all_findings, arm_means, by_group, cells, like_the_first, rows
from mechsub.lazy import go, torch

SCORES = ("raw", "recentred", "prior_matched")
CONDITIONS = conditions.STORED
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
POINTS = {"point": "one s a layer", "one": "one s for all layers", "noise": "one s a layer, and noise of the rest"}


@dataclass(frozen=True)
class Config:
    condition: str = lab.option(CONDITIONS, "inputs, and options that differ, as blurred:1+d_model=64")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "precision of matrix products in training")
    n_seeds: lab.Replicates = lab.option(5, "seeds: one start, teacher and pair of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        conditions.parsed(self.condition)


def upstream(cfg: Config) -> dict:
    options = conditions.parsed(cfg.condition).teachers(cfg.teacher_epochs, cfg.n_seeds, cfg.seed, cfg.precision)
    return {"teachers": lab.upstream("teachers", **options)}


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored) -> Iterator[dict]:
    where = conditions.given(cfg.condition, teachers.tensors(), cfg.n_seeds, cfg.seed, cfg.precision)
    learned = where.distilled(lambda done: lab.show_progress(0.8 * done, "students"))
    yield from conditions.scored({"untrained": where.start, "teacher": where.teacher, **learned}, where)
    yield from conditions.scored(_points(where, learned["student"], cfg.seed), where)
    yield from conditions.scored({f"curve_{s:g}": _at(where, s) for s in CURVE}, where)
    yield {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "measured_on": f"test images; mean logits on the first {population.UNLABELLED} training images, no labels",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student; the mean of the other conditions",
        }
    }


def _points(where: conditions.Given, student, seed: int) -> dict:
    start, teacher = where.start, where.teacher
    own, way = ms.spectra.displacement(student, start), ms.spectra.displacement(teacher, start)
    hidden = {name: value for name, value in way.items() if name.startswith("blocks.")}
    whole = ms.tangent.dot(own, hidden) / ms.tangent.dot(hidden, hidden)
    point = ms.on_line(start, teacher, ms.line_shares(student, start, teacher))
    return {
        "point": point,
        "one": ms.on_line(start, teacher, whole[:, None].expand(-1, start.cfg.n_layers)),
        "noise": ms.teacher_line.with_noise_of_the_rest(point, student, seed=seed),
    }


def _at(where: conditions.Given, s: float):
    return ms.on_line(where.start, where.teacher, torch.full((len(where.start.seeds), where.start.cfg.n_layers), s))


def findings(cell: list[dict]) -> list[Finding]:
    shown = [row | {f"s_{i}": s for i, s in enumerate(row["shares"], 1)} for row in cell]
    layers = [f"s_{i}" for i in range(1, len(cell[0]["shares"]) + 1)]
    students = [row for row in shown if row["arm"] == "student"]
    found = [f for score in SCORES for f in arm_means(shown, score, unit="seeds").values()]
    return found + [f for layer in layers for f in arm_means(students, layer, unit="seeds").values()]


def comparisons(found: Sequence[Cell]) -> list[Finding]:
    """Over conditions: how far the point is from the student, and whether both have one order."""
    return by_group(("condition",), found, _compared)


def _compared(found: dict[str, Cell]) -> list[Finding]:
    if len(found) < 2:
        return []
    out = []
    for arm, label in POINTS.items():
        for score in SCORES:
            both = _means(found, arm, score), _means(found, "student", score)
            told = f"{arm}/{score}", f"{label}, {score.replace('_', '-')}"
            out += [*agreement(*told, *both), *(extremes(*told, *both) if score == "recentred" else ())]
    return out


def _means(found: dict[str, Cell], arm: str, score: str) -> dict[str, float]:
    keyed = {condition: {f.key: f.value.mean for f in cell.findings} for condition, cell in found.items()}
    return {condition: values[f"{arm}/{score}"] for condition, values in keyed.items()}


def table(records: list[dict]) -> list[dict]:
    found = cells(records, Config, findings)
    compared = comparisons(found)
    return rows(compared or all_findings(found)) + predictions.rows("teacher_line", found, compared)


def plot(records: list[dict]):
    """Recentred accuracy against s of the first layer: every condition's students, and the curve of teachers alone."""
    by_condition: dict[str, list[dict]] = {}
    every = cells(records, Config, findings)
    shown_cells = like_the_first(("condition",), every)
    more = "" if len(shown_cells) == len(every) else " Other cells are in the table."
    for row in (row for cell in shown_cells for row in cell.rows):
        if row["arm"] in ("student", "point") or row["arm"].startswith("curve_"):
            by_condition.setdefault(row["condition"], []).append(row)
    kinds = ms.kinds  # it registers the template
    figure = go.Figure()
    for arm, symbol in (("student", "circle"), ("point", "x-thin-open")):
        shown = [[row for row in some if row["arm"] == arm] for some in by_condition.values()]
        x = [sum(r["shares"][0] for r in some) / len(some) for some in shown]
        y = [sum(r["recentred"] for r in some) / len(some) for some in shown]
        figure.add_scatter(x=x, y=y, text=list(by_condition), mode="markers", name=arm, marker={"symbol": symbol})
    curve = next(iter(by_condition.values()))
    grid = {s: [row["recentred"] for row in curve if row["arm"] == f"curve_{s:g}"] for s in CURVE}
    figure.add_scatter(x=list(grid), y=[sum(v) / len(v) for v in grid.values()], mode="lines", name="teacher alone")
    figure.update_layout(
        title="How far W1 got along its teacher's displacement says how much was learned",
        xaxis_title="s of the first layer", yaxis_title="recentred accuracy on the test images", template="mechsub",
    )  # fmt: skip
    return kinds.add_caption(figure, f"A circle is a condition, mean over seeds; a cross its point on the line.{more}")


_TINY: dict = {"teacher_epochs": 1, "precision": "fp32", "n_seeds": 2}
study = lab.Study(version=1, probes=(
    Config(condition="uniform+d_model=16+epochs=1+batch_size=64+n_samples=256", **_TINY),
    Config(
        condition="mixed_at_moments:0.5+d_model=16+n_layers=1+n_aux=2+init=he+activation=gelu+loss=mse+epochs=1"
        "+batch_size=64+n_samples=256", **_TINY,
    ),
))  # fmt: skip

if __name__ == "__main__":
    lab.main(study)
