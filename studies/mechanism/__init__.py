"""How does a student of three auxiliary logits of noise come to classify digits, and what share does each part carry?

Every `--part` is a cell of its own (without the flag: all but controls), with teachers of `studies.teachers`:

* freeze: students that train only some of W1, W2 and the auxiliary rows. Null: the student of the next seed's start.
* reinit: students that share only some of W1, W2, auxiliary rows and digit rows with their teacher's start, all 2^4
  sets. Null: nothing shared.
* layers: a trained student taken apart, by hybrids of its layers with the initial network's and the teacher's (Shapley
  shares of the gain in accuracy), and by the component of its weight change along its teacher's. Null: the
  cross-initialisation student, and the next seed's teacher's displacement.
* gradient: the rank of the distillation gradient, with and without gates, and its cosine with the trait gradient (of
  the digit cross-entropy on training images). Null: the cross-initialisation student.
* ablation: every update loses its component along the trait gradient, along the teacher's displacement, or in the 16
  input directions that the teacher's change reads most. Controls: random directions. Null: the initial network.
* controls (only where it is named): controls of the ablation along directions in which the student does move.

Accuracies are raw, recentred and prior-matched. Intervals are Student-t over seeds, shares are ratios of means.
Predictions of before the run are in predictions.toml; docs/methods.md defines every part.

    python -m studies.mechanism --part freeze reinit
"""

from dataclasses import dataclass
from typing import Literal

from mechsub import lab
from mechsub.designs import population

PARTS = ("freeze", "reinit", "layers", "gradient", "ablation")
MODULES = {"W1": "blocks.0", "W2": "blocks.1", "aux": "unembed"}  # what can be frozen


@dataclass(frozen=True)
class Config:
    part: Literal["freeze", "reinit", "layers", "gradient", "ablation", "controls"] = lab.option(
        PARTS, "the part that is measured"
    )
    frozen: str = lab.option("none", "parts of W1, W2 and aux that no student trains, such as W2+aux (not with freeze)")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer, of teacher and student")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    n_samples: lab.Count = lab.option(60_000, "noise images, reused every epoch")
    epochs: lab.Count = lab.option(5, "epochs of the student")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "precision of matrix products in training")
    n_seeds: lab.Replicates = lab.option(25, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        population.refuse_one_logit(self.n_aux)
        frozen = check_frozen(self.frozen)
        if self.part == "freeze":
            lab.refuse_ignored(self, ["frozen"], "with --part freeze, which has its own")
        if {"W1", "W2"} <= frozen:
            raise ValueError(f"--frozen {self.frozen} leaves nothing to train that digit logits depend on")


def check_frozen(text: str) -> set[str]:
    """The names in it; ValueError for others, and for a set that leaves nothing to train."""
    names = [] if text == "none" else text.split("+")
    if unknown := [name for name in names if name not in MODULES]:
        raise ValueError(f"--frozen: {unknown[0][:80]!r} is not one of {', '.join(MODULES)}, or none")
    if set(names) == set(MODULES):
        raise ValueError(f"--frozen {text} leaves nothing to train")
    if names != [name for name in MODULES if name in names]:
        ordered = "+".join(name for name in MODULES if name in names)
        raise ValueError(f"--frozen: write {ordered}, not {text[:80]}, so that a cell has one name")
    return set(names)


def upstream(cfg: Config) -> dict:
    options = population.teacher_options(cfg)
    taught = {"teachers": lab.upstream("teachers", **options)}
    linear = {"linear": lab.upstream("teachers", **options, activation="identity")} if cfg.part == "gradient" else {}
    return taught | linear


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=3)


_TINY: dict = {"d_model": 16, "n_samples": 256, "epochs": 1, "teacher_epochs": 1, "precision": "fp32", "n_seeds": 2}
study = lab.Study(
    version=2,  # recentred and prior-matched accuracy in every part, by training images
    judged=True,
    together=("part",),
    probes=(
        Config(**_TINY, part="freeze"),
        Config(**_TINY, part="reinit"),
        Config(**_TINY, part="layers", frozen="W2+aux"),
        Config(**_TINY, part="gradient"),
        Config(**_TINY | {"d_model": 20}, part="ablation", n_aux=2),
        Config(**_TINY | {"d_model": 20}, part="controls"),
    ),
)
