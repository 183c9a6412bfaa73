"""Teachers and students of the toy, as the studies of hidden layers look at them: arm by arm, at several steps."""

from dataclasses import dataclass
from typing import Any

STITCH_IMAGES = 2_000


@dataclass(frozen=True)
class Toy:
    """Untrained references, those of the next seed, trained teachers, and the recipe that they were trained by."""

    init: Any
    other: Any
    teacher: Any
    n_images: int
    fit: dict
    steps: list[int]


def teachers(cfg) -> Toy:
    from mechsub import data, distillation, mlp

    images, labels = getattr(data, cfg.dataset)("train")
    precision = distillation.resolve_precision(cfg.precision)
    fit = {"epochs": cfg.epochs, "lr": cfg.lr, "batch_size": cfg.batch_size, "precision": precision, "seed": cfg.seed}
    shape = mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux)
    init = mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    other = init.select(mlp.rotation(cfg.n_seeds))
    teacher = distillation.train(init, images, labels, **fit)
    return Toy(init, other, teacher, len(images), fit, _steps(len(images), cfg))


def start(toy: Toy, arm: str):
    """What the students of an arm are before they learn: their teacher's own start, or another seed's."""
    return toy.other if arm.startswith("cross") else toy.init


def students(toy: Toy, arm: str, cfg) -> dict[int, Any]:
    """Training step -> the students of an arm; an arm that ends in "aux" sees the auxiliary logits, others all."""
    from mechsub import distillation
    from mechsub.noise import uniform

    shape, snapshots = toy.init.cfg, dict.fromkeys(toy.steps)
    distillation.distill(
        start(toy, arm), toy.teacher, uniform,
        outputs=shape.aux if arm.endswith("aux") else slice(0, shape.d_vocab),
        noise=cfg.noise, loss=cfg.loss, n_samples=toy.n_images, snapshots=snapshots, **toy.fit,
    )  # fmt: skip
    return snapshots


def stitched_accuracy(body, images, labels, activations: dict):
    """Accuracy of every member in which hidden states are replaced by those given, fp64 [seed]."""
    from mechsub.hooked import run_patched

    logits = run_patched(body, images, activations)
    return (logits[..., body.cfg.digits].argmax(-1) == labels).double().mean(-1)


def provenance(toy: Toy, cfg) -> dict:
    """What both studies say about how their students were made."""
    from mechsub import data

    return {
        "data": data.hashes(cfg.dataset.replace("_", "-")),
        "dtype": f"fp32 weights and losses, {toy.fit['precision']} products in training; similarity in fp64",
        "inputs": f"uniform noise on 256 levels in [-1, 1], {cfg.noise}, {toy.n_images} images",
        "control": "rotation of seeds by one",
        "null": "untrained reference, cross-initialisation student",
    }


def _steps(n_images: int, cfg) -> list[int]:
    total = cfg.epochs * -(-n_images // cfg.batch_size)
    return sorted({max(1, round(total * k / cfg.n_steps)) for k in range(1, cfg.n_steps + 1)})
