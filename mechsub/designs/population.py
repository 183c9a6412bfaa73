"""Teachers and students of the toy, as the studies of hidden layers look at them: arm by arm, at several steps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechsub.lab import study

_BATCH = 1_000  # images a forward pass


@dataclass(frozen=True)
class Toy:
    """Untrained references, those of the next seed, trained teachers, and the recipe that they were trained by.

    The next seed's, not a rotation of the ensemble's: so that a seed's control is the same in any ensemble.
    """

    init: Any
    other: Any
    teacher: Any
    n_images: int
    fit: dict
    steps: list[int]


def teachers(cfg) -> Toy:
    from mechsub.inputs import images as data
    from mechsub.models import mlp
    from mechsub.training import distillation

    images, labels = getattr(data, cfg.dataset)("train")
    precision = distillation.resolve_precision(cfg.precision)
    fit = {"epochs": cfg.epochs, "lr": cfg.lr, "batch_size": cfg.batch_size, "precision": precision, "seed": cfg.seed}
    shape = mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux)
    init = mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    other = mlp.HookedMLP(shape, range(cfg.seed + 1, cfg.seed + cfg.n_seeds + 1))
    teacher = distillation.train(init, images, labels, **fit)
    return Toy(init, other, teacher, len(images), fit, _steps(len(images), cfg))


def start(toy: Toy, arm: str):
    """What the students of an arm are before they learn: their teacher's own start, or another seed's."""
    return toy.other if arm.startswith("cross") else toy.init


def students(toy: Toy, arms: Sequence[str], cfg) -> dict[str, dict[int, Any]]:
    """Arm -> training step -> its students; an arm that ends in "aux" sees the auxiliary logits, others all."""
    shape = toy.init.cfg
    seen = {arm: shape.aux if arm.endswith("aux") else slice(0, shape.d_vocab) for arm in arms}
    snapshots: dict[str, dict] = {arm: dict.fromkeys(toy.steps) for arm in arms}
    distilled(toy, {arm: (start(toy, arm), seen[arm]) for arm in arms}, cfg, snapshots)
    return snapshots


def distilled(toy: Toy, starts: Mapping[str, tuple], cfg, snapshots: Mapping | None = None) -> dict[str, Any]:
    """Arm -> students at the end, from arm -> (start, logits seen); all arms of a seed see the same noise."""
    from mechsub.inputs.noise import uniform
    from mechsub.training import distillation

    return distillation.distill_each(
        starts, toy.teacher, uniform,
        noise=cfg.noise, loss=cfg.loss, n_samples=toy.n_images, snapshots=snapshots,
        progress=lambda done: study.progress(0.2 + 0.6 * done, "students"), **toy.fit,
    )  # fmt: skip


def onward(body, layer: int, hidden):
    """Logits of a network from its hidden states after block `layer` on, [seed, image, d_vocab]."""
    for block in list(body.blocks)[layer + 1 :]:
        hidden = block(hidden)
    return body.unembed(body.ln_final(hidden))


def batches(images, labels, bodies: Sequence) -> Iterator[tuple]:
    """Labels, and the hidden states of every network as a list over layers, batch by batch."""
    from mechsub.models.hooked import cache_activations

    for x, y in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        yield y, *(list(cache_activations(body, x).values()) for body in bodies)


def n_right(body, layer: int, hidden, labels):
    """How many images the digit logits of a network get right from given hidden states on, fp64 [seed]."""
    return (onward(body, layer, hidden)[..., body.cfg.digits].argmax(-1) == labels).double().sum(-1)


def provenance(toy: Toy, cfg) -> dict:
    """What both studies say about how their students were made."""
    from mechsub.inputs import images as data

    return {
        "data": data.hashes(cfg.dataset.replace("_", "-")),
        "products": toy.fit["precision"],
        "dtype": f"fp32 weights and losses, {toy.fit['precision']} products in training; similarity in fp64",
        "inputs": f"uniform noise on 256 levels in [-1, 1], {cfg.noise}, {toy.n_images} images",
        "control": "initialisation of the next seed",
        "null": "untrained reference, cross-initialisation student",
    }


def _steps(n_images: int, cfg) -> list[int]:
    total = cfg.epochs * -(-n_images // cfg.batch_size)
    n = getattr(cfg, "n_steps", 1)  # a study without that option looks at the last step
    return sorted({max(1, round(total * k / n)) for k in range(1, n + 1)})
