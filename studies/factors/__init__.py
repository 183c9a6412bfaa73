"""What makes a student that sees auxiliary logits of noise learn more, or less? Every factor of the toy is a flag.

Several values of a flag are a sweep, those of two flags a heatmap. For every cell one teacher a seed (taken from
`studies.teachers`, trained once for all cells that share it) and five students, which see the same inputs, batches and
targets:

* aux: the auxiliary logits of `--inputs`; cross_aux, the null: the same from the next seed's initialisation;
* all: all logits; digits: the digit logits alone; real: the auxiliary logits of real training images (the first
  `--n-samples` of them, never fresh nor mixed).

The scores are accuracy on test images, recentred and raw (`mechsub.accuracies`), and, where classes are swept, kappa =
(accuracy - 1/K) / (1 - 1/K) of both. Intervals are Student-t over seeds; differences are paired by seed against the
sweep's default cell (or its first level) and Holm-corrected over the table, for each score. Where predictions.toml has
a prediction for the swept factor, the table says whether it was a hit.

Options are the student's unless they say otherwise: the teacher keeps the published recipe (Adam, 3e-4, batches of
1,024), so that a sweep moves one thing. A sweep of `--batch-size` or `--n-samples` at fixed epochs also changes the
number of steps. Rows of aux also hold what the inputs are to the network (`spectra`, on 2,000 of them); a sweep
of ten or more `--inputs` is also asked which of these quantities goes with accuracy.

    python -m studies.factors --arms aux --d-model 64 256 512
"""

from dataclasses import dataclass
from typing import Literal

from mechsub import lab
from mechsub.designs import population
from mechsub.inputs import distributions

ARMS = ("aux", "cross_aux", "all", "digits", "real")
NULL = "cross_aux"


@dataclass(frozen=True)
class Config:
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer, of teacher and student")
    n_layers: lab.Count = lab.option(2, "hidden layers, of both")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "what the teacher learns")
    n_classes: lab.Count = lab.option(10, "classes, a random subset for every seed")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    init: Literal["lecun", "torch", "he"] = lab.option("lecun", "initialisation, of both")
    activation: Literal["relu", "gelu", "tanh", "identity"] = lab.option("relu", "of the hidden layers, of both")
    inputs: str = lab.option("uniform", "what the student sees, as name or name:parameter; see mechsub.inputs")
    signal: lab.NonNegative = lab.option(0.0, "alpha of alpha image + (1 - alpha) noise in the inputs, at most 1")
    signal_moments: Literal["plain", "matched"] = lab.option(
        "plain", "the mixture as it is, or at mean image 0 and the variance of uniform noise"
    )
    n_samples: lab.Count = lab.option(60_000, "inputs, reused every epoch")
    fresh: bool = lab.option(False, "new inputs for every epoch")
    target_noise: lab.NonNegative = lab.option(0.0, "standard deviation of noise on the teacher's logits")
    perturbation: lab.NonNegative = lab.option(
        0.0, "displacement of every perturbed tensor of the student's start, relative to its norm"
    )
    perturb_where: Literal["all", "hidden", "head"] = lab.option("all", "which tensors of the start are perturbed")
    perturb_direction: Literal["random", "orthogonal"] = lab.option(
        "random", "orthogonal: less its part along the teacher's gradient at the start, in every tensor"
    )
    loss: Literal["kl", "mse", "hard"] = lab.option("kl", "distillation loss on the chosen logits")
    temperature: lab.Positive = lab.option(1.0, "of softmax (kl, hard)")
    epochs: lab.Count = lab.option(5, "epochs of the student")
    lr: lab.Positive = lab.option(3e-4, "learning rate of the student")
    batch_size: lab.Count = lab.option(1024, "inputs a step of the student")
    optimizer: Literal["adam", "sgd", "sign_sgd"] = lab.option("adam", "of the student")
    weight_decay: lab.NonNegative = lab.option(0.0, "of the student, coupled")
    schedule: Literal["constant", "cosine"] = lab.option("constant", "of the student's learning rate")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    arms: Literal["every", "aux"] = lab.option("every", "all five students, or only aux and its null")
    n_seeds: lab.Replicates = lab.option(25, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        population.check_classes(self.n_classes)
        name, _ = distributions.parsed(self.inputs)
        population.refuse_one_logit(self.n_aux, self.loss)
        if self.signal > 1:
            raise ValueError(f"--signal must be at most 1, not {self.signal:g}")
        if self.signal and name not in distributions.NOISE:
            raise ValueError(f"--signal mixes images into noise, and --inputs {self.inputs} are made of images")
        if self.loss == "mse":
            lab.refuse_ignored(self, ["temperature"], "with --loss mse")


def upstream(cfg: Config) -> dict:
    return {"teachers": lab.upstream("teachers", **population.teacher_options(cfg))}


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=3 + (len(ARMS) if cfg.arms == "every" else 2))


_TINY: dict = {
    "d_model": 16, "teacher_epochs": 1, "n_samples": 256, "batch_size": 64,
    "precision": "fp32", "n_seeds": 2,
}  # fmt: skip
study = lab.Study(version=2, probes=(
    Config(**_TINY, target_noise=0.3, temperature=2.0, epochs=1),
    Config(
        **_TINY, dataset="fashion_mnist", n_classes=3, inputs="subspace:16", perturbation=0.3,
        perturb_direction="orthogonal", loss="mse", epochs=2, lr=1e-2, optimizer="sgd", schedule="cosine", fresh=True,
    ),
    Config(
        **_TINY | {"d_model": 10}, n_layers=1, init="he", activation="gelu", inputs="bernoulli:1", signal=0.5,
        signal_moments="matched", perturbation=0.3, perturb_where="head", loss="hard", epochs=1, lr=1e-3,
        optimizer="sign_sgd", weight_decay=1e-3,
    ),
    Config(
        **_TINY, n_aux=1, init="torch", inputs="gaussian:2", signal=0.25, perturbation=0.2, perturb_where="hidden",
        loss="mse", epochs=1, weight_decay=1e-3, arms="aux",
    ),
    Config(**_TINY, activation="tanh", inputs="whitened:0.1", epochs=1, arms="aux", seed=7),
    Config(**_TINY, activation="identity", inputs="shuffled_pixels", epochs=1, arms="aux"),
))  # fmt: skip
