"""What `studies.factors` measures: five students of every seed, and what their inputs are."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch.nn.functional import cross_entropy
from transformer_lens.utilities import derive_generator

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.inputs import distributions
from studies.factors import NULL, Config

_DESCRIBED = 2_000  # inputs that spectra and drive are measured on


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
    known = population.scores(teacher, init.seeds, test, (images, labels))
    for arm, student in _students(cfg, init, teacher, inputs, images, labels).items():
        scores = population.scores(student, init.seeds, test, (images, labels))
        for i, (member, found) in enumerate(zip(init.seeds, scores, strict=True)):
            yield {
                "arm": arm,
                "member": member,
                **found,
                "kappa": population.kappa(found["accuracy"], cfg.n_classes),
                "recentred_kappa": population.kappa(found["recentred"], cfg.n_classes),
                "teacher_accuracy": taught[member],
                "teacher_recentred": known[i]["recentred"],
                "products": products,
                **(described[i] if arm == "aux" else {}),
            }
    yield {
        "provenance": {
            "data": ms.images.hashes(cfg.dataset.replace("_", "-")),
            "dtype": f"fp32 weights and losses, {products} products in training",
            "measured_on": f"its classes' test images; offsets on the first {population.UNLABELLED} training "
            f"images of these; inputs described by {_DESCRIBED} of them",
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
    if not cfg.perturbation:
        return model
    steepest = _gradient(model, cfg) if cfg.perturb_direction == "orthogonal" else {}
    module = {"all": ("blocks.", "unembed."), "hidden": ("blocks.",), "head": ("unembed.",)}[cfg.perturb_where]
    moved = {}
    for name, value in model.named_parameters():
        if name.startswith(module):
            draws = [
                torch.randn(value[0].shape, generator=derive_generator(cfg.seed, "perturbation", name, seed)).to(value)
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
    images, labels = getattr(ms.images, cfg.dataset)("train")

    def of_member(i: int) -> dict:
        one = model.select([i]).requires_grad_()
        seen = population.only(images, labels, population.classes(model.seeds[i], cfg.n_classes))
        for x, y in zip(*(part.split(4096) for part in seen), strict=True):
            (cross_entropy(one(x)[0, :, one.cfg.digits], y.to(one.device), reduction="sum") / len(seen[0])).backward()
        return {name: value.grad[0] for name, value in one.named_parameters()}

    members = ms.distillation.each_member(of_member, len(model.seeds))
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def _described(cfg: Config, init, teacher, inputs) -> list[dict[str, float]]:
    """What the inputs are to every member: spectra of inputs and gates, correlation of logits, drive, displacement."""
    x = inputs(_DESCRIBED, derive_generator(cfg.seed, "described"))
    spectrum = ms.spectra.covariance_spectrum(x)
    moved = ms.spectra.displacement(teacher, init)
    common = {
        "input_dimension": float(ms.spectra.participation_ratio(spectrum)),
        "input_dimension_95": float(ms.spectra.dimension(spectrum)),
        "input_mean_share": ms.spectra.mean_share(x),
    }
    loss: Literal["kl", "mse"] = "mse" if cfg.loss == "mse" else "kl"
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
