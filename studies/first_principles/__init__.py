"""How much will a student learn? Predicted before it is trained, with nothing fitted.

`--part predict` needs start, teacher and inputs alone: `ms.linearised_student` solves the convex problem that
distillation becomes when the logits are linear in the student's move, with the same batches and the same optimiser, and
the network at the start plus that move is the prediction. `--part train` trains the students of the same condition, and
refuses to where no prediction of it is stored; its cells hold the sums of those that they were predicted by.

The design (studies/first_principles/design.py) has every input distribution, and widths, depths, logits, losses, steps,
initialisations and activations, one at a time and several at once. Predictions, by arm:

* midpoint: linearised halfway to the teacher; the prediction of record;
* start: linearised at the start; again: at half of what midpoint predicts;
* line: the point of the teacher's line at the shares that midpoint predicts.

Further orders, each a part of its own: `two_stages` and `four_stages` take logits and Jacobian anew at equal numbers of
steps, first at the network as it then stands, and again halfway through every stage of that; `quarters` takes the mean
of two Jacobians. They were made up when the students of the design were known; `--condition fresh` has 24 conditions
whose students were not.

Baselines: the mean of the other conditions; straight lines on quantities of `studies.input_distributions` (drive, and
the cosine of the linearised student's least-squares move with the teacher's displacement), fitted to the other
conditions.

    python -m studies.first_principles --part predict two_stages four_stages quarters train --condition fresh
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import conditions, population
from studies.first_principles.design import DESIGN, FRESH

STAGES = {"two_stages": 2, "four_stages": 4}  # of these parts


@dataclass(frozen=True)
class Config:
    part: Literal["predict", "train", "two_stages", "four_stages", "quarters"] = lab.option(
        "predict", "make predictions, also by further orders, or train the students that were predicted"
    )
    condition: str = lab.option(
        DESIGN, "inputs, and options that differ, as blurred:1+d_model=64", groups={"design": DESIGN, "fresh": FRESH}
    )
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "precision of matrix products in training")
    n_seeds: lab.Replicates = lab.option(2, "seeds: one start, teacher and pair of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if STAGES.get(self.part, 1) > conditions.parsed(self.condition).n_steps():
            raise ValueError(f"--part {self.part} needs a step for each stage; {self.condition} has too few")


def upstream(cfg: Config) -> dict:
    options = conditions.parsed(cfg.condition).teachers(cfg.teacher_epochs, cfg.n_seeds, cfg.seed, cfg.precision)
    taught = {"teachers": lab.upstream("teachers", **options)}
    if cfg.part != "train":
        return taught
    same = {name: getattr(cfg, name) for name in ("condition", "teacher_epochs", "precision", "n_seeds", "seed")}
    return taught | {"predicted": lab.upstream("first_principles", beforehand=True, part="predict", **same)}


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored, predicted: lab.Stored | None = None) -> Iterator[dict]:
    from studies.first_principles import measure

    where = conditions.given(cfg.condition, teachers.tensors(), cfg.n_seeds, cfg.seed, cfg.precision)
    if predicted is not None:
        yield from measure.students(where, predicted)
    elif cfg.part == "predict":
        yield from measure.predictions(where)
    else:
        yield from measure.further(where, cfg.part)
    yield {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "measured_on": f"test images; mean logits on the first {population.UNLABELLED} training images, no labels",
            "control": "initialisation of the next seed",
            "null": "untrained network; cross-initialisation student; the mean of the other conditions",
        }
    }


_TINY: dict = {"teacher_epochs": 1, "precision": "fp32", "n_seeds": 2}
_SMALL = "+batch_size=64+n_samples=256"
study = lab.Study(version=1, probes=(
    Config(condition=f"uniform+d_model=16+epochs=1{_SMALL}", **_TINY),
    Config(
        condition=f"perlin:4+d_model=16+n_layers=1+n_aux=1+init=torch+activation=tanh+loss=mse+epochs=1{_SMALL}",
        **_TINY,
    ),
    Config(part="four_stages", condition=f"centred+d_model=16+epochs=1{_SMALL}", **_TINY),
    Config(part="quarters", condition=f"images+d_model=16+activation=gelu+epochs=1{_SMALL}", **_TINY),
))  # fmt: skip
