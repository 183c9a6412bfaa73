"""What `studies.input_distributions` measures: students, and what could be said of them at their start."""

from collections.abc import Iterator

import torch
from transformer_lens.utilities import derive_generator

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.inputs import distributions
from studies.input_distributions import NULL, Config

DIGITS = 2_000  # training images that gains and predicted accuracies are measured on
STEPS = 8  # of least squares
_RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 784)  # eigenvalues that are stored


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored, students: lab.Stored | None = None) -> Iterator[dict]:
    init = ms.mlp.HookedMLP(seeds=range(cfg.seed, cfg.seed + cfg.n_seeds))
    teacher = population.with_aux(init, teachers.tensors())
    taught = {row["member"]: row["accuracy"] for row in teachers.records()}
    images, labels = ms.images.mnist("train")
    inputs = distributions.any_sampler(cfg.inputs, images)
    learned = _learned(cfg, init, teacher, inputs, students, (images, labels))
    x = inputs(cfg.n_described, derive_generator(cfg.seed, "described"))
    common, spectrum = _of_inputs(x, images)
    digits = images[:DIGITS], labels[:DIGITS]
    members = ms.distillation.each_member(
        lambda i: _of_member(init.select([i]), teacher.select([i]), x, digits, cfg.seed),
        cfg.n_seeds, lambda done: lab.show_progress(0.8 + 0.2 * done, "quantities"),
    )  # fmt: skip
    for arm, scores in learned.items():
        for i, (member, found) in enumerate(zip(init.seeds, scores, strict=True)):
            own = {"arm": arm, "member": member, **found, "teacher_accuracy": taught[member]}
            yield own | (common | members[i]["quantities"] if arm == "aux" else {})
    gates = [sum(e) / cfg.n_seeds for e in zip(*(found["gate_spectrum"] for found in members), strict=True)]
    yield {"arm": "inputs", **spectrum, "gate_spectrum": gates}
    yield {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "measured_on": f"test images; offsets on the first {population.UNLABELLED} training images; quantities on "
            f"inputs and the first {DIGITS} training images",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed; accuracies permuted over distributions",
        }
    }


def _learned(cfg: Config, init, teacher, inputs, stored: lab.Stored | None, training: tuple) -> dict[str, list[dict]]:
    """Accuracies of the students and of their null, by member: see `population.scores`."""
    lab.show_progress(0.1, "students")
    if stored is not None:
        rows = {(row["arm"], row["member"]): row for row in stored.records()}
        return {
            arm: [{score: rows[arm, member][score] for score in population.SCORES} for member in init.seeds]
            for arm in ("aux", NULL)
        }
    next_seeds = ms.mlp.HookedMLP(init.cfg, [seed + 1 for seed in init.seeds])
    students = ms.distillation.distill_each(
        {"aux": (init, init.cfg.aux), NULL: (next_seeds, init.cfg.aux)}, teacher, inputs,
        n_samples=cfg.n_samples, epochs=cfg.epochs, seed=cfg.seed,
        progress=lambda done: lab.show_progress(0.1 + 0.7 * done, "students"),
    )  # fmt: skip
    test = ms.images.mnist("test")
    return {arm: population.scores(model, init.seeds, test, training) for arm, model in students.items()}


def _of_inputs(x, images) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What can be said without a network, and the spectra to draw."""
    values, radial = ms.spectra.covariance_spectrum(x), ms.spectra.radial_power(x)
    one = torch.fft.fftfreq(28, 1 / 28)
    modes = torch.hypot(one[:, None], one[None]).round().long().flatten().bincount()
    low = (radial * modes[: len(radial)])[1:5].sum() / x.double().square().sum(-1).mean()
    covariances = [torch.cov(some.T) for some in (x, images)]
    overlap = (covariances[0] * covariances[1]).sum() / (covariances[0].norm() * covariances[1].norm())
    quantities = {
        "input_dimension": float(ms.spectra.participation_ratio(values)),
        "input_dimension_95": float(ms.spectra.dimension(values)),
        "input_mean_share": ms.spectra.mean_share(x),
        "low_frequency_power": float(low),
        "covariance_overlap": float(overlap),
        "input_variance": float(values.sum()) / x.shape[-1],
    }
    return quantities, {"radial_power": radial.tolist(), "input_spectrum": _at_ranks(values)}


def _of_member(reference, teacher, x, digits: tuple, seed: int) -> dict:
    """Quantities of one seed, all at its start; see predictions.toml for what each is."""
    images, labels = digits
    cfg, few = reference.cfg, x[: len(x) // 4]
    moved = ms.spectra.displacement(teacher, reference)
    hidden = {name: value for name, value in moved.items() if name.startswith("blocks.")}
    at, seen = ms.tangent.tangent(reference, few, cfg.aux), ms.tangent.tangent(reference, images, cfg.digits)
    targets = ms.tangent.tangent(teacher, x, cfg.aux).logits
    first = ms.tangent.descent(ms.tangent.tangent(reference, x, cfg.aux), targets)
    sign = {name: value.sign() for name, value in first.items()}
    step = ms.tangent.least_squares(at, targets[:, : len(few)], STEPS)
    far = _as_far(step, hidden)
    named = {name: value + far[name] for name, value in reference.named_parameters()}
    linear = (seen.logits + ms.tangent.push(seen, far)).argmax(-1) == labels.to(seen.logits.device)
    gates = ms.spectra.covariance_spectrum(at.gates[0])
    drive = _drive(at, moved)
    quantities = {
        "aux_digit_correlation": ms.spectra.logit_correlation(teacher, few).abs().mean((1, 2)),
        "gate_dimension": ms.spectra.participation_ratio(gates),
        "drive": drive,
        "drive_share": drive / _random_drive(at, moved, seed),
        "gradient_cosine": ms.tangent.cosine(first, hidden),
        "sign_cosine": ms.tangent.cosine(sign, hidden),
        "gradient_gain": _gain(seen, first, moved),
        "sign_gain": _gain(seen, sign, moved),
        "least_squares_cosine": ms.tangent.cosine(step, hidden),
        "least_squares_gain": _gain(seen, step, moved),
        "linearised_accuracy": linear.double().mean(-1),
        "tangent_accuracy": ms.distillation.accuracy(reference.replace(named), images, labels),
    }
    return {
        "quantities": {name: float(value) for name, value in quantities.items()},
        "gate_spectrum": _at_ranks(gates[0]),
    }


def _as_far(step, moved):
    """The step, as long as the move of the parameters that moved; itself where it does not move these."""
    own = {name: step[name] for name in moved}
    length = (ms.tangent.dot(moved, moved) / ms.tangent.dot(own, own)).sqrt()
    scale = float(length) if length.isfinite().all() else 1.0
    return {name: value * scale for name, value in step.items()}


def _at_ranks(values) -> list[float]:
    return [float(values[rank - 1]) for rank in _RANKS if rank <= len(values)]


def _drive(at, direction):
    """E |M^(1/2) J direction|^2, of every member."""
    moved = ms.tangent.push(at, direction)
    return (moved * ms.tangent.curved(at.logits.softmax(-1), moved)).sum(-1).mean(-1)


def _random_drive(at, direction, seed: int):
    """The mean drive of four Gaussian directions that have the direction's norm in every tensor."""
    total = 0.0
    for draw in range(4):
        generator = derive_generator(seed, "random direction", at.model.seeds[0], draw)
        noise = {name: torch.randn(value.shape, generator=generator).to(value) for name, value in direction.items()}
        sized = {name: value * (direction[name].norm() / value.norm()) for name, value in noise.items()}
        total = total + _drive(at, sized)
    return total / 4


def _gain(seen, direction, moved):
    """Correlation, over images and digits, of what both directions do to the digit logits, less means over either."""
    changes = [ms.tangent.push(seen, some).double() for some in (direction, moved)]
    changes = [c - c.mean(-1, keepdim=True) for c in changes]
    a, b = ((c - c.mean(-2, keepdim=True)).flatten(1) for c in changes)
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).nan_to_num(0.0)
