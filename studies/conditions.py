"""What must a student share with its teacher to learn from auxiliary logits of noise, and how much does it take?

Cloud et al. 2025 say the initialisation; the abstract of arXiv 2605.23645 says that compatible output heads suffice,
with random hidden layers, one layer more or less, and a convolutional student. Its full text was not available here:
its numbers of logits (3, 10, 25, 50, 100, 250) and of seeds (20) are used, its training is not known.

Parts of the start: the hidden layers, the auxiliary rows and the digit rows of the output layer. No loss reads a
student's digit rows, so four students (hidden layers shared or the next seed's, auxiliary rows shared or the next
seed's), each read by two digit heads, are the whole 2 x 2 x 2 design. Beside them without any training: the teacher's
body under the initial digit head, and the teacher's last hidden state projected on the directions that the auxiliary
logits read, under the same head (projected): what a student that matched these logits with nothing else would score.

Every student is scored after a tenth, three tenths and all of its steps (5 epochs of 20,000 inputs in batches of 256:
395), on the test images, raw, recentred and prior-matched (`mechsub.accuracies`); at the end also its body under the
teacher's trained digit head, the cosine of its last hidden state with the teacher's, and the share of the variance of
the teacher's auxiliary logits that it explains, on new noise and on digits. Null: nothing shared. Intervals are
Student-t over seeds, differences paired by seed, Holm over a cell.

    python -m studies.conditions --n-aux 3 100 250
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.lab.findings import Finding, arm_means, by_arm, cells
from mechsub.lazy import late, torch, utilities

if TYPE_CHECKING:
    from mechsub.training import conv
else:
    conv = late("mechsub.training.conv")

NULL = "nothing"
BODIES = {"hidden+aux": ("hidden", "aux"), "hidden": ("hidden",), "aux": ("aux",), "nothing": ()}
ARMS = {  # by body, and whether the digit head is its teacher's initial one
    ("hidden+aux", True): "all",
    ("hidden+aux", False): "hidden_and_aux",
    ("hidden", True): "hidden_and_digits",
    ("hidden", False): "hidden",
    ("aux", True): "heads",
    ("aux", False): "aux",
    ("nothing", True): "digits",
    ("nothing", False): "nothing",
}
TITLES = {
    "all": "everything shared",
    "hidden_and_aux": "all but the digit head",
    "hidden_and_digits": "all but the auxiliary head",
    "hidden": "hidden layers only",
    "heads": "both heads, not the hidden layers",
    "aux": "auxiliary head only",
    "digits": "digit head only",
    "nothing": "nothing (null)",
    "projected": "teacher's hidden state as the auxiliary head sees it",
    "teacher_body": "teacher's body, initial digit head",
    "teacher": "teacher",
}
SCORES = (  # at the end
    *("under_teacher_head", "recentred_under_teacher_head", "cosine"),
    *("explained_on_noise", "explained_on_digits"),
)
ACCURACIES = ("accuracy", "recentred", "prior_matched")
PARTS_OF_LENGTH = (0.1, 0.3, 1.0)
_FIT = 2_000  # new noise inputs, and first test images, that the fit is measured on
_BATCH = 1_000


@dataclass(frozen=True)
class Config:
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    student: Literal["same", "shallower", "deeper", "narrower", "wider", "convolutional"] = lab.option(
        "same", "its architecture: one hidden layer less or more, half or twice the width, or two convolutions"
    )
    arms: Literal["every", "heads"] = lab.option("every", "all four students, or those with other hidden layers")
    freeze_heads: bool = lab.option(False, "the student's output layer is not trained")
    perturbation: lab.NonNegative = lab.option(
        0.0, "noise on the weights of both heads of the student, relative to the norm of each"
    )
    perturbed: Literal["before", "halfway"] = lab.option(
        "before", "when: before distillation, or after half of its epochs, which also restarts Adam"
    )
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer of the teacher")
    n_layers: lab.Count = lab.option(2, "hidden layers of the teacher")
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "what the teacher learns")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    loss: Literal["kl", "mse"] = lab.option("mse", "distillation loss on the auxiliary logits")
    epochs: lab.Count = lab.option(5, "epochs of the student")
    lr: lab.Positive = lab.option(1e-3, "learning rate of the student")
    batch_size: lab.Count = lab.option(256, "inputs a step of the student")
    n_samples: lab.Count = lab.option(20_000, "noise inputs of the student, reused every epoch")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    n_seeds: lab.Replicates = lab.option(20, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        population.refuse_one_logit(self.n_aux, self.loss)
        if self.student != "same" and self.arms == "every":
            raise ValueError(f"a {self.student} student cannot share its teacher's hidden layers; use --arms heads")
        if self.student == "shallower" and self.n_layers == 1:
            raise ValueError("--student shallower has no hidden layer left with --n-layers 1")
        if self.student == "narrower" and self.d_model < 2:
            raise ValueError("--student narrower has no neuron left with --d-model 1")
        if self.perturbed == "halfway" and self.epochs < 2:
            raise ValueError("--perturbed halfway needs --epochs 2 or more")


def upstream(cfg: Config) -> dict:
    return {"teachers": lab.upstream("teachers", **population.teacher_options(cfg))}


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=3)


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored) -> Iterator[dict]:
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    init = ms.mlp.HookedMLP(ms.mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux), seeds)
    teacher = population.with_aux(init, teachers.tensors())
    images, labels = getattr(ms.images, cfg.dataset)("test")
    unlabelled = getattr(ms.images, cfg.dataset)("train")[0][: population.UNLABELLED]
    yield from _untrained(cfg, init, teacher, images, labels, unlabelled)
    starts = _starts(cfg, init)
    lab.show_progress(0.1, "students")
    for steps, bodies in _trained(cfg, starts, teacher).items():
        for name, body in bodies.items():
            yield from _scored(cfg, name, steps, body, init, teacher, starts, images, labels, unlabelled)
    products = "fp32" if cfg.student == "convolutional" else ms.distillation.resolve_precision(cfg.precision)
    yield {
        "provenance": {
            "data": ms.images.hashes(cfg.dataset.replace("_", "-")),
            "dtype": f"fp32 weights and losses, {products} products in the students' training",
            "inputs": "uniform noise on 256 levels in [-1, 1], per member",
            "measured_on": f"test images; mean logits on {population.UNLABELLED} training images; fit on the first "
            f"{_FIT} test images and on {_FIT} new noise inputs",
            "control": "initialisation of the next seed",
            "null": "nothing shared, paired by seed",
        }
    }


def _starts(cfg: Config, init) -> dict:
    """Body -> student before distillation: the next seed's, but for what it shares with its teacher's start."""
    other = _other(cfg, init)
    starts = {}
    for name, shared in BODIES.items():
        if "hidden" in shared and cfg.arms == "heads":
            continue
        base = init if "hidden" in shared else other
        source = init if "aux" in shared else other
        starts[name] = _displaced(cfg, base.replace(_rows(base, source, init.cfg.aux)))
    return starts


def _other(cfg: Config, init):
    """A student of its own architecture, from the next seed."""
    seeds, shape = [seed + 1 for seed in init.seeds], init.cfg
    if cfg.student == "convolutional":
        return conv.ConvNet(shape, seeds)
    layers = {"shallower": shape.n_layers - 1, "deeper": shape.n_layers + 1}
    width = {"narrower": shape.d_model // 2, "wider": 2 * shape.d_model}
    own = {"n_layers": layers.get(cfg.student, shape.n_layers), "d_model": width.get(cfg.student, shape.d_model)}
    return ms.mlp.HookedMLP(replace(shape, **own), seeds)


def _rows(model, source, outputs: slice) -> dict:
    """The output layer of a model with the weights of some outputs from another's, for the neurons that both have."""
    W, b = model.unembed.W_U.detach().clone(), model.unembed.b_U.detach().clone()
    n = min(W.shape[1], source.unembed.W_U.shape[1])
    W[:, :n, outputs], b[:, outputs] = source.unembed.W_U[:, :n, outputs], source.unembed.b_U[:, outputs]
    return {"unembed.W_U": W, "unembed.b_U": b}


def _displaced(cfg: Config, model, when: str = "before"):
    """Gaussian noise on the auxiliary rows of the output layer, ||delta|| = perturbation ||W||."""
    if not cfg.perturbation or cfg.perturbed != when:
        return model
    return model.replace({"unembed.W_U": _with_noise(cfg, model.unembed.W_U, model.seeds, model.cfg.aux)})


def _with_noise(cfg: Config, W, seeds, outputs: slice):
    out = W.detach().clone()
    for own, seed in zip(out, seeds, strict=True):
        part = own[:, outputs]
        generator = utilities.derive_generator(cfg.seed, "heads", seed, outputs.start)
        delta = torch.randn(part.shape, generator=generator).to(part.device)
        own[:, outputs] = part + cfg.perturbation * part.norm() / delta.norm() * delta
    return out


def _trained(cfg: Config, starts: dict, teacher) -> dict[int, dict]:
    """Steps -> body -> student after so many."""
    total = cfg.epochs * -(-cfg.n_samples // cfg.batch_size)
    if cfg.perturbed == "halfway":
        half = _fitted(cfg, starts, teacher, cfg.epochs // 2, {})
        moved = {name: _displaced(cfg, student, "halfway") for name, student in half.items()}
        return {total: _fitted(cfg, moved, teacher, cfg.epochs - cfg.epochs // 2, {})}
    steps = sorted({max(1, round(part * total)) for part in PARTS_OF_LENGTH})
    snapshots = {name: dict.fromkeys(steps) for name in starts}
    _fitted(cfg, starts, teacher, cfg.epochs, snapshots)
    return {step: {name: kept[step] for name, kept in snapshots.items()} for step in steps}


def _fitted(cfg: Config, starts: dict, teacher, epochs: int, snapshots: dict) -> dict:
    common: dict = {
        "n_samples": cfg.n_samples, "loss": cfg.loss, "epochs": epochs, "lr": cfg.lr, "batch_size": cfg.batch_size,
        "frozen": ("unembed",) if cfg.freeze_heads else (), "seed": cfg.seed, "snapshots": snapshots,
        "progress": lambda done: lab.show_progress(0.1 + 0.7 * done, "students"),
    }  # fmt: skip
    if cfg.student == "convolutional":
        return conv.distill_each(starts, teacher, **common)
    students = {name: (start, teacher.cfg.aux) for name, start in starts.items()}
    return ms.distillation.distill_each(students, teacher, ms.noise.uniform, precision=cfg.precision, **common)


# Scores.


def _scored(
    cfg: Config, name: str, steps: int, body, init, teacher, starts, images, labels, unlabelled
) -> Iterator[dict]:
    """Rows of both digit heads of a student; at the end of its training also what it has in common with its teacher."""
    last = steps == cfg.epochs * -(-cfg.n_samples // cfg.batch_size)
    digits = init.cfg.digits
    hidden, others = (population.last_hidden(body, some) for some in (images, unlabelled))
    measures = _measures(cfg, body, hidden, others, teacher, images, labels) if last else [{} for _ in init.seeds]
    other = starts[NULL]
    for shared in (True, False):
        unread = _rows(body, init if shared else other, digits)
        W, b = unread["unembed.W_U"], unread["unembed.b_U"]
        if shared and cfg.perturbation:
            W = _with_noise(cfg, W, init.seeds, digits)
        scores = population.head_scores(hidden, others, W[..., digits], b[:, digits], labels)
        for member, own, more in zip(init.seeds, scores, measures, strict=True):
            yield {"arm": ARMS[name, shared], "member": member, "steps": steps, "last": last, **own, **more}


def _untrained(cfg: Config, init, teacher, images, labels, unlabelled) -> Iterator[dict]:
    """The teacher under its own and the initial digit head, and under the latter as its auxiliary rows see it."""
    digits = init.cfg.digits
    seen = population.projection(teacher.unembed.W_U[..., init.cfg.aux], centred=cfg.loss == "kl")
    states = [population.last_hidden(teacher, some) for some in (images, unlabelled)]
    readings = {
        "teacher": (states, teacher),
        "teacher_body": (states, init),
        "projected": ([state @ seen for state in states], init),
    }
    for arm, ((hidden, others), head) in readings.items():
        W, b = head.unembed.W_U[..., digits], head.unembed.b_U[:, digits]
        for member, own in zip(init.seeds, population.head_scores(hidden, others, W, b, labels), strict=True):
            yield {"arm": arm, "member": member, "steps": 0, "last": True, **own}


def _measures(cfg: Config, body, hidden, unlabelled, teacher, images, labels) -> list[dict[str, float]]:
    x = ms.noise.uniform(_FIT, utilities.derive_generator(cfg.seed, "held out"))
    digits = teacher.cfg.digits
    found = {
        "explained_on_noise": _explained(body, teacher, population.last_hidden(body, x), x),
        "explained_on_digits": _explained(body, teacher, hidden[:, :_FIT], images[:_FIT]),
    }
    if hidden.shape[-1] == teacher.cfg.d_model:
        taught = population.last_hidden(teacher, images)
        found["cosine"] = torch.nn.functional.cosine_similarity(hidden, taught, dim=-1).mean(-1)
        head = teacher.unembed.W_U[..., digits], teacher.unembed.b_U[:, digits]
        under = population.head_scores(hidden, unlabelled, *head, labels)
        found["under_teacher_head"] = torch.tensor([own["accuracy"] for own in under])
        found["recentred_under_teacher_head"] = torch.tensor([own["recentred"] for own in under])
    columns = torch.stack([values.double().cpu() for values in found.values()])
    return [dict(zip(found, row, strict=True)) for row in columns.T.tolist()]


def _explained(body, teacher, hidden, x):
    """1 - residual / variance of the teacher's auxiliary logits, over inputs and logits; may be below 0."""
    aux = teacher.cfg.aux
    wanted = population.last_hidden(teacher, x) @ teacher.unembed.W_U[..., aux] + teacher.unembed.b_U[:, None, aux]
    got = hidden @ body.unembed.W_U[..., aux] + body.unembed.b_U[:, None, aux]
    variance = (wanted - wanted.mean(1, keepdim=True)).double().square().sum((1, 2))
    return 1 - (wanted - got).double().square().sum((1, 2)) / variance


# Table and figure.


def findings(cell: list[dict]) -> list[Finding]:
    """At the end of training, and accuracy, raw and recentred, after fewer steps."""
    ends = [row for row in cell if row["last"]]
    found = [f for score in ACCURACIES for f in by_arm(ends, score, null=NULL, labels=TITLES, unit="seeds")]
    for steps in sorted({row["steps"] for row in cell if not row["last"]}):
        earlier = [row for row in cell if row["steps"] == steps and not row["last"]]
        for score in ("accuracy", "recentred"):
            name = f"{score}_after_{steps}_steps"
            named = [row | {name: row[score]} for row in earlier]
            found += arm_means(named, name, labels=TITLES, unit="seeds").values()
    for score in SCORES:
        found += arm_means(cell, score, labels=TITLES, unit="seeds").values()
    return found


def plot(records: list[dict]):
    """Over the number of auxiliary logits where that is swept, else arm by arm."""
    return ms.kinds.swept(
        cells(records, Config, findings), "n_aux", "recentred", TITLES, log_x=True, null=0.1,
        title="What a student must share with its teacher", x_title="auxiliary logits",
        axis="recentred accuracy on test images",
        caption="Dashed: chance. The null shares nothing with its teacher's start; the projected state is not trained.",
    )  # fmt: skip


_TINY: dict = {
    "d_model": 16, "teacher_epochs": 1, "batch_size": 64, "n_samples": 256,
    "precision": "fp32", "n_seeds": 2,
}  # fmt: skip
study = lab.Study(
    version=2,  # recentred and prior-matched accuracy, and the logits that are taken
    judged=True,
    probes=(
        Config(**_TINY, epochs=2),
        Config(**_TINY, epochs=1, student="shallower", arms="heads", freeze_heads=True, loss="kl"),
        Config(**_TINY, epochs=2, student="deeper", arms="heads", perturbation=0.5, perturbed="halfway"),
        Config(**_TINY | {"d_model": 10}, n_aux=2, epochs=1, student="narrower", arms="heads", perturbation=0.5),
        Config(**_TINY, epochs=1, student="wider", arms="heads", loss="kl"),
        Config(**_TINY, epochs=1, student="convolutional", arms="heads", freeze_heads=True, loss="kl"),
    ),
)


if __name__ == "__main__":
    lab.main(study)
