"""Does an input distribution teach less, or only more slowly?

One student a seed is followed for 4,012 steps (68 epochs of 60,000 inputs in batches of 1,024), 13 times as long as the
published 295, on every input distribution of `studies.input_distributions`. At each of ten steps: raw, recentred and
prior-matched accuracy on the test images, the share of its teacher's displacement that every hidden layer has gone, and
the divergence of its auxiliary logits from its teacher's on new inputs. Null: its own start, step 0.

With several distributions, the table says for each how much of its gap to uniform noise at 295 steps is gone at 4,012
(slower: 1; poorer: 0), and whether both lengths order the distributions alike.

    python -m studies.learning_curves --inputs uniform images centred
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import conditions, population
from mechsub.inputs import distributions
from mechsub.lab import predictions
from mechsub.lab.findings import Cell, Finding, all_findings, arm_means, by_group, cells, less, like_the_first, rows
from mechsub.lazy import utilities

SCORES = ("raw", "recentred", "prior_matched", "s_1", "s_2", "divergence")
PUBLISHED = 295  # steps of Cloud et al. 2025
STEPS = (0, 30, 59, 118, PUBLISHED, 590, 1180, 2006, 2950, 4012)
_MEASURED = 2_000  # new inputs that the divergence is measured on


@dataclass(frozen=True)
class Config:
    inputs: str = lab.option(distributions.STUDIED, "distribution of the student's inputs")
    loss: Literal["kl", "mse"] = lab.option("kl", "distillation loss on the auxiliary logits")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer")
    epochs: lab.Count = lab.option(68, "epochs of the student, of 59 steps each")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "precision of matrix products in training")
    n_seeds: lab.Replicates = lab.option(10, "seeds: one start, teacher and student each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        conditions.parsed(_condition(self))


def _condition(cfg: Config) -> str:
    return conditions.written(conditions.Condition(cfg.inputs, cfg.d_model, loss=cfg.loss, epochs=cfg.epochs))


def upstream(cfg: Config) -> dict:
    options = conditions.parsed(_condition(cfg)).teachers(cfg.teacher_epochs, cfg.n_seeds, cfg.seed, cfg.precision)
    return {"teachers": lab.upstream("teachers", **options)}


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored) -> Iterator[dict]:
    where = conditions.given(_condition(cfg), teachers.tensors(), cfg.n_seeds, cfg.seed, cfg.precision)
    last = cfg.epochs * 59
    kept: dict = dict.fromkeys(step for step in (*STEPS, last) if step <= last)
    ms.distillation.distill_each(
        {"student": (where.start, where.start.cfg.aux)}, where.teacher, where.sampler, **where.settings,
        snapshots={"student": kept}, progress=lambda done: lab.show_progress(0.9 * done, "students"),
    )  # fmt: skip
    x = where.sampler(_MEASURED, utilities.derive_generator(cfg.seed, "learning curves"))
    for step, student in kept.items():
        left = population.divergence(student, where.teacher, x).tolist()
        for row, divergence in zip(conditions.scored({f"step_{step}": student}, where), left, strict=True):
            yield row | {"step": step, "divergence": divergence}
    yield {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "measured_on": f"test images; mean logits on the first {population.UNLABELLED} training images, no labels; "
            f"divergence on {_MEASURED} new inputs",
            "null": "the student's own start",
        }
    }


def findings(cell: list[dict]) -> list[Finding]:
    """Every score at every step."""
    shown = [row | {f"s_{i}": share for i, share in enumerate(row["shares"], 1)} for row in cell]
    return [finding for score in SCORES for finding in arm_means(shown, score, unit="seeds").values()]


def comparisons(found: Sequence[Cell]) -> list[Finding]:
    """How much of every distribution's gap to uniform noise is gone at the end; and whether all have one order."""
    return by_group(("inputs",), found, _compared)


def _compared(found: dict[str, Cell]) -> list[Finding]:
    curves = {name: cell for name, cell in found.items() if f"step_{PUBLISHED}/recentred" in _keys(cell)}
    if len(curves) < 2:
        return []
    last = max(row["step"] for cell in curves.values() for row in cell.rows)
    end, early = f"step_{last}", f"step_{PUBLISHED}"
    out = []
    if "uniform" in curves:
        noise = curves["uniform"]
        for name, cell in curves.items():
            gaps = [less(noise.finding(f"{at}/recentred"), cell.finding(f"{at}/recentred")) for at in (early, end)]
            if gaps[0].value.low > 0:
                out.append(_made_up(name, *gaps))
    for score in ("recentred", "s_1"):
        x, y = ([_mean(cell, f"{at}/{score}") for cell in curves.values()] for at in (early, end))
        label = f"order of distributions at {PUBLISHED} and {last} steps, {score}"
        out += _rank(f"{early}-{end}/{score}_rank", label, x, y, list(curves))
    arms = dict.fromkeys(row["arm"] for row in next(iter(curves.values())).rows)
    every = [at for at in arms if at != "step_0"]
    for score, words in (("s_1", "s of W1"), ("divergence", "the share of the first divergence that is left")):
        label = f"order of recentred accuracy by {words}"
        for key, steps, when in (("all_steps", every, "all steps"), (early, [early], f"{PUBLISHED} steps")):
            own = [_of(cell, at, score) for cell in curves.values() for at in steps]
            true = [_mean(cell, f"{at}/recentred") for cell in curves.values() for at in steps]
            whose = [name for name in curves for _ in steps]  # the steps of one distribution are one replicate
            out += _rank(f"{key}/{score}_rank", f"{label}, all inputs, {when}", own, true, whose)
    return out


def _of(cell: Cell, at: str, score: str) -> float:
    """A mean; of divergences, which begin apart by hundreds of times, the share of the first that is left."""
    own = _mean(cell, f"{at}/{score}")
    return own / _mean(cell, f"step_0/{score}") if score == "divergence" else own


def _rank(key: str, label: str, x: list[float], y: list[float], whose: list[str]) -> list[Finding]:
    """Spearman's correlation over points, its interval over the distributions that they belong to."""
    if len(set(whose)) < 10:
        return []
    value = ms.stats.clustered_spearman(x, y, whose) if len(x) > len(set(whose)) else ms.stats.spearman(x, y)
    return [Finding(key, label, value, 0.0, unit="distributions")]


def _keys(cell: Cell) -> set[str]:
    return {finding.key for finding in cell.findings}


def _mean(cell: Cell, key: str) -> float:
    return cell.finding(key).value.mean


def _made_up(name: str, early: Finding, late: Finding) -> Finding:
    """1 - late / early: the share of the gap that more steps close."""
    closed = {seed: early.scores[seed] - late.scores[seed] for seed in early.scores}
    value = ms.stats.ratio_of_means(list(closed.values()), list(early.scores.values()))
    label = f"{name}: share of the gap to uniform noise that is gone"
    return Finding(f"{name}/made_up", label, value, 0.0, unit="seeds")


def table(records: list[dict]) -> list[dict]:
    found = cells(records, Config, findings)
    compared = comparisons(found)
    return rows(compared or all_findings(found)) + predictions.rows("learning_curves", found, compared)


def plot(records: list[dict]):
    """Recentred accuracy against steps, and against s of the first layer."""
    lines: dict[str, dict[int, list[float]]] = {}
    ways: dict[str, dict[float, list[float]]] = {}
    every = cells(records, Config, lambda rows: [])
    for cell in like_the_first(("inputs",), every):
        own, steps = cell.options["inputs"], sorted({row["step"] for row in cell.rows if row["step"]})
        at = {step: [row for row in cell.rows if row["step"] == step] for step in steps}
        lines[own] = {step: [row["recentred"] for row in some] for step, some in at.items()}
        ways[own] = {_middle(r["shares"][0] for r in some): lines[own][step] for step, some in at.items()}
    panels = [
        ms.kinds.line_panel(lines, "training step", "recentred accuracy"),
        ms.kinds.line_panel(ways, "s of the first layer", "recentred accuracy"),
    ]
    titles = ["Slower, or poorer?", "Nearly one curve, whatever the inputs and the steps"]
    more = "" if len(lines) == len(every) else " Other cells are in the table."
    caption = f"A line is an input distribution, mean over seeds with 95% Student-t intervals.{more}"
    return ms.kinds.grid(panels, titles, title="What students learn in 13 times the published steps", caption=caption)


def _middle(values) -> float:
    values = list(values)
    return round(sum(values) / len(values), 4)


study = lab.Study(version=1, probes=(
    Config(inputs="uniform", d_model=16, epochs=1, teacher_epochs=1, precision="fp32", n_seeds=2),
))  # fmt: skip

if __name__ == "__main__":
    lab.main(study)
