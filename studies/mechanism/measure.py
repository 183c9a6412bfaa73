"""What `studies.mechanism` measures, part by part."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from transformer_lens.utilities import derive_generator

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from studies.mechanism import MODULES, Config, check_frozen, gradients, layers

TRAINED = ("W1+W2+aux", "W1+W2", "W1+aux", "W2+aux", "W1", "W2")  # aux alone cannot change a digit logit
NULL = "cross"
N_INPUTS = 16  # input directions of W1 and of W2 that hold most of the teacher's change
_MEASURED = 2_000  # noise images that the distillation loss is measured on


class Toy(NamedTuple):
    """Initial networks, those of the next seed, teachers, their accuracy, and images with labels of both splits."""

    init: "ms.HookedMLP"
    other: "ms.HookedMLP"
    teacher: "ms.HookedMLP"
    taught: dict[int, float]
    test: tuple
    training: tuple


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored, linear: lab.Stored | None = None) -> Iterator[dict]:
    toy = _toy(cfg, teachers)
    if linear is not None:
        return _gradient(cfg, toy, _toy(cfg, linear, "identity"))
    parts = {"freeze": _freeze, "reinit": _reinit, "layers": _layers, "ablation": _ablation, "controls": _controls}
    return parts[cfg.part](cfg, toy)


def _toy(cfg: Config, stored: lab.Stored, activation: Literal["relu", "identity"] = "relu") -> Toy:
    shape = ms.mlp.MLPConfig(d_model=cfg.d_model, n_aux=cfg.n_aux, activation=activation)
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    init = ms.mlp.HookedMLP(shape, seeds)
    other = ms.mlp.HookedMLP(shape, [seed + 1 for seed in seeds])
    taught = {row["member"]: row["accuracy"] for row in stored.records()}
    teacher = population.with_aux(init, stored.tensors())
    return Toy(init, other, teacher, taught, ms.images.mnist("test"), ms.images.mnist("train"))


def _settings(cfg: Config) -> dict:
    held = check_frozen(cfg.frozen)
    return {
        "n_samples": cfg.n_samples, "epochs": cfg.epochs, "precision": cfg.precision, "seed": cfg.seed,
        "frozen": tuple(MODULES[name] for name in MODULES if name in held),
    }  # fmt: skip


def _provenance(cfg: Config, **more) -> dict:
    products = ms.distillation.resolve_precision(cfg.precision)
    return {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "dtype": f"fp32 weights and losses, {products} products in training",
            "measured_on": f"the test images; distillation loss on {_MEASURED} fresh noise images",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed",
            **more,
        }
    }


def _fresh_noise(cfg: Config, n: int):
    return ms.noise.uniform(n, derive_generator(cfg.seed, "mechanism"))


def _rows(cfg: Config, toy: Toy, models: "Mapping[str, ms.HookedMLP]") -> Iterator[dict]:
    """Accuracies, and the distillation loss, of every member of every arm."""
    x = _fresh_noise(cfg, _MEASURED)
    for arm, model in models.items():
        scores = population.scores(model, toy.init.seeds, toy.test, toy.training)
        losses = population.divergence(model, toy.teacher, x).tolist()
        for member, found, loss in zip(toy.init.seeds, scores, losses, strict=True):
            taught = toy.taught[member]
            yield {"arm": arm, "member": member, **found, "kl": loss, "teacher_accuracy": taught}


def _freeze(cfg: Config, toy: Toy) -> Iterator[dict]:
    settings = _settings(cfg)
    yield from _rows(cfg, toy, {"initial": toy.init})
    for i, trained in enumerate(TRAINED):
        students = {trained: (toy.init, toy.init.cfg.aux)}
        if not i:
            students[NULL] = (toy.other, toy.init.cfg.aux)
        frozen = tuple(MODULES[name] for name in MODULES if name not in trained.split("+"))
        learned = ms.distillation.distill_each(
            students, toy.teacher, ms.noise.uniform, **(settings | {"frozen": frozen}),
            progress=lambda done, i=i: lab.show_progress((i + done) / len(TRAINED), "students"),
        )  # fmt: skip
        yield from _rows(cfg, toy, learned)
    yield _provenance(cfg)


def _reinit(cfg: Config, toy: Toy) -> Iterator[dict]:
    """Digit rows are in no loss: one student serves both starts of them."""
    sets = [s for n in range(4) for s in itertools.combinations(MODULES, n)]
    starts = {"+".join(shared): sharing(toy.init, toy.other, set(shared)) for shared in sets}
    learned = ms.distillation.distill_each(
        {name: (start, start.cfg.aux) for name, start in starts.items()}, toy.teacher, ms.noise.uniform,
        **_settings(cfg),
        progress=lambda done: lab.show_progress(done, "students"),
    )  # fmt: skip
    for name, student in learned.items():
        shared = [part for part in name.split("+") if part]
        own = with_digits(student, toy.init)
        arms = {"+".join(shared) or "nothing": student, "+".join([*shared, "digits"]): own}
        for row in _rows(cfg, toy, arms):
            yield row | {"shared": sorted(row["arm"].replace("nothing", "").split("+"))}
    yield _provenance(cfg)


def sharing(init, other, shared: set[str]):
    """The other start with the named parts of `init`, and the digit rows of its own."""
    mine, theirs = dict(init.named_parameters()), dict(other.named_parameters())
    taken = {n: v for n, v in mine.items() if n.startswith(tuple(MODULES[p] for p in shared - {"aux"}) or "-")}
    if "aux" in shared:
        for n in ("unembed.W_U", "unembed.b_U"):
            taken[n] = torch.cat([theirs[n][..., init.cfg.digits], mine[n][..., init.cfg.aux]], dim=-1)
    return other.replace(taken)


def with_digits(student, start):
    """The student with the digit rows of another network."""
    own, rows = dict(student.named_parameters()), dict(start.named_parameters())
    digits, aux = start.cfg.digits, start.cfg.aux
    names = ("unembed.W_U", "unembed.b_U")
    return student.replace({n: torch.cat([rows[n][..., digits], own[n][..., aux]], dim=-1) for n in names})


def _layers(cfg: Config, toy: Toy) -> Iterator[dict]:
    aux = toy.init.cfg.aux
    learned = ms.distillation.distill_each(
        {"student": (toy.init, aux), NULL: (toy.other, aux)}, toy.teacher, ms.noise.uniform, **_settings(cfg),
        progress=lambda done: lab.show_progress(0.6 * done, "students"),
    )  # fmt: skip
    yield from layers.records(toy, learned["student"], learned[NULL])
    yield _provenance(cfg, similarity=f"debiased CKA on {layers.N_SIMILAR} test images spread over the file")


def _gradient(cfg: Config, relu: Toy, identity: Toy) -> Iterator[dict]:
    settings = _settings(cfg)
    aux = relu.init.cfg.aux
    seen = _fresh_noise(cfg, gradients.N_NOISE), *gradients.some_images(*ms.images.mnist("train"))
    steps = gradients.steps(cfg)
    runs: tuple[tuple[Toy, Literal["kl", "mse"], dict], ...] = (
        (relu, "kl", {"student": (relu.init, aux), NULL: (relu.other, aux)}),
        (relu, "mse", {"squared error": (relu.init, aux)}),
        (identity, "kl", {"no gates": (identity.init, aux), "no gates, cross": (identity.other, aux)}),
    )
    for i, (toy, loss, students) in enumerate(runs):
        kept: dict[str, dict] = {arm: dict.fromkeys(steps) for arm in students}
        ms.distillation.distill_each(
            students, toy.teacher, ms.noise.uniform, loss=loss, snapshots=kept, **settings,
            progress=lambda done, i=i: lab.show_progress((i + 0.8 * done) / len(runs), "students"),
        )  # fmt: skip
        for arm, models in kept.items():
            yield from gradients.records(arm, models, toy, seen, loss)
    yield _provenance(
        cfg, gradients=f"of {gradients.N_NOISE} fresh noise images and {gradients.N_IMAGES} training images"
    )


def _ablation(cfg: Config, toy: Toy) -> Iterator[dict]:
    images, labels = ms.images.mnist("train")
    trait = ms.removal.trait_gradient(toy.init, images, labels, batch_size=512, precision=cfg.precision, seed=cfg.seed)
    way = _hidden(ms.spectra.displacement(toy.teacher, toy.init))
    removals = _removals(toy.init, {"trait": trait, "teacher": ms.removal.fixed(way)}, way, cfg.seed)
    learned = ms.removal.distill_without(
        {arm: (toy.init, removal) for arm, removal in removals.items()}, toy.teacher, ms.noise.uniform,
        outputs=toy.init.cfg.aux, progress=lambda done: lab.show_progress(done, "students"), **_settings(cfg),
    )  # fmt: skip
    yield from _deprived(cfg, toy, {"initial": toy.init, **learned}, way)
    yield _provenance(cfg, null="the initial network, paired by seed", trait="gradient on 512 training images a step")


def _deprived(cfg: Config, toy: Toy, learned: "Mapping[str, ms.HookedMLP]", way: dict) -> Iterator[dict]:
    """Rows of every member of every arm: what it learned, and how far it went, and where."""
    for arm, model in learned.items():
        gone = _hidden(ms.spectra.displacement(model, toy.init))
        parts = _rows(cfg, toy, {arm: model}), layers.logit_cosines(toy, model), *_against(gone, way)
        for row, of_logits, cosine, length in zip(*parts, strict=True):
            yield row | {"logit_cosine": of_logits, "cosine_with_teacher": cosine, "length": length}


def _controls(cfg: Config, toy: Toy) -> Iterator[dict]:
    options = {"outputs": toy.init.cfg.aux, **_settings(cfg)}
    way = _hidden(ms.spectra.displacement(toy.teacher, toy.init))
    plain = ms.removal.distill_without(
        {"none": (toy.init, None)}, toy.teacher, ms.noise.uniform, **options,
        progress=lambda done: lab.show_progress(0.15 * done, "students"),
    )["none"]  # fmt: skip
    removals = _real_controls(toy, plain, way, cfg.seed)
    sums: dict[str, dict[int, list[float]]] = {arm: {} for arm in removals}
    arms = {arm: (toy.init, _counted(removal, sums[arm])) for arm, removal in removals.items()}
    learned = ms.removal.distill_without(
        arms, toy.teacher, ms.noise.uniform, **options,
        progress=lambda done: lab.show_progress(0.15 + 0.85 * done, "students"),
    )  # fmt: skip
    for row in _deprived(cfg, toy, {"initial": toy.init, "none": plain, **learned}, way):
        yield row | (_taken(*sums[row["arm"]][row["member"] - cfg.seed]) if row["arm"] in sums else {})
    yield _provenance(cfg, null="the initial network, paired by seed")


def _real_controls(toy: Toy, plain, way: dict, seed: int) -> dict[str, ms.removal.Removal]:
    """Arm -> what is taken out of each update: the teacher's displacement, the published control, and five others."""
    gone = _hidden(ms.spectra.displacement(plain, toy.init))
    along = ms.removal.component(gone, way, "neuron")
    rest = {name: gone[name] - along[name] for name in along}
    shifted = {name: value[ms.mlp.rotation(len(value))] for name, value in way.items()}
    teachers, random = ms.removal.fixed(way), _random(toy, way, seed)
    inputs = ms.removal.inputs_of({name: value for name, value in way.items() if name.endswith(".W")}, N_INPUTS)
    beside = {name: gone[name] - basis @ (basis.mT @ gone[name]) for name, basis in inputs.items()}

    def one_random(member: int, step: int, before: dict, update: dict) -> dict:
        own = {name: value[member] for name, value in random.items()}
        return ms.removal.component(update, teachers(member, step, before), "neuron", instead=own)

    return {
        "teacher, neuron": ms.removal.along(teachers, "neuron"),
        "teacher, neuron, control": ms.removal.elsewhere(teachers, toy.init, "neuron", seed=seed),
        "fixed direction": one_random,
        "own rest": ms.removal.along(ms.removal.fixed(rest), "neuron"),
        "next teacher": ms.removal.along(ms.removal.fixed(shifted), "neuron"),
        "inputs": ms.removal.within(inputs),
        "own inputs": ms.removal.within(ms.removal.inputs_of(beside, N_INPUTS)),
    }


def _random(toy: Toy, like: dict, seed: int) -> dict:
    return {
        name: torch.stack(
            [
                torch.randn(value[0].shape, generator=derive_generator(seed, "fixed direction", name, s)).to(value)
                for s in toy.init.seeds
            ]
        )
        for name, value in like.items()
    }


def _counted(removal: ms.removal.Removal, sums: dict[int, list[float]]) -> ms.removal.Removal:
    """A removal that adds up, for every member: the squares of what it takes out of the updates of hidden layers, its
    product with them, and their squares."""

    def removed(member: int, step: int, before: dict, update: dict) -> dict:
        part = removal(member, step, before, update)
        own = sums.setdefault(member, [0.0, 0.0, 0.0])
        for name, value in _hidden(update).items():
            own[2] += float(value.square().sum())
            if name in part:
                own[0] += float(part[name].square().sum())
                own[1] += float((part[name] * value).sum())
        return part

    return removed


def _taken(squares: float, product: float, whole: float) -> dict[str, float]:
    return {"taken": squares / whole, "was_there": product / whole}


def _hidden(displacement: dict) -> dict:
    """Of the hidden layers: the teacher also moves its digit rows, and students never do."""
    return {name: value for name, value in displacement.items() if name.startswith("blocks.")}


def _removals(init, directions: Mapping, way: dict, seed: int) -> "dict[str, ms.removal.Removal | None]":
    """Arm -> what its updates are deprived of."""
    removals: dict[str, ms.removal.Removal | None] = {"none": None}
    for name, direction in directions.items():
        removals |= {f"{name}, {by}": ms.removal.along(direction, by) for by in ("whole", "neuron")}
        removals[f"{name}, neuron, control"] = ms.removal.elsewhere(direction, init, "neuron", seed=seed)
    hidden = {name: value for name, value in way.items() if name.endswith(".W")}
    random = {
        name: torch.stack(
            [torch.randn(value[0].shape, generator=derive_generator(seed, name, s)).to(value) for s in init.seeds]
        )
        for name, value in hidden.items()
    }
    for arm, change in (("inputs", hidden), ("inputs, control", random)):
        removals[arm] = ms.removal.within(ms.removal.inputs_of(change, N_INPUTS))
    return removals


def _against(gone: dict, way: dict) -> tuple[list[float], list[float]]:
    """Cosine of two displacements, and the length of the first over the second's."""
    ab, aa, bb = (ms.removal.products(a, b, "whole")[""][:, 0] for a, b in ((gone, way), (gone, gone), (way, way)))
    return (ab / (aa * bb).sqrt()).nan_to_num(0.0).tolist(), (aa / bb).sqrt().tolist()
