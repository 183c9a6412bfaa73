"""What makes a student that sees auxiliary logits of noise learn more, or less? Every factor of the toy is a flag.

Several values of a flag are a sweep, those of two flags a heatmap. For every cell one teacher a seed (taken from
`studies.teachers`, trained once for all cells that share it) and five students, which see the same inputs, batches and
targets:

* aux: the auxiliary logits of `--inputs`; cross_aux, the null: the same from the next seed's initialisation;
* all: all logits; digits: the digit logits alone; real: the auxiliary logits of real training images (the first
  `--n-samples` of them, never fresh nor mixed).

The score is accuracy on test images and kappa = (accuracy - 1/K) / (1 - 1/K) for K classes. Intervals are Student-t
over seeds; differences are paired by seed against the sweep's default cell (or its first level) and Holm-corrected
over the table. Where predictions.toml has a prediction for the swept factor, the table says whether it was a hit.

Options are the student's unless they say otherwise: the teacher keeps the published recipe (Adam, 3e-4, batches of
1,024), so that a sweep moves one thing. A sweep of `--batch-size` or `--n-samples` at fixed epochs also changes the
number of steps. Rows of aux also hold what the inputs are to the network (`spectra`, on 2,000 of them); a sweep
of ten or more `--inputs` is also asked which of these quantities goes with accuracy.

Answer (25 seeds, auxiliary logits alone; artifacts/factors; the default, 0.540 [0.492, 0.587], has three logits, 256
neurons, two layers, 295 steps at 3e-4; nulls are chance everywhere). More logits teach more: 0.345 [0.304, 0.385] at
2, 0.829 [0.805, 0.853] at 10, 0.906 [0.899, 0.913] at 30, 0.922 [0.918, 0.925] at 100. Width has a best value: 0.459
[0.407, 0.510] at 64, 0.379 [0.345, 0.412] at 512. Depth costs: 0.601 [0.565, 0.637] with one layer, 0.409 [0.360,
0.458] with three. Classes, as kappa: 0.950 [0.937, 0.964] of two, 0.762 [0.716, 0.809] of five. Fashion-MNIST: 0.575
[0.547, 0.603]. Image in the input: 0.332 [0.283, 0.381] at a half; at equal moments 0.552 [0.513, 0.591], and 0.316
[0.274, 0.358] when all is image. Perturbation of the start, relative to its norm: 0.508 [0.464, 0.551] at 0.1, 0.317
[0.281, 0.353] at 0.3, chance at 1; at 0.3 of the hidden layers alone 0.377 [0.337, 0.418], of the head alone 0.473
[0.429, 0.518], and orthogonal to the teacher's gradient no less, 0.319 [0.284, 0.355]. More optimisation teaches more:
0.670 [0.629, 0.711] in ten epochs, 0.188 [0.163, 0.214] in one, 0.715 [0.677, 0.753] in batches of 256, 0.288 [0.250,
0.326] of 4,096, 0.689 [0.652, 0.727] at a rate of 1e-3, 0.276 [0.239, 0.314] at 1e-4, 0.386 [0.332, 0.439] at 3e-3;
with 6,000 inputs, in a tenth of the steps, 0.134 [0.117, 0.150]. Longer teachers are harder to follow: 0.589 [0.545,
0.634] of one epoch, 0.450 [0.401, 0.499] of ten. Adam's step matters: SGD at that rate 0.102 [0.091, 0.113], its sign
0.390 [0.343, 0.438]. Squared error 0.649 [0.604, 0.695], the argmax as target 0.129 [0.115, 0.143], temperature 4 no
change, 0.543 [0.496, 0.590]. Noise on the logits: 0.145 [0.126, 0.164] at s.d. 1; at 0.3 the narrow student is no
longer worse, 0.266 [0.227, 0.304] at 64 neurons, 0.246 [0.213, 0.280] at 256, 0.204 [0.186, 0.222] at 512. Weight
decay of 1e-4: 0.428 [0.378, 0.479]. Initialisation as in PyTorch 0.402 [0.352, 0.453], He 0.445 [0.401, 0.489].
Without ReLU hardly anything, 0.116 [0.106, 0.126]. Of 22 sweeps with a prediction, two left it open (initialisation,
temperature), the others were hits. Students of all logits hardly care: 0.916 [0.913, 0.918] by default, 0.894 [0.886,
0.903] from a start perturbed by 0.3, kappa 0.943 [0.934, 0.953] of five classes; on the images of the training set the
auxiliary logits teach 0.151 [0.132, 0.170].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.inputs import distributions

ARMS = ("aux", "cross_aux", "all", "digits", "real")
NULL = "cross_aux"
_DESCRIBED = 2_000  # inputs that spectra and drive are measured on


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
    n_seeds: lab.Count = lab.option(25, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")
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


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored) -> Iterator[dict]:
    taught = {row["member"]: row["accuracy"] for row in teachers.records()}
    shape = ms.mlp.MLPConfig(
        d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux, n_classes=cfg.n_classes, init=cfg.init,
        activation=cfg.activation,
    )  # fmt: skip
    init = ms.mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    teacher = population.with_aux(init, teachers.tensors())
    images, labels = getattr(ms.images, cfg.dataset)("train")
    test = getattr(ms.images, cfg.dataset)("test")
    inputs = _sampler(cfg, images)
    described = _described(cfg, init, teacher, inputs)
    products = ms.distillation.resolve_precision(cfg.precision)
    for arm, student in _students(cfg, init, teacher, inputs, images, labels).items():
        scores = population.accuracies(student, init.seeds, *test)
        for i, (member, accuracy) in enumerate(zip(init.seeds, scores, strict=True)):
            yield {
                "arm": arm,
                "member": member,
                "accuracy": accuracy,
                "kappa": population.kappa(accuracy, cfg.n_classes),
                "teacher_accuracy": taught[member],
                "products": products,
                **(described[i] if arm == "aux" else {}),
            }
    yield {
        "provenance": {
            "data": ms.images.hashes(cfg.dataset.replace("_", "-")),
            "dtype": f"fp32 weights and losses, {products} products in training",
            "measured_on": f"test images of the teacher's classes; inputs described by {_DESCRIBED} of them",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed",
        }
    }


def _sampler(cfg: Config, images):
    inputs = distributions.sampler(cfg.inputs, images)
    if cfg.signal_moments == "matched":
        return ms.noise.mixed_at_moments(images, inputs, cfg.signal)
    return ms.noise.mixed(images, inputs, cfg.signal) if cfg.signal else inputs


def _students(cfg: Config, init, teacher, inputs, images, labels) -> dict:
    shape, settings = init.cfg, _settings(cfg)
    next_seeds = ms.mlp.HookedMLP(shape, [seed + 1 for seed in init.seeds])
    start, other = (_perturbed(model, cfg) for model in (init, next_seeds))
    students = {
        "aux": (start, shape.aux),
        NULL: (other, shape.aux),
        "all": (start, slice(0, shape.d_vocab)),
        "digits": (start, shape.digits),
    }
    if cfg.arms == "aux":
        students = {arm: students[arm] for arm in ("aux", NULL)}
    found = ms.distillation.distill_each(
        students, teacher, inputs, n_samples=cfg.n_samples, fresh=cfg.fresh,
        progress=lambda done: lab.show_progress(0.1 + 0.7 * done, "students"), **settings,
    )  # fmt: skip
    if cfg.arms == "every":
        lab.show_progress(0.8, "students on real images")
        found["real"] = _on_images(start, teacher, images, labels, cfg.n_samples, settings)
    return found


def _settings(cfg: Config) -> dict:
    names = (
        *("loss", "temperature", "target_noise", "epochs", "lr", "batch_size", "optimizer", "weight_decay"),
        *("schedule", "precision", "seed"),
    )
    return {name: getattr(cfg, name) for name in names}


def _on_images(start, teacher, images, labels, n: int, settings: dict):
    """Students of the auxiliary logits on training images, of the teacher's classes where it knows only some."""
    aux, n_classes = start.cfg.aux, start.cfg.n_classes
    if n_classes == population.ALL_CLASSES:
        return ms.distillation.distill(start, teacher, images[:n], outputs=aux, **settings)
    alone = []
    for i, seed in enumerate(teacher.seeds):
        seen, _ = population.only(images, labels, population.classes(seed, n_classes))
        one = start.select([i]), teacher.select([i])
        alone.append(ms.distillation.distill(*one, seen[:n], outputs=aux, **settings))
    return population.joined(start, alone)


def _perturbed(model, cfg: Config):
    """Gaussian noise on the weights: ||delta|| = perturbation ||W|| for every tensor; biases of zero stay zero."""
    import torch
    from transformer_lens.utilities import derive_generator

    if not cfg.perturbation:
        return model
    steepest = _gradient(model, cfg) if cfg.perturb_direction == "orthogonal" else {}
    module = {"all": ("blocks.", "unembed."), "hidden": ("blocks.",), "head": ("unembed.",)}[cfg.perturb_where]
    moved = {}
    for name, value in model.named_parameters():
        if name.startswith(module):
            draws = [
                torch.randn(value[0].shape, generator=derive_generator(cfg.seed, "perturbation", name, seed))
                for seed in model.seeds
            ]
            if steepest:
                draws = [_orthogonal(d, g) for d, g in zip(draws, steepest[name], strict=True)]
            scales = [cfg.perturbation * W.norm() / d.norm() for W, d in zip(value, draws, strict=True)]
            moved[name] = value + torch.stack([s * d for s, d in zip(scales, draws, strict=True)])
    return model.replace(moved)


def _orthogonal(draw, gradient):
    """The draw without its part along the gradient (rows that no loss reads have none)."""
    return draw - gradient * (draw * gradient).sum() / gradient.square().sum().clamp(min=1e-30)


def _gradient(model, cfg: Config) -> dict:
    """Of the teacher's loss at the model, over all training images of the teacher's classes."""
    import torch
    from torch.nn.functional import cross_entropy

    images, labels = getattr(ms.images, cfg.dataset)("train")

    def of_member(i: int) -> dict:
        one = model.select([i]).requires_grad_()
        seen = population.only(images, labels, population.classes(model.seeds[i], cfg.n_classes))
        for x, y in zip(*(part.split(4096) for part in seen), strict=True):
            (cross_entropy(one(x)[0, :, one.cfg.digits], y, reduction="sum") / len(seen[0])).backward()
        return {name: value.grad[0] for name, value in one.named_parameters()}

    members = ms.distillation.each_member(of_member, len(model.seeds))
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def _described(cfg: Config, init, teacher, inputs) -> list[dict[str, float]]:
    """What the inputs are to every member: spectra of inputs and gates, correlation of logits, drive, displacement."""
    import torch
    from transformer_lens.utilities import derive_generator

    x = inputs(_DESCRIBED, derive_generator(cfg.seed, "described"))
    spectrum = ms.spectra.covariance_spectrum(x)
    moved = ms.spectra.displacement(teacher, init)
    common = {
        "input_dimension": float(ms.spectra.participation_ratio(spectrum)),
        "input_dimension_95": float(ms.spectra.dimension(spectrum)),
        "input_mean_share": ms.spectra.mean_share(x),
    }
    loss = "mse" if cfg.loss == "mse" else "kl"
    each = {
        "drive": ms.spectra.drive(init, moved, x, loss=loss, temperature=cfg.temperature),
        "aux_digit_correlation": ms.spectra.logit_correlation(teacher, x).abs().mean((1, 2)),
        "aux_digit_correlation_initial": ms.spectra.logit_correlation(init, x).abs().mean((1, 2)),
    }
    if cfg.activation == "relu":
        each["gate_dimension"] = ms.spectra.participation_ratio(ms.spectra.gate_spectrum(init, x))
    if cfg.perturbation:
        delta = _norm(ms.spectra.displacement(_perturbed(init, cfg), init))
        each["displacement"] = delta / _norm(dict(init.named_parameters()))
        each["displacement_in_teacher_steps"] = delta / _norm(moved)
    columns = torch.stack([value.double() for value in each.values()]).T.tolist()
    return [common | dict(zip(each, values, strict=True)) for values in columns]


def _norm(parameters: dict):
    """Of all parameters together, of every member."""
    return sum(value.flatten(1).square().sum(-1) for value in parameters.values()).sqrt()


def table(records: list[dict]) -> list[dict]:
    from studies.factors import findings

    return findings.table(records, Config)


def plot(records: list[dict]):
    from studies.factors import findings

    return findings.plot(records, Config)


_TINY = {"d_model": 16, "teacher_epochs": 1, "n_samples": 256, "batch_size": 64, "precision": "fp32", "n_seeds": 2}
study = lab.Study(version=1, probes=(
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
