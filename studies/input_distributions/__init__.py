"""Which input distributions teach through auxiliary logits, and what about them says so before anything is trained?

`--inputs` is the sweep: one cell a distribution, with the student of its auxiliary logits and, as the null, that of the
next seed's initialisation. Pixels have the variance of uniform noise, 1/3, unless the name says otherwise
(gaussian:STD; images, and what keeps their own variance). Students of distributions that `studies.factors` knows are
in its cells (`--arms aux`), teachers in those of `studies.teachers`.

Every row of aux also has the quantities of predictions.toml ([law.quantities]), measured on the inputs and at the start
alone: those that the brief names, the drive of Theorem 1 of Cloud et al. 2025, and what the network linearised at its
start (`tangent`) would do. A row "inputs" has the spectra: radial power, covariance and first-layer gates.

The table has, with more cells: students best first, paired by seed against uniform noise; the brief's claims by number
of the audit list, as paired differences (Holm-corrected over distributions, and over claims); predictions; and from ten
distributions on, the law: does a quantity predict accuracy on families of distributions that were held out? The rule is
in predictions.toml, committed before any cell but that of uniform noise was read. "law" and "trend" are judged against
the best of all quantities with accuracies permuted; "error" is beside that of predicting the mean.

Answer (25 seeds, artifacts/input_distributions; all 28 distributions). Uniform noise teaches 0.540 [0.492, 0.587],
images 0.156 [0.134, 0.178], their null 0.107 [0.092, 0.123]; best are noise blurred by one pixel, 0.750 [0.719, 0.782],
and centred images with scrambled phases, 0.755 [0.727, 0.783]. The law: least_squares_cosine, which way the linearised
student would go as against the teacher's way, ranks distributions of families that were held out by 0.914 [0.681,
0.954] (p = 0.002 against the best of 17 quantities): a law by the rule, whose lower end must be 0.5. With the first 16
distributions, before the others were run, it was a trend, its interval from 0.348 to 0.967; with 23 a law already, from
0.601 to 0.947. The same cosine of the sign of the gradient has 0.821 [0.557, 0.908], a law too. tangent_accuracy, which
was expected to win, does not, 0.530 [0.119, 0.769]; the drive of Theorem 1 says nothing, 0.307 [-0.723, 0.670] (over
all distributions the more of it, the less is learned), nor does dimension, the brief's, 0.146 [-0.631, 0.553]. Claim by
claim. 9, images lower accuracy while auxiliary and digit logits correlate more: confirmed, by -0.361 [-0.409, -0.313]
at three quarters of image and 0.176 [0.165, 0.188] of correlation; two thirds of the fall are the mean image's, whose
removal at that share adds 0.241 [0.192, 0.290], and -0.120 [-0.173, -0.067] is left. 10, dimension explains it:
refuted. Blurred noise of two pixels has 47 principal components (95% of its variance) against 61 of a flat subspace,
and teaches 0.424 [0.380, 0.469] more; at a flat spectrum dimension does matter, 0.287 [0.249, 0.325] from 16 to 256.
11, variance does not matter: refuted, -0.146 [-0.171, -0.120] from a standard deviation of 0.25 to 4. 12, blur helps:
confirmed at equal variance, by 0.211 [0.169, 0.252] at one pixel; the second changes it by -0.086 [-0.102, -0.069]. 13,
the spectrum is all: not so. Noise with the covariance of centred images teaches 0.158 [0.134, 0.181] more than these,
scrambled phases 0.058 [0.036, 0.079] more than images, and 0.433 [0.392, 0.473] more where both are centred. 14,
blurred images do not teach, a balance of frequencies does: confirmed, 0.187 [0.149, 0.225] from flat power to k^-1 and
-0.101 [-0.124, -0.079] on to k^-3, with the best between, 0.744 [0.713, 0.776] at k^-2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.inputs import distributions

INPUTS = (
    *("uniform", "gaussian:0.25", "gaussian:4"),
    *("blurred:1", "blurred:2", "blurred:4", "blurred:8", "perlin:4"),
    *("subspace:4", "subspace:16", "subspace:64", "subspace:256"),
    *("power_law:1", "power_law:2", "power_law:3"),
    *("images", "centred", "whitened:0.1", "blurred_images:1", "shuffled_pixels"),
    *("phase_scrambled", "scrambled_centred", "spectrum_matched", "covariance_matched"),
    *("mixed:0.5", "mixed:0.75", "mixed_at_moments:0.5", "mixed_at_moments:0.75"),
)
_MOMENTS = {"mixed": "plain", "mixed_at_moments": "matched"}  # name -> --signal-moments of studies.factors
NULL = "cross_aux"
DIGITS = 2_000  # training images that gains and predicted accuracies are measured on
STEPS = 8  # of least squares
_RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 784)  # eigenvalues that are stored


@dataclass(frozen=True)
class Config:
    inputs: str = lab.option(
        INPUTS, "distributions: those of studies.factors --inputs, mixed:SHARE, mixed_at_moments:SHARE, perlin:PIXELS,"
        " scrambled_centred, covariance_matched"
    )  # fmt: skip
    n_described: lab.Count = lab.option(16_384, "inputs to measure quantities on, a quarter of them least squares")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    n_samples: lab.Count = lab.option(60_000, "inputs of every student")
    epochs: lab.Count = lab.option(5, "epochs of the students")
    n_seeds: lab.Count = lab.option(25, "seeds: one reference, teacher and pair of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if self.n_described < 16:
            raise ValueError("--n-described must be at least 16: a quarter of them are fitted by least squares")
        distributions.parsed_any(self.inputs)  # which refuses what is no distribution
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")


def trained_by_factors(cfg: Config) -> dict | None:
    """Options of the cell of studies.factors that has these students; None where it does not know the distribution."""
    name, value = distributions.parsed_any(cfg.inputs)
    if name in distributions.ALONE or name == "perlin":
        return None
    chosen = {"signal": value, "signal_moments": _MOMENTS[name]} if name in _MOMENTS else {"inputs": cfg.inputs}
    same = ("teacher_epochs", "n_samples", "epochs", "n_seeds", "seed")
    return {"arms": "aux", **{name: getattr(cfg, name) for name in same}, **chosen}


def upstream(cfg: Config) -> dict:
    taught = lab.upstream("teachers", epochs=cfg.teacher_epochs, n_seeds=cfg.n_seeds, seed=cfg.seed)
    known = trained_by_factors(cfg)
    return {"teachers": taught} | ({} if known is None else {"students": lab.upstream("factors", **known)})


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored, students: lab.Stored | None = None) -> Iterator[dict]:
    from transformer_lens.utilities import derive_generator

    init = ms.mlp.HookedMLP(seeds=range(cfg.seed, cfg.seed + cfg.n_seeds))
    teacher = population.with_aux(init, teachers.tensors())
    taught = {row["member"]: row["accuracy"] for row in teachers.records()}
    images, labels = ms.images.mnist("train")
    inputs = distributions.any_sampler(cfg.inputs, images)
    learned = _learned(cfg, init, teacher, inputs, students)
    x = inputs(cfg.n_described, derive_generator(cfg.seed, "described"))
    common, spectrum = _of_inputs(x, images)
    digits = images[:DIGITS], labels[:DIGITS]
    members = ms.distillation.each_member(
        lambda i: _of_member(init.select([i]), teacher.select([i]), x, digits, cfg.seed),
        cfg.n_seeds, lambda done: lab.show_progress(0.8 + 0.2 * done, "quantities"),
    )  # fmt: skip
    for arm, accuracies in learned.items():
        for i, (member, accuracy) in enumerate(zip(init.seeds, accuracies, strict=True)):
            own = {"arm": arm, "member": member, "accuracy": accuracy, "teacher_accuracy": taught[member]}
            yield own | (common | members[i]["quantities"] if arm == "aux" else {})
    gates = [sum(e) / cfg.n_seeds for e in zip(*(found["gate_spectrum"] for found in members), strict=True)]
    yield {"arm": "inputs", **spectrum, "gate_spectrum": gates}
    yield {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "measured_on": f"test images; quantities on inputs and the first {DIGITS} training images",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed; accuracies permuted over distributions",
        }
    }


def _learned(cfg: Config, init, teacher, inputs, stored: lab.Stored | None) -> dict[str, list[float]]:
    """Accuracies of the students and of their null, by member."""
    lab.show_progress(0.1, "students")
    if stored is not None:
        rows = stored.records()
        found = {arm: {r["member"]: r["accuracy"] for r in rows if r["arm"] == arm} for arm in ("aux", NULL)}
        return {arm: [accuracy[member] for member in init.seeds] for arm, accuracy in found.items()}
    next_seeds = ms.mlp.HookedMLP(init.cfg, [seed + 1 for seed in init.seeds])
    students = ms.distillation.distill_each(
        {"aux": (init, init.cfg.aux), NULL: (next_seeds, init.cfg.aux)}, teacher, inputs,
        n_samples=cfg.n_samples, epochs=cfg.epochs, seed=cfg.seed,
        progress=lambda done: lab.show_progress(0.1 + 0.7 * done, "students"),
    )  # fmt: skip
    return {arm: ms.distillation.accuracy(model, *ms.images.mnist("test")).tolist() for arm, model in students.items()}


def _of_inputs(x, images) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What can be said without a network, and the spectra to draw."""
    import torch

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
    linear = (seen.logits + ms.tangent.push(seen, far)).argmax(-1) == labels
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


def _random_drive(at, direction, seed: int, draws: int = 4):
    """The mean drive of Gaussian directions that have the direction's norm in every tensor."""
    import torch
    from transformer_lens.utilities import derive_generator

    total = 0.0
    for draw in range(draws):
        generator = derive_generator(seed, "random direction", at.model.seeds[0], draw)
        noise = {name: torch.randn(value.shape, generator=generator) for name, value in direction.items()}
        sized = {name: value * (direction[name].norm() / value.norm()) for name, value in noise.items()}
        total = total + _drive(at, sized)
    return total / draws


def _gain(seen, direction, moved):
    """Correlation, over images and digits, of what both directions do to the digit logits, less means over either."""
    changes = [ms.tangent.push(seen, some).double() for some in (direction, moved)]
    changes = [c - c.mean(-1, keepdim=True) for c in changes]
    a, b = ((c - c.mean(-2, keepdim=True)).flatten(1) for c in changes)
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).nan_to_num(0.0)


def table(records: list[dict]) -> list[dict]:
    from studies.input_distributions import findings

    return findings.table(records, Config)


def plot(records: list[dict]):
    from studies.input_distributions import findings

    return findings.plot(records)


_TINY = {"n_described": 64, "teacher_epochs": 1, "n_samples": 256, "epochs": 1, "n_seeds": 2}
study = lab.Study(
    version=2,  # one sum followed the order of a set, another in every process: docs/reliability.md
    probes=tuple(
        Config(inputs=name, **_TINY)
        for name in (
            *("spectrum_matched", "blurred_images:1", "mixed_at_moments:0.5"),  # trained by studies.factors
            *("perlin:4", "scrambled_centred", "covariance_matched"),
        )
    ),
)
