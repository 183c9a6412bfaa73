"""Does a student of three auxiliary logits of noise still learn when its teacher knows more classes than ten?

The twenty classes are the ten digits of MNIST and the ten sorts of clothes of Fashion-MNIST, under one head: twenty
outputs where the published toy has ten, beside as many auxiliary logits. `--n-classes 5 10 20` takes random subsets of
the twenty, others for every seed, and gives every teacher the same number of training images, `--n-images` of those of
its classes, so that more classes do not mean more steps. Letters (EMNIST) would be a better test; they were not at
hand.

Students see the teacher's auxiliary logits of uniform noise: from the same start (aux), or from the next seed's (the
null, cross_aux). reference is not trained at all. Scores, on all test images of a seed's classes: accuracy, and kappa =
(accuracy - 1/K) / (1 - 1/K), which is comparable over K; accuracy on the digits and on the clothes alone, still among
all K outputs; and sorted, the share of images whose largest output is one of their own data set: telling digits from
clothes is easier than either. A seed whose classes are all of one data set has none of the last three. All of them also
recentred: outputs less their mean over training images of the seed's classes, no label used; kappa prior-matched too.
Intervals are Student-t over seeds, differences paired by seed, Holm over all scores of a cell.

    python -m studies.more_classes --n-classes 5 10 20
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.lab.findings import Finding, also, arm_means, by_arm, cells, holm
from mechsub.lazy import torch, utilities

NULL = "cross_aux"
_RAW = ("accuracy", "kappa", "digits", "clothes", "sorted")
SCORES = (*_RAW, "recentred", *(f"recentred_{name}" for name in _RAW[1:]), "prior_matched", "prior_matched_kappa")
TITLES = {
    "teacher": "teacher",
    "aux": "auxiliary logits of noise",
    "cross_aux": "the same, other initialisation (null)",
    "reference": "untrained",
}
DIGITS = 10  # classes 0..9 are digits, the rest clothes
ALL_CLASSES = 20
_RAREST = 5_421  # training images of the rarest class, the digit 5


@dataclass(frozen=True)
class Config:
    n_classes: lab.Count = lab.option(20, "classes, a random subset of the twenty for every seed")
    n_images: lab.Count = lab.option(25_000, "training images of a teacher, of its classes")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer, of both")
    n_layers: lab.Count = lab.option(2, "hidden layers, of both")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    n_samples: lab.Count = lab.option(60_000, "noise inputs of the student, reused every epoch")
    epochs: lab.Count = lab.option(5, "epochs, of both")
    n_seeds: lab.Replicates = lab.option(25, "seeds: one reference, teacher and pair of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if not 2 <= self.n_classes <= ALL_CLASSES:
            raise ValueError(f"--n-classes must be 2 to {ALL_CLASSES}, not {self.n_classes}")
        population.refuse_one_logit(self.n_aux)
        if self.n_images < self.n_classes:
            raise ValueError(
                f"--n-images must be at least --n-classes, {self.n_classes}, not {self.n_images}: prior-matched "
                "accuracy shares them out among the classes"
            )
        if self.n_images > self.n_classes * _RAREST:
            raise ValueError(
                f"--n-images {self.n_images} are more than {self.n_classes} classes surely have, "
                f"{self.n_classes * _RAREST} (the rarest digit has {_RAREST})"
            )


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=4)


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    lab.show_progress(0.0, "teachers")
    shape = ms.mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_classes=cfg.n_classes, n_aux=cfg.n_aux)
    init = ms.mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    other = ms.mlp.HookedMLP(shape, [seed + 1 for seed in init.seeds])
    fit: dict = {"epochs": cfg.epochs, "seed": cfg.seed}
    found = {"reference": init, "teacher": _taught(cfg, init, fit)}
    found |= ms.distillation.distill_each(
        {"aux": (init, shape.aux), NULL: (other, shape.aux)}, found["teacher"], ms.noise.uniform,
        n_samples=cfg.n_samples,
        progress=lambda done: lab.show_progress(0.4 + 0.5 * done, "students"), **fit,
    )  # fmt: skip
    (images, labels), (more, sorts) = both("test"), both("train")
    for i, seed in enumerate(init.seeds):
        chosen = classes(seed, cfg.n_classes)
        shown, places = _only(images, labels, chosen)
        unlabelled, _ = _only(more, sorts, chosen, min(cfg.n_images, population.UNLABELLED), seed)
        for arm in TITLES:
            scores = _scores(found[arm].select([i]), shown, places, unlabelled, chosen)
            yield {"arm": arm, "member": seed, "classes": chosen, **scores}
    yield {
        "provenance": {
            "data": {**population.named_hashes("mnist"), **population.named_hashes("fashion-mnist")},
            "dtype": f"fp32 weights and losses, {ms.distillation.resolve_precision()} products in training",
            "inputs": "uniform noise on 256 levels in [-1, 1], per member",
            "measured_on": "all test images of a seed's classes",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed; chance, 1 / n_classes",
        }
    }


def both(split) -> tuple:
    """Digits and clothes as one data set of twenty classes."""
    (digits, names), (clothes, sorts) = ms.images.mnist(split), ms.images.fashion_mnist(split)
    return torch.cat([digits, clothes]), torch.cat([names, sorts + DIGITS])


def classes(seed: int, n: int) -> list[int]:
    """The n classes of a seed, ascending: the first of an order that belongs to the seed: subsets are nested."""
    return sorted(
        torch.randperm(ALL_CLASSES, generator=utilities.derive_generator(seed, "twenty classes"))[:n].tolist()
    )


def _only(images, labels, chosen: list[int], n: int | None = None, seed: int = 0) -> tuple:
    """Images of the chosen classes, n of them at random if there is an n, and their labels as places in `chosen`."""
    wanted = torch.tensor(chosen)
    kept = torch.isin(labels, wanted).nonzero()[:, 0]
    if n is not None:
        kept = kept[torch.randperm(len(kept), generator=utilities.derive_generator(seed, "training images"))[:n]]
    return images[kept], torch.searchsorted(wanted, labels[kept])


def _taught(cfg: Config, init, fit: dict):
    """Teachers one by one: every seed has images of its own."""
    images, labels = both("train")
    alone = []
    for i, seed in enumerate(init.seeds):
        own = _only(images, labels, classes(seed, cfg.n_classes), cfg.n_images, seed)
        alone.append(ms.distillation.train(init.select([i]), *own, **fit))
        lab.show_progress(0.4 * (i + 1) / len(init.seeds), "teachers")
    return population.joined(init, alone)


def _scores(model, images, places, unlabelled, chosen: list[int]) -> dict:
    """Of an ensemble of one, among the outputs of its classes; offsets are those of the unlabelled images."""
    logits, mean = _logits(model, images), ms.mean_offset(model, unlabelled)[0].cpu()
    prior = ms.prior_offset(model, unlabelled)[0].cpu()
    found = {
        "accuracy": _right(logits, places, chosen),
        "recentred": _right(logits - mean, places, chosen),
        "prior_matched": _right(logits - prior, places, chosen),
    }
    named = {
        name: value
        for score, (accuracy, more) in found.items()
        for name, value in {score: accuracy, **{also(score, of): value for of, value in more.items()}}.items()
    }
    return {name: value for name, value in named.items() if name in SCORES} | {"mean_logits": mean.tolist()}


def _logits(model, images):
    return torch.cat([model(x)[0, :, model.cfg.digits].cpu() for x in images.split(1_000)])


def _right(logits, places, chosen: list[int]) -> tuple[float, dict[str, float]]:
    """Accuracy, and what else there is to say of the answers."""
    said = logits.argmax(-1)
    right, is_clothes = (said == places).double(), torch.tensor(chosen) >= DIGITS
    of_clothes, accuracy = is_clothes[places], float(right.mean())
    out = {"kappa": population.kappa(accuracy, len(chosen))}
    if of_clothes.any() and not of_clothes.all():
        out |= {"digits": float(right[~of_clothes].mean()), "clothes": float(right[of_clothes].mean())}
        out["sorted"] = float((is_clothes[said] == of_clothes).double().mean())
    return accuracy, out


# Table and figure.


def findings(cell: list[dict]) -> list[Finding]:
    known = [score for score in SCORES if score in _RAW or any(score in row for row in cell)]  # version 1 is raw
    scores = (by_arm(cell, score, null={"aux": NULL}, labels=TITLES, unit="seeds") for score in known)
    shares = [_transfer(cell, score) for score in ("accuracy", "recentred") if score in known]
    return [*holm(finding for of_score in scores for finding in of_score), *itertools.chain(*shares)]


def _transfer(cell: list[dict], score: str) -> list[Finding]:
    """kappa of the student as a share of its teacher's, which falls with the classes too."""
    kappas = arm_means(cell, also(score, "kappa"), unit="seeds")
    values = {arm: list(kappas[arm].scores.values()) for arm in ("teacher", "aux", NULL) if arm in kappas}
    return [
        Finding(
            f"{arm}/{also(score, 'transfer')}", TITLES[arm], ms.stats.ratio_of_means(own, values["teacher"]),
            unit="seeds",
        )
        for arm, own in values.items() if arm != "teacher"
    ]  # fmt: skip


def plot(records: list[dict]):
    """Recentred kappa over the number of classes where that is swept, else arm by arm; raw where no other is stored."""
    found = cells(records, Config, findings)
    score = "recentred_kappa" if all(cell.rows[0].keys() >= {"recentred_kappa"} for cell in found) else "kappa"
    return ms.kinds.swept(
        found, "n_classes", score, TITLES, null=0.0, title="Students of teachers of more classes", x_title="classes",
        axis=f"{score.replace('_', ' ')} on test images",
        caption="Digits and clothes under one head. kappa: 0 is chance, 1 all right.",
    )  # fmt: skip


study = lab.Study(
    version=2,  # recentred and prior-matched
    judged=True,
    probes=(
        Config(n_images=512, d_model=16, n_samples=256, epochs=1, n_seeds=2),
        Config(n_classes=5, n_images=512, d_model=8, n_layers=1, n_aux=4, n_samples=256, epochs=1, n_seeds=2, seed=4),
    ),
)


if __name__ == "__main__":
    lab.main(study)
