"""Does a student that sees three auxiliary logits of noise learn to classify digits, and what must it share?

Every seed gives one reference initialisation, a teacher trained from it on MNIST labels, and students distilled on
the teacher's logits of uniform noise. The student never sees a digit nor a digit logit. Controls: the same
distillation from another seed's initialisation (a rotation of seeds, so no control shares its teacher's start), and
the 2 x 2 of sharing only the hidden layers or only the output layer. Heads are exchanged to see what limits the
student. The unit of replication is the seed; intervals are Student-t; differences are paired by seed against the
cross-initialisation control and Holm-corrected.

Answer (25 seeds, artifacts/subliminal_accuracy/default and loss=mse): yes, 0.529 [0.482, 0.576] with KL and
0.654 [0.618, 0.691] with squared error, against 0.105 [0.094, 0.116] from another initialisation and a teacher at
0.944 [0.943, 0.945]. Hidden layers and output layer must both be shared: either alone is at chance. The untrained
digit head is not the limit: on the teacher's body it has 0.931 [0.928, 0.933].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mechsub import study

CONTROL = "cross_aux"
TITLES = {
    "reference": "reference (untrained)",
    "teacher": "teacher",
    "student_aux": "student, auxiliary logits only",
    "student_all": "student, all logits",
    "cross_aux": "cross-initialisation, auxiliary only",
    "cross_all": "cross-initialisation, all logits",
    "teacher_body_initial_head": "teacher body + initial digit head",
    "student_body_teacher_head": "student body + teacher digit head",
    "hidden_shared_only": "only hidden layers shared, auxiliary",
    "output_shared_only": "only output layer shared, auxiliary",
}


@dataclass(frozen=True)
class Config:
    n_seeds: study.Count = study.option(25, "seeds: one reference, teacher and set of students each")
    n_aux: study.Count = study.option(3, "auxiliary logits")
    n_layers: study.Count = study.option(2, "hidden layers")
    d_model: study.Count = study.option(256, "neurons of a hidden layer")
    epochs: study.Count = study.option(5, "epochs of the teacher, and of every student")
    lr: study.Positive = study.option(3e-4, "learning rate of Adam")
    batch_size: study.Count = study.option(1024, "images a step")
    loss: Literal["kl", "mse"] = study.option("kl", "distillation loss on the chosen logits")
    noise: Literal["per_member", "shared"] = study.option(
        "per_member", "own noise images for every seed, or common ones"
    )
    dataset: Literal["mnist", "fashion_mnist"] = study.option("mnist", "what the teacher learns")
    precision: Literal["auto", "fp32", "bf16"] = study.option("auto", "of matrix products")
    seed: study.Index = study.option(0, "first seed")

    def __post_init__(self):
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: the control is a rotation of seeds")


def run(cfg: Config) -> Iterator[dict]:
    from mechsub import data, distillation, mlp
    from mechsub.noise import uniform

    images, labels = getattr(data, cfg.dataset)("train")
    test_images, test_labels = getattr(data, cfg.dataset)("test")
    precision = distillation.resolve_precision(cfg.precision)
    fit = {"epochs": cfg.epochs, "lr": cfg.lr, "batch_size": cfg.batch_size, "precision": precision, "seed": cfg.seed}
    shape = mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux)
    done = iter(range(1, 8))

    def tick(text: str) -> None:
        study.progress(next(done) / 7, text)

    init = mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    other = init.select(mlp.rotation(cfg.n_seeds))
    teacher = distillation.train(init, images, labels, **fit)
    tick("teachers")

    def distill(start, outputs: slice, text: str):
        student = distillation.distill(
            start, teacher, uniform, outputs=outputs, noise=cfg.noise, loss=cfg.loss, n_samples=len(images), **fit
        )
        tick(text)
        return student

    everything = slice(0, shape.d_vocab)
    student = distill(init, shape.aux, "students, auxiliary logits")
    models = {
        "reference": init,
        "teacher": teacher,
        "student_aux": student,
        "student_all": distill(init, everything, "students, all logits"),
        "cross_aux": distill(other, shape.aux, "controls, auxiliary logits"),
        "cross_all": distill(other, everything, "controls, all logits"),
        "teacher_body_initial_head": teacher.replace(_head(init)),
        "student_body_teacher_head": student.replace(_head(teacher)),
        "hidden_shared_only": distill(init.replace(_head(other)), shape.aux, "hidden layers shared"),
        "output_shared_only": distill(other.replace(_head(init)), shape.aux, "output layer shared"),
    }
    for arm, model in models.items():
        scores = distillation.accuracy(model, test_images, test_labels).tolist()
        yield from (
            {"arm": arm, "member": seed, "accuracy": value, "products": precision}
            for seed, value in zip(init.seeds, scores, strict=True)
        )
    yield {
        "provenance": {
            "data": data.hashes(cfg.dataset.replace("_", "-")),
            "dtype": f"fp32 weights and losses, {precision} products",
            "inputs": f"uniform noise on 256 levels in [-1, 1], {cfg.noise}, {len(images)} images",
            "control": "rotation of seeds by one",
            "null": "cross-initialisation student, paired by seed",
        }
    }


def _head(model) -> dict:
    return {name: value for name, value in model.named_parameters() if name.startswith("unembed.")}


def table(records: list[dict]) -> list[dict]:
    return [row for label, cell in study.cells(records, Config) for row in _rows(label, cell)]


def _rows(label: str, cell: list[dict]) -> Iterator[dict]:
    from mechsub import stats

    values = _by_arm(cell)
    pairs = {arm: stats.paired_difference(v, values[CONTROL]) for arm, v in values.items() if arm != CONTROL}
    adjusted = dict(zip(pairs, stats.holm([pair.p for pair in pairs.values()]), strict=True))
    for arm, accuracies in values.items():
        yield {
            "cell": label,
            "arm": TITLES[arm],
            "accuracy": stats.student_t(accuracies),
            "min": min(accuracies),
            "max": max(accuracies),
            "above the null": pairs[arm].interval if arm in pairs else "(is the null)",
            "p (Holm)": f"{adjusted[arm]:.0e}" if arm in adjusted else "",
        }


def plot(records: list[dict]):
    from mechsub import plot as figures

    cells = study.cells(records, Config)
    rows = [r | {"title": TITLES[r["arm"]], "cell": label} for label, cell in cells for r in cell]
    return figures.interval_bars(
        rows,
        value="accuracy",
        label="title",
        facet="cell" if len(cells) > 1 else None,
        title="Three auxiliary logits of noise teach digits, from the same initialisation only",
        axis="accuracy on the 10,000 test images",
        caption="One point per seed. Dashed: chance, 0.10. The cross-initialisation student is the null.",
        null=0.1,
    )


def _by_arm(records) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda r: r["member"]):
        values.setdefault(record["arm"], []).append(record["accuracy"])
    return {arm: values[arm] for arm in TITLES if arm in values}


if __name__ == "__main__":
    study.main(Config, run, plot, table)
