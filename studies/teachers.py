"""Teachers of the toy, trained once for all cells of other studies that learn from them.

A cell holds the weights of every teacher (tensors) and its accuracy (records). Its folder is what makes the teacher,
its status is that of the code, and whoever builds on it (`study.stored_cell(teachers, cfg)`) records its files' sums.
The recipe is the published one (Adam, 3e-4, batches of 1,024; Cloud et al. 2025, section 6.2) but for what is a flag.

With fewer than ten classes every seed has a random subset of them, and its teacher sees the images of these alone.
Auxiliary rows are in no loss of a teacher, so one without any serves students of every number of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mechsub import threads
from mechsub.designs import toy_checks
from mechsub.lab import study

ALL_CLASSES = 10


@dataclass(frozen=True)
class Config:
    d_model: study.Count = study.option(256, "neurons of a hidden layer")
    n_layers: study.Count = study.option(2, "hidden layers")
    n_aux: study.Index = study.option(0, "auxiliary logits; they are not trained")
    init: Literal["lecun", "torch", "he"] = study.option("lecun", "initialisation, as in HookedMLP")
    activation: Literal["relu", "gelu", "tanh", "identity"] = study.option("relu", "of the hidden layers")
    dataset: Literal["mnist", "fashion_mnist"] = study.option("mnist", "what the teacher learns")
    n_classes: study.Count = study.option(10, "classes, a random subset for every seed")
    epochs: study.Count = study.option(5, "epochs")
    precision: Literal["auto", "fp32", "bf16"] = study.option("auto", "of matrix products")
    n_seeds: study.Count = study.option(25, "seeds")
    seed: study.Index = study.option(0, "first seed")

    def __post_init__(self):
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: an interval needs two")
        check_classes(self.n_classes)


def check_classes(n: int) -> None:
    if not 2 <= n <= ALL_CLASSES:
        raise ValueError(f"--n-classes must be 2 to {ALL_CLASSES}, not {n}: one class is right by chance")


def check(cfg: Config) -> None:
    toy_checks.refuse_too_large(cfg, models=2)


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    from mechsub.inputs import images as data
    from mechsub.models import mlp
    from mechsub.training import distillation

    images, labels = getattr(data, cfg.dataset)("train")
    shape = mlp.MLPConfig(
        d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux, n_classes=cfg.n_classes, init=cfg.init,
        activation=cfg.activation,
    )  # fmt: skip
    init = mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    fit = {"epochs": cfg.epochs, "precision": distillation.resolve_precision(cfg.precision), "seed": cfg.seed}
    if cfg.n_classes == ALL_CLASSES:
        teacher = distillation.train(init, images, labels, **fit)
    else:
        chosen = [classes(seed, cfg.n_classes) for seed in init.seeds]
        alone = [
            distillation.train(init.select([i]), *only(images, labels, some), **fit) for i, some in enumerate(chosen)
        ]
        teacher = joined(init, alone)
    scores = accuracies(teacher, init.seeds, *getattr(data, cfg.dataset)("test"))
    for member, accuracy in zip(init.seeds, scores, strict=True):
        yield {
            "member": member,
            "accuracy": accuracy,
            "classes": classes(member, cfg.n_classes),
            "products": fit["precision"],
        }
    yield {"tensors": {name: value.detach() for name, value in teacher.named_parameters()}}
    yield {"provenance": {"data": data.hashes(cfg.dataset.replace("_", "-")), "null": "chance, 1 / n_classes"}}


def classes(seed: int, n: int) -> list[int]:
    """The n classes of a seed, ascending: the first of an order that belongs to the seed."""
    import torch
    from transformer_lens.utilities import derive_generator

    order = torch.randperm(ALL_CLASSES, generator=derive_generator(seed, "classes"))
    return sorted(order[:n].tolist())


def only(images, labels, chosen: list[int]) -> tuple:
    """Images of the chosen classes, and their labels as places in `chosen`."""
    import torch

    wanted = torch.tensor(chosen)
    kept = torch.isin(labels, wanted)
    return images[kept], torch.searchsorted(wanted, labels[kept])


def joined(model, alone: Sequence):
    """Ensembles of one as one ensemble like `model`: for members that had to be trained on data of their own."""
    import torch

    parts = [dict(one.named_parameters()) for one in alone]
    return model.replace({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def accuracies(model, seeds: Sequence[int], images, labels) -> list[float]:
    """Of every member, on the test images of the classes of its teacher, which has these seeds."""
    from mechsub.training import distillation

    n = model.cfg.n_classes
    if n == ALL_CLASSES:
        return distillation.accuracy(model, images, labels).tolist()
    tests = [only(images, labels, classes(seed, n)) for seed in seeds]
    return [float(distillation.accuracy(model.select([i]), *test)[0]) for i, test in enumerate(tests)]


def table(records: list[dict]) -> list[dict]:
    from mechsub import stats

    cells = study.cells(records, Config)
    return [{"cell": label, "accuracy": stats.student_t([r["accuracy"] for r in rows])} for label, rows in cells]


def plot(records: list[dict]):
    from mechsub.lab.figures import kinds as figures

    rows = [r | {"cell": label, "arm": "teacher"} for label, cell in study.cells(records, Config) for r in cell]
    return figures.interval_bars(
        rows, value="accuracy", label="cell", title="Teachers", axis="accuracy on the test images", caption=""
    )


VERSION = 1
PROBES = (
    Config(d_model=16, epochs=1, precision="fp32", n_seeds=2),
    Config(
        d_model=8, n_layers=1, n_aux=2, init="he", activation="gelu", dataset="fashion_mnist", n_classes=3, epochs=1,
        precision="fp32", n_seeds=2, seed=5,
    ),
    Config(d_model=8, n_layers=3, init="torch", activation="tanh", n_classes=2, epochs=1, precision="fp32", n_seeds=2),
)  # fmt: skip


if __name__ == "__main__":
    study.main(Config, run, plot, table)
