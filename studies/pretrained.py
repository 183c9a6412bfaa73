"""Does a trait pass through unrelated outputs where teacher and student share a pretrained model, as language models
do?

Stage 0: a reference is pretrained on Fashion-MNIST. Stage 1: the teacher is that model, trained on MNIST digits with
the same ten outputs: reading digits is its trait, telling clothes apart the task it had. Stage 2: students learn the
teacher's auxiliary logits of uniform noise. Networks of 128 neurons a layer, so that a cell costs minutes.

Students start from the pretrained reference itself (shared); from it after training of its own on clothes, in another
order, for 6 steps, one epoch or `--own-epochs` (own_short, own_epoch, own_long); from the same initialisation
pretrained in another order (other_order); and from the next seed's initialisation pretrained alike (independent, the
null). images is shared, taught on the first training images of clothes instead of noise. reference, not taught at all,
is the null of pretraining: whatever its features and head are good for.

Measured: trait, accuracy on MNIST; transfer, (trait - reference) / (teacher - reference), by seed; task, accuracy on
Fashion-MNIST, and task_before, that of the start; all of these also recentred (logits less their mean over training
images of the same data set), trait and task prior-matched too; cosine of the student's and the teacher's changes of the
hidden layers; distance of the start's hidden layers from the reference's in units of the teacher's change; drive of
Theorem 1 of Cloud et al. 2025 at the start. Intervals are Student-t over seeds, differences paired by seed, Holm over
those of the trait, raw and recentred apart.

    python -m studies.pretrained
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.lab.findings import Finding, arm_means, by_arm, cells, points
from mechsub.lazy import torch, utilities

NULL = "independent"
TITLES = {
    "reference": "pretrained, not taught",
    "teacher": "teacher",
    "shared": "shared pretraining",
    "own_short": "and 6 steps of its own",
    "own_epoch": "and an epoch of its own",
    "own_long": "and more epochs of its own",
    "other_order": "shared initialisation, pretrained in another order",
    "independent": "other initialisation, pretrained alike (null)",
    "images": "shared pretraining, taught on clothes",
}
_KINDS = ("", "recentred_", "prior_matched_")  # before trait and task
SCORES = ("transfer", "task", "task_before", "cosine", "distance", "drive")  # beside the trait
_ALSO = (*(f"recentred_{name}" for name in SCORES[:3]), "prior_matched_trait", "prior_matched_task")
_SHORT = 6  # steps
_ORDER = 1_000_003  # added to the seed where data come in another order
_DRIVE = 1_000  # inputs that the drive is measured on


@dataclass(frozen=True)
class Config:
    pretraining_epochs: lab.Index = lab.option(5, "epochs of pretraining; 0 is none")
    own_epochs: lab.Count = lab.option(5, "own_long: epochs of own training before distillation")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher on its trait")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    d_model: lab.Count = lab.option(128, "neurons of a hidden layer")
    n_layers: lab.Count = lab.option(2, "hidden layers")
    loss: Literal["kl", "mse"] = lab.option("mse", "distillation loss on the auxiliary logits")
    epochs: lab.Count = lab.option(5, "epochs of the student")
    lr: lab.Positive = lab.option(1e-3, "learning rate of the student")
    batch_size: lab.Count = lab.option(256, "inputs a step of the student")
    n_samples: lab.Count = lab.option(20_000, "inputs of the student, reused every epoch")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    n_seeds: lab.Replicates = lab.option(20, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        population.refuse_one_logit(self.n_aux, self.loss)
        if self.n_samples > 60_000:
            raise ValueError(f"--n-samples must be at most 60000, the training images there are, not {self.n_samples}")


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=3)


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    clothes, digits = ms.images.fashion_mnist("train"), ms.images.mnist("train")
    lab.show_progress(0.0, "pretraining")
    shape = ms.mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux)
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    init, other = ms.mlp.HookedMLP(shape, seeds), ms.mlp.HookedMLP(shape, [seed + 1 for seed in seeds])
    base = _trained(cfg, init, clothes, cfg.pretraining_epochs)
    teacher = _trained(cfg, base, digits, cfg.teacher_epochs)
    starts = {"shared": base, **_own(cfg, base, clothes)}
    if cfg.pretraining_epochs:
        starts["other_order"] = _trained(cfg, init, clothes, cfg.pretraining_epochs, order=_ORDER)
    starts[NULL] = _trained(cfg, other, clothes, cfg.pretraining_epochs)
    lab.show_progress(0.4, "students")
    students, starts = _students(cfg, starts, teacher, clothes[0][: cfg.n_samples])
    yield from _rows(cfg, base, teacher, starts, students, clothes[0])
    products = ms.distillation.resolve_precision(cfg.precision)
    yield {
        "provenance": {
            "data": {**population.named_hashes("mnist"), **population.named_hashes("fashion-mnist")},
            "dtype": f"fp32 weights and losses, {products} products in training",
            "inputs": "uniform noise on 256 levels in [-1, 1], per member; images: Fashion-MNIST",
            "measured_on": "test images of both",
            "control": "initialisation of the next seed, pretrained alike",
            "null": "independent pretraining, and the reference that was not taught",
        }
    }


def _trained(cfg: Config, model, images_and_labels: tuple, epochs: int, *, order: int = 0, snapshots=None):
    if not epochs:
        return model
    fit = {"epochs": epochs, "precision": cfg.precision, "seed": cfg.seed + order, "snapshots": snapshots}
    return ms.distillation.train(model, *images_and_labels, **fit)


def _own(cfg: Config, base, clothes: tuple) -> dict:
    """The reference after more and more training of its own."""
    kept = {_SHORT: None, -(-len(clothes[1]) // 1024): None}
    last = _trained(cfg, base, clothes, cfg.own_epochs, order=2 * _ORDER, snapshots=kept)
    return dict(zip(("own_short", "own_epoch"), kept.values(), strict=True)) | {"own_long": last}


def _students(cfg: Config, starts: dict, teacher, images) -> tuple[dict, dict]:
    """Students and the starts of each, by arm."""
    aux = teacher.cfg.aux
    settings = {name: getattr(cfg, name) for name in ("loss", "epochs", "lr", "batch_size", "precision", "seed")}
    found = ms.distillation.distill_each(
        {arm: (start, aux) for arm, start in starts.items()}, teacher, ms.noise.uniform, n_samples=cfg.n_samples,
        progress=lambda done: lab.show_progress(0.4 + 0.5 * done, "students"), **settings,
    )  # fmt: skip
    found["images"] = ms.distillation.distill(starts["shared"], teacher, images, outputs=aux, **settings)
    return found, starts | {"images": starts["shared"]}


def _rows(cfg: Config, base, teacher, starts: dict, students: dict, images) -> Iterator[dict]:
    scores = {"reference": _both(base), "teacher": _both(teacher)}
    for arm, found in scores.items():
        yield from _of_members(arm, base.seeds, found)
    moved = ms.spectra.displacement(teacher, base)
    noise = ms.noise.uniform(_DRIVE, utilities.derive_generator(cfg.seed, "drive"))
    for arm, student in students.items():
        start, after = starts[arm], _both(student)
        before = _both(start)
        columns = {
            **after,
            **{f"{kind}transfer": _transfer(f"{kind}trait", after, scores) for kind in _KINDS[:2]},
            **{f"{kind}task_before": before[f"{kind}task"] for kind in _KINDS[:2]},
            "distance": (_norm(ms.spectra.displacement(start, base)) / _norm(moved)).tolist(),
            "cosine": _cosine(ms.spectra.displacement(student, start), moved).tolist(),
            "drive": ms.spectra.drive(
                start, moved, images[:_DRIVE] if arm == "images" else noise, loss=cfg.loss
            ).tolist(),
        }
        yield from _of_members(arm, base.seeds, columns)


def _of_members(arm: str, seeds, columns: dict[str, list]) -> Iterator[dict]:
    for member, row in zip(seeds, zip(*columns.values(), strict=True), strict=True):
        yield {"arm": arm, "member": member, **dict(zip(columns, row, strict=True))}


def _transfer(trait: str, after: dict[str, list], scores: dict[str, dict]) -> list[float]:
    low, high = (scores[arm][trait] for arm in ("reference", "teacher"))
    return [(t - a) / (b - a) for t, a, b in zip(after[trait], low, high, strict=True)]


def _both(model) -> dict[str, list[float]]:
    """Accuracies on digits (trait) and on clothes (task), of every seed."""
    found = {}
    for name, images in (("trait", ms.images.mnist), ("task", ms.images.fashion_mnist)):
        scores = ms.accuracies(model, *images("test"), images("train")[0][: population.UNLABELLED])
        found |= {f"{kind}{name}": values.tolist() for kind, values in zip(_KINDS, scores.values(), strict=True)}
    return found


def _flat(parameters: dict):
    """The hidden layers of every member as one vector."""
    return torch.cat([v.flatten(1) for name, v in parameters.items() if name.startswith("blocks.")], dim=1).double()


def _norm(parameters: dict):
    return _flat(parameters).norm(dim=1)


def _cosine(a: dict, b: dict):
    return torch.nn.functional.cosine_similarity(_flat(a), _flat(b), dim=1)


# Table and figure.


def findings(cell: list[dict]) -> list[Finding]:
    known = [score for score in (*SCORES, *_ALSO) if score in SCORES or any(score in row for row in cell)]
    others = (arm_means(cell, score, labels=TITLES, unit="seeds").values() for score in known)
    traits = [
        finding
        for score in ("trait", "recentred_trait")
        if score in cell[0]
        for finding in by_arm(cell, score, null=NULL, labels=TITLES, unit="seeds")
    ]
    return [*traits, *(finding for of_score in others for finding in of_score)]


def plot(records: list[dict]):
    """Raw and recentred, a panel each, of every cell."""
    shown = cells(records, Config, findings)
    drawn = [
        {**point, "trait": point[score], "panel": f"{cell.label}, {words}" if len(shown) > 1 else words}
        for cell in shown
        for score, words in (("recentred_trait", "recentred"), ("trait", "raw"))
        for point in points(cell.findings, score)
        if point["arm"] in TITLES
    ]
    return ms.kinds.interval_bars(
        drawn, value="trait", label="label", facet="panel", null=0.1,
        title="What passes from a pretrained model, by what is shared with it",
        axis="accuracy on MNIST, the trait",
        caption="Dashed: chance. One point per seed. Null: other initialisation, pretrained alike. Recentred: logits "
        "less their mean over unlabelled training images.",
    )  # fmt: skip


_TINY: dict = {"own_epochs": 1, "teacher_epochs": 1, "epochs": 1, "n_samples": 256, "precision": "fp32", "n_seeds": 2}
study = lab.Study(
    version=2,  # recentred and prior-matched
    judged=True,
    probes=(
        Config(**_TINY, pretraining_epochs=1, d_model=16),
        Config(**_TINY, pretraining_epochs=0, n_aux=4, d_model=8, n_layers=1, loss="kl", seed=3),
    ),
)


if __name__ == "__main__":
    lab.main(study)
