"""What is predicted of a condition, and its students."""

import itertools
from collections.abc import Iterator
from typing import Literal

import mechsub as ms
from mechsub import lab
from mechsub.designs import conditions
from mechsub.lazy import utilities
from studies.first_principles import STAGES

_DESCRIBED = 2_048  # inputs that quantities are measured on
_OPTIONS = ("part", "condition", "teacher_epochs", "precision", "n_seeds", "seed")  # of a cell, beside its rows
_STEPS = 8  # of least squares, as in studies.input_distributions


def predictions(where: conditions.Given) -> Iterator[dict]:
    """Rows of every prediction, with shares of the teacher's displacement; the midpoint's have quantities of inputs."""
    start = where.start
    lab.show_progress(0.05, "quantities")
    quantities = _quantities(where)
    models = {"untrained": start}
    for i, name in enumerate(("midpoint", "start", "again")):
        lab.show_progress(0.1 + 0.3 * i, name)
        at = halfway(start, models["midpoint"]) if name == "again" else name
        models[name] = where.linearised(at)
    models["line"] = ms.on_line(start, where.teacher, ms.line_shares(models["midpoint"], start, where.teacher))
    for row in conditions.scored(models, where):
        own = quantities[row["member"] - start.seeds[0]] if row["arm"] == "midpoint" else {}
        yield row | own


def further(where: conditions.Given, part: str) -> Iterator[dict]:
    """Rows of the predictions of a further order: of stages, at the networks where they begin, and halfway through."""
    if part == "quarters":
        yield from conditions.scored({part: where.linearised("quarters")}, where)
        return
    total, n = where.condition.n_steps(), STAGES[part]
    steps = [total * i // n for i in range(1, n)]
    kept: dict = dict.fromkeys((*steps, total))
    models = {part: where.linearised("start", relinearised=steps, snapshots=kept)}
    lab.show_progress(0.5, "again")
    nodes = [where.start, *kept.values()]
    middles = [halfway(*stage) for stage in itertools.pairwise(nodes)]
    models[f"{part}_again"] = where.linearised(middles, relinearised=steps)
    yield from conditions.scored(models, where)


def halfway(start, end):
    ends = dict(end.named_parameters())
    return start.replace({name: (value + ends[name]) / 2 for name, value in start.named_parameters()})


def students(where: conditions.Given, predicted: lab.Stored) -> Iterator[dict]:
    """Rows of the students and their null, behind those of what was predicted of them."""
    for row in predicted.records():
        yield {name: value for name, value in row.items() if name not in _OPTIONS}
    learned = where.distilled(lambda done: lab.show_progress(0.9 * done, "students"))
    yield from conditions.scored(learned, where)


def _quantities(where: conditions.Given) -> list[dict[str, float]]:
    """Of every member: the drive of Theorem 1, and which way the linearised student would go (ReLU alone)."""
    start, aux = where.start, where.start.cfg.aux
    loss: Literal["kl", "mse"] = "mse" if where.condition.loss == "mse" else "kl"
    x = where.sampler(_DESCRIBED, utilities.derive_generator(where.settings["seed"], "described"))
    way = ms.spectra.displacement(where.teacher, start)
    each = {"drive": ms.spectra.drive(start, way, x, loss=loss)}
    if start.cfg.activation == "relu" and start.cfg.n_aux > 1:
        at, targets = ms.tangent.tangent(start, x, aux), ms.tangent.tangent(where.teacher, x, aux).logits
        hidden = {name: value for name, value in way.items() if name.startswith("blocks.")}
        each["least_squares_cosine"] = ms.tangent.cosine(ms.tangent.least_squares(at, targets, _STEPS), hidden)
    return [{name: float(values[i]) for name, values in each.items()} for i in range(len(start.seeds))]
