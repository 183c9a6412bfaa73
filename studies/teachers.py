"""Teachers of the toy, trained once for all cells of other studies that learn from them.

A cell holds the weights of every teacher (tensors) and its accuracy (records). A study that builds on it declares it
(`lab.upstream("teachers", ...)`), and its own cells keep the sums of these files.
The recipe is the published one (Adam, 3e-4, batches of 1,024; Cloud et al. 2025, section 6.2) but for what is a flag.

With fewer than ten classes every seed has a random subset of them, and its teacher sees the images of these alone.
Auxiliary rows are in no loss of a teacher, so one without any serves students of every number of them.

    python -m studies.teachers --epochs 5 10
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.lab.findings import Finding, all_findings, arm_means, cells, points


@dataclass(frozen=True)
class Config:
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer")
    n_layers: lab.Count = lab.option(2, "hidden layers")
    n_aux: lab.Index = lab.option(0, "auxiliary logits; they are not trained")
    init: Literal["lecun", "torch", "he"] = lab.option("lecun", "initialisation, as in HookedMLP")
    activation: Literal["relu", "gelu", "tanh", "identity"] = lab.option("relu", "of the hidden layers")
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "what the teacher learns")
    n_classes: lab.Count = lab.option(10, "classes, a random subset for every seed")
    epochs: lab.Count = lab.option(5, "epochs")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    n_seeds: lab.Replicates = lab.option(25, "seeds")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        population.check_classes(self.n_classes)


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=2)


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    images, labels = getattr(ms.images, cfg.dataset)("train")
    shape = ms.mlp.MLPConfig(
        d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux, n_classes=cfg.n_classes, init=cfg.init,
        activation=cfg.activation,
    )  # fmt: skip
    init = ms.mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    fit: dict = {"epochs": cfg.epochs, "precision": ms.distillation.resolve_precision(cfg.precision), "seed": cfg.seed}
    if cfg.n_classes == population.ALL_CLASSES:
        teacher = ms.distillation.train(init, images, labels, **fit)
    else:
        chosen = [population.classes(seed, cfg.n_classes) for seed in init.seeds]
        alone = [
            ms.distillation.train(init.select([i]), *population.only(images, labels, some), **fit)
            for i, some in enumerate(chosen)
        ]
        teacher = population.joined(init, alone)
    scores = population.accuracies(teacher, init.seeds, *getattr(ms.images, cfg.dataset)("test"))
    for member, accuracy in zip(init.seeds, scores, strict=True):
        yield {
            "member": member,
            "accuracy": accuracy,
            "classes": population.classes(member, cfg.n_classes),
            "products": fit["precision"],
        }
    yield {"tensors": {name: value.detach() for name, value in teacher.named_parameters()}}
    yield {"provenance": {"data": ms.images.hashes(cfg.dataset.replace("_", "-")), "null": "chance, 1 / n_classes"}}


def findings(cell: list[dict]) -> list[Finding]:
    return list(arm_means([row | {"arm": "teacher"} for row in cell], "accuracy", unit="seeds").values())


def plot(records: list[dict]):
    shown = points(all_findings(cells(records, Config, findings)), "accuracy")
    return ms.kinds.interval_bars(
        [point | {"cell": point["cell"] or "all"} for point in shown],
        value="accuracy", label="cell", title="Teachers", axis="accuracy on the test images", caption="",
    )  # fmt: skip


study = lab.Study(version=1, probes=(
    Config(d_model=16, epochs=1, precision="fp32", n_seeds=2),
    Config(
        d_model=8, n_layers=1, n_aux=2, init="he", activation="gelu", dataset="fashion_mnist", n_classes=3, epochs=1,
        precision="fp32", n_seeds=2, seed=5,
    ),
    Config(d_model=8, n_layers=3, init="torch", activation="tanh", n_classes=2, epochs=1, precision="fp32", n_seeds=2),
))  # fmt: skip


if __name__ == "__main__":
    lab.main(study)
