"""How does a student of three auxiliary logits of noise come to classify digits, and what share does each part carry?

Every `--part` is a cell of its own (without the flag: all of them), with teachers of `studies.teachers`:

* freeze: students that train only some of W1, W2 (a hidden layer's weights and biases) and the auxiliary rows of the
  output layer. Its digit rows are in no loss and never move. Null: the student of the next seed's start.
* reinit: students that share with their teacher's start only some of W1, W2, auxiliary rows and digit rows, all 2^4
  sets; what is not shared is of the next seed's start. Null: nothing shared.
* layers: a trained student taken apart. Hybrids of the layers of initial network, student and teacher, all 2^3 between
  any two of the three, with Shapley's shares of the gain in accuracy; the student with only the component of its weight
  change that lies along its teacher's, or only the rest; its change of the digit logits and of hidden states against
  the teacher's; the hidden neurons that write it (direct logit attribution); and what CKA sees of it. Null: the
  cross-initialisation student, and the next seed's teacher's displacement.
* gradient: the rank of the distillation gradient into the last hidden layer and what gates make of it (against a
  network without gates, activation identity), and its cosine with the trait gradient, that of the digit cross-entropy
  on training images, along the way. Null: the cross-initialisation student.
* ablation: students whose every update is deprived of its component along the trait gradient at that step, or along
  the teacher's displacement, as one direction of all weights or neuron by neuron; or of all change in how W1 and W2
  read the 16 input directions that the teacher's change reads most. Controls: as much taken out along random
  directions, 16 random input directions. Null: the initial network.

* controls (only where it is named): what the ablation's controls should take out, and do not. As much along one fixed
  random direction; the student's own remaining displacement, neuron by neuron; the next seed's teacher's; the student's
  own 16 strongest input directions beside the teacher's. Beside each, the share of the squares of all updates that was
  taken out, and of what was there along it.

Intervals are Student-t over seeds, shares are ratios of means. What was expected before the run is in predictions.toml.

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
        PARTS, "what is looked at"
    )
    frozen: str = lab.option("none", "what no student trains, of W1, W2 and aux, as W2+aux (all parts but freeze)")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer, of teacher and student")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    n_samples: lab.Count = lab.option(60_000, "noise images, reused every epoch")
    epochs: lab.Count = lab.option(5, "epochs of the student")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products in training")
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
    version=1,
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
