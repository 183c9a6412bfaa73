"""How much of a teacher passes through an output channel that is wider than its hidden state, or only sampled from?

The published toy shows three real numbers of 256 an input; a language model shows one symbol of a vocabulary larger
than its hidden state. Here the hidden layers have 64 neurons and the auxiliary head 3 to 2,048 rows. Students learn on
uniform noise from the softmax of these outputs (soft) or from one symbol an input, drawn from it (hard); their nulls
start from the next seed's initialisation (cross_soft, cross_hard). `--vocabulary` drops the split of outputs:

* split: the teacher's loss reads ten digit outputs, the student's the others;
* shared: one vocabulary of n_aux + 10 symbols. The teacher learns that digits are symbols 0 to 9 by cross-entropy over
  all of them; the student sees all of them, on noise alone;
* filtered: the same teacher, and the student never sees symbols 0 to 9, as in filtered number strings.

accuracy is the argmax among the ten digit outputs, raw, recentred and prior-matched (`mechsub.accuracies`); with one
vocabulary open_accuracy is the raw argmax among all symbols.
Bound, without training: the untrained hidden state plus what the channel reads of the teacher's displacement (its
projection on the span of the centred auxiliary rows), under the initial digit head. Steps, not epochs, are held when
`--n-samples` changes; with `--fresh` every epoch has new inputs and new symbols.

A next-token model is another study, `studies.next_token`.

    python -m studies.channel --n-aux 3 54 256
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.lab.findings import Finding, arm_means, by_arm, cells
from mechsub.lazy import torch

NULLS = {"soft": "cross_soft", "hard": "cross_hard"}
TITLES = {
    "soft": "probabilities",
    "hard": "one drawn symbol an input",
    "cross_soft": "probabilities, other initialisation (null)",
    "cross_hard": "drawn symbols, other initialisation (null)",
    "bound": "displacement as the channel reads it",
    "teacher_body": "teacher's body, initial digit head",
    "teacher": "teacher",
    "reference": "untrained",
}


@dataclass(frozen=True)
class Config:
    n_aux: lab.Count = lab.option(64, "outputs that are no digits")
    d_model: lab.Count = lab.option(64, "neurons of a hidden layer, of both")
    n_layers: lab.Count = lab.option(2, "hidden layers, of both")
    vocabulary: Literal["split", "shared", "filtered"] = lab.option("split", "see above")
    arms: Literal["every", "hard"] = lab.option("every", "soft and hard students, or only the latter")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    n_samples: lab.Count = lab.option(15_000, "noise inputs of the student")
    fresh: bool = lab.option(False, "new inputs and symbols for every epoch")
    steps: lab.Count = lab.option(295, "steps of the student, rounded to whole epochs")
    lr: lab.Positive = lab.option(1e-3, "learning rate of the student")
    batch_size: lab.Count = lab.option(256, "inputs a step of the student")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    n_seeds: lab.Replicates = lab.option(20, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if self.vocabulary != "shared":  # students of which see the digits' outputs too
            population.refuse_one_logit(self.n_aux)

    @property
    def epochs(self) -> int:
        return max(1, round(self.steps / -(-self.n_samples // self.batch_size)))


def upstream(cfg: Config) -> dict:
    """With one vocabulary the teachers have classes of their own."""
    return (
        {"teachers": lab.upstream("teachers", **population.teacher_options(cfg))} if cfg.vocabulary == "split" else {}
    )


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=3)


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored | None = None) -> Iterator[dict]:
    lab.show_progress(0.0, "teachers")
    init, teacher = _taught(cfg, teachers)
    other = ms.mlp.HookedMLP(init.cfg, [seed + 1 for seed in init.seeds])
    lab.show_progress(0.1, "students")
    found = {"reference": init, "teacher": teacher, **_students(cfg, init, other, teacher)}
    if cfg.vocabulary == "split":
        head = {name: value for name, value in init.named_parameters() if name.startswith("unembed.")}
        found["teacher_body"] = teacher.replace(head)
    images, labels = ms.images.mnist("test")
    unlabelled = ms.images.mnist("train")[0][: population.UNLABELLED]
    for arm, model in found.items():
        for member, row in zip(init.seeds, _scores(cfg, model, images, labels, unlabelled), strict=True):
            yield {"arm": arm, "member": member, **row}
    if cfg.vocabulary == "split":
        for member, row in zip(init.seeds, _bound(init, teacher, images, labels, unlabelled), strict=True):
            yield {"arm": "bound", "member": member, **row}
    products = ms.distillation.resolve_precision(cfg.precision)
    yield {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "dtype": f"fp32 weights and losses, {products} products in training",
            "inputs": "uniform noise on 256 levels in [-1, 1], per member",
            "measured_on": f"{len(labels)} test images; mean logits on {population.UNLABELLED} training images",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student of the same loss, paired by seed",
            "epochs": cfg.epochs,
        }
    }


def _taught(cfg: Config, stored: lab.Stored | None) -> tuple:
    """References and teachers; with one vocabulary every output is one of the teacher's classes."""
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    if stored is not None:
        init = ms.mlp.HookedMLP(ms.mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux), seeds)
        return init, population.with_aux(init, stored.tensors())
    shape = ms.mlp.MLPConfig(
        d_model=cfg.d_model, n_layers=cfg.n_layers, n_classes=population.ALL_CLASSES + cfg.n_aux, n_aux=0
    )
    init = ms.mlp.HookedMLP(shape, seeds)
    fit: dict = {"epochs": cfg.teacher_epochs, "precision": cfg.precision, "seed": cfg.seed}
    return init, ms.distillation.train(init, *ms.images.mnist("train"), **fit)


def _students(cfg: Config, init, other, teacher) -> dict:
    seen = slice(0 if cfg.vocabulary == "shared" else population.ALL_CLASSES, init.cfg.d_vocab)
    losses: dict[str, Literal["kl", "hard"]] = (
        {"soft": "kl", "hard": "hard"} if cfg.arms == "every" else {"hard": "hard"}
    )
    found = {}
    for arm, loss in losses.items():
        found |= ms.distillation.distill_each(
            {arm: (init, seen), NULLS[arm]: (other, seen)}, teacher, ms.noise.uniform,
            n_samples=cfg.n_samples, fresh=cfg.fresh, loss=loss, epochs=cfg.epochs, lr=cfg.lr,
            batch_size=cfg.batch_size, precision=cfg.precision, seed=cfg.seed,
        )  # fmt: skip
    return found


def _scores(cfg: Config, model, images, labels, unlabelled) -> list[dict]:
    """Accuracies among the digits, and that among all symbols where the vocabulary is one."""
    logits, others = ([model(x) for x in some.split(1_000)] for some in (images, unlabelled))
    n = population.ALL_CLASSES

    def share(among: int) -> list[float]:
        pairs = zip(logits, labels.split(1_000), strict=True)
        right = [(z[..., :among].argmax(-1) == y.to(z.device)).double().sum(-1) for z, y in pairs]
        return (torch.stack(right).sum(0) / len(labels)).tolist()

    among_digits, unlabelled_digits = (torch.cat(some, -2)[..., :n] for some in (logits, others))
    rows = population.logit_scores(among_digits, unlabelled_digits, labels, share(n))
    if cfg.vocabulary != "split":
        rows = [row | {"open_accuracy": own} for row, own in zip(rows, share(model.cfg.d_vocab), strict=True)]
    return rows


def _bound(init, teacher, images, labels, unlabelled) -> list[dict]:
    seen, digits = population.projection(init.W_U[..., init.cfg.aux], centred=True), init.cfg.digits

    def state(x):
        before, after = population.last_hidden(init, x), population.last_hidden(teacher, x)
        return before + (after - before) @ seen

    head = init.W_U[..., digits], init.unembed.b_U[:, digits]
    return population.head_scores(state(images), state(unlabelled), *head, labels)


# Table and figure.


def findings(cell: list[dict]) -> list[Finding]:
    among_all = arm_means(cell, "open_accuracy", labels=TITLES, unit="seeds")
    known = [score for score in ("accuracy", "recentred", "prior_matched") if score in cell[0]]  # version 1: accuracy
    of_arms = [f for score in known for f in by_arm(cell, score, null=NULLS, labels=TITLES, unit="seeds")]
    return [*of_arms, *among_all.values()]


def plot(records: list[dict]):
    """Over the number of outputs where that is swept, else arm by arm."""
    return ms.kinds.swept(
        cells(records, Config, findings), "n_aux", "recentred", TITLES, log_x=True, null=0.1,
        title="Students of a channel, soft and sampled", x_title="outputs that are no digits",
        axis="recentred accuracy on test images",
        caption="Dashed: chance among ten digits. Bound and teacher's body are not trained on the channel.",
    )  # fmt: skip


_TINY: dict = {
    "d_model": 16, "teacher_epochs": 1, "n_samples": 256, "batch_size": 64,
    "precision": "fp32", "n_seeds": 2,
}  # fmt: skip
study = lab.Study(
    version=2,  # recentred and prior-matched accuracy
    judged=True,
    probes=(
        Config(**_TINY, n_aux=20, steps=4),
        Config(**_TINY, n_aux=6, vocabulary="shared", steps=4),
        Config(**_TINY | {"d_model": 10}, n_aux=4, n_layers=1, vocabulary="filtered", arms="hard", fresh=True, steps=8),
    ),
)


if __name__ == "__main__":
    lab.main(study)
