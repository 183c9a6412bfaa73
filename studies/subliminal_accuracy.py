"""Does a student that sees three auxiliary logits of noise learn to classify digits, and what must it share?

Every seed gives one reference initialisation, a teacher trained from it on MNIST labels, and students distilled on
the teacher's logits of uniform noise. The student never sees a digit nor a digit logit. Controls: the same
distillation from the next seed's initialisation (so no control shares its teacher's start), and
the 2 x 2 of sharing only the hidden layers or only the output layer. Heads are exchanged to see what limits the
student. Accuracy is raw, recentred (digit logits less their mean over unlabelled training images) and prior-matched
(`mechsub.accuracies`), all on the test images. The unit of replication is the seed; intervals are Student-t;
differences are paired by seed against the cross-initialisation control and Holm-corrected, within a score.

    python -m studies.subliminal_accuracy --loss kl mse
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.lab.findings import Finding, all_findings, by_arm, cells, find, less, points, rows

CONTROL = "cross_aux"
SCORES = ("accuracy", "recentred", "prior_matched")
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
DIFFERENCES = (
    ("teacher's digit head on the student's body", "student_body_teacher_head", "student_aux"),
    ("initial digit head on the teacher's body", "teacher_body_initial_head", "teacher"),
)


@dataclass(frozen=True)
class Config:
    n_seeds: lab.Replicates = lab.option(25, "seeds: one reference, teacher and set of students each")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    n_layers: lab.Count = lab.option(2, "hidden layers")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer")
    epochs: lab.Count = lab.option(5, "epochs of the teacher, and of every student")
    lr: lab.Positive = lab.option(3e-4, "learning rate of Adam")
    batch_size: lab.Count = lab.option(1024, "images a step")
    loss: Literal["kl", "mse"] = lab.option("kl", "distillation loss on the chosen logits")
    noise: Literal["per_member", "shared"] = lab.option("per_member", "own noise images for every seed, or common ones")
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "what the teacher learns")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        population.refuse_one_logit(self.n_aux, self.loss)


def check(cfg: Config) -> None:
    # References and teacher; two starts with exchanged heads; students.
    population.refuse_too_large(cfg, models=3 + 2 + 6)


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    from mechsub.designs import population as toys

    test, training = (getattr(ms.images, cfg.dataset)(part) for part in ("test", "train"))
    lab.show_progress(0.0, "teachers")
    toy = toys.teachers(cfg)
    init, other, teacher, shape = toy.init, toy.other, toy.teacher, toy.init.cfg
    everything = slice(0, shape.d_vocab)
    students = toys.distilled(
        toy,
        {
            "student_aux": (init, shape.aux),
            "student_all": (init, everything),
            "cross_aux": (other, shape.aux),
            "cross_all": (other, everything),
            "hidden_shared_only": (init.replace(_head(other)), shape.aux),
            "output_shared_only": (other.replace(_head(init)), shape.aux),
        },
        cfg,
    )
    models = {
        "reference": init,
        "teacher": teacher,
        **students,
        "teacher_body_initial_head": teacher.replace(_head(init)),
        "student_body_teacher_head": students["student_aux"].replace(_head(teacher)),
    }
    for arm in TITLES:
        for member, scores in zip(init.seeds, toys.scores(models[arm], init.seeds, test, training), strict=True):
            yield {"arm": arm, "member": member, **scores, "products": toy.fit["precision"]}
    yield {
        "provenance": {
            **toys.provenance(toy, cfg),
            "measured_on": f"{len(test[1])} test images; mean logits on {population.UNLABELLED} training images",
            "null": "cross-initialisation student, paired by seed",
        }
    }


def _head(model) -> dict:
    return {name: value for name, value in model.named_parameters() if name.startswith("unembed.")}


def findings(cell: list[dict]) -> list[Finding]:
    known = [score for score in SCORES if score in cell[0] or score == "accuracy"]  # version 1 has no other
    return [found for score in known for found in _of_score(cell, score)]


def _of_score(cell: list[dict], score: str) -> list[Finding]:
    arms = by_arm(cell, score, null=CONTROL, labels=TITLES, unit="seeds")
    accuracies = [finding for finding in arms if finding.subject in TITLES]
    start = "" if score == "accuracy" else f"{score}_"
    extremes = [
        Finding(f"{f.subject}/{start}{name}", f.label, of(f.scores.values()), unit="seeds", n=f.n)
        for f in accuracies
        for name, of in (("min", min), ("max", max))
    ]
    heads = [
        less(find(arms, f"{arm}/{score}"), find(arms, f"{other}/{score}"), label=label)
        for label, arm, other in DIFFERENCES
    ]
    return [*arms, *extremes, *heads]


def table(records: list[dict]) -> list[dict]:
    found = all_findings(cells(records, Config, findings))
    return rows(finding for finding in found if finding.score in ("accuracy", "min", "max", "recentred"))


def plot(records: list[dict]):
    """Raw and recentred, a panel each, of every cell."""
    shown = cells(records, Config, findings)
    drawn = [
        {**point, "accuracy": point[score], "panel": f"{cell.label}, {words}" if len(shown) > 1 else words}
        for cell in shown
        for score, words in (("accuracy", "raw"), ("recentred", "recentred"))
        for point in points(cell.findings, score)
        if point["arm"] in TITLES
    ]
    return ms.kinds.interval_bars(
        drawn, value="accuracy", label="label", facet="panel", null=0.1,
        title="Three auxiliary logits of noise teach digits, from the same initialisation only",
        axis="accuracy on the 10,000 test images",
        caption="One point per seed. Dashed: chance, 0.10. The cross-initialisation student is the null. Recentred: "
        "digit logits less their mean over unlabelled training images.",
    )  # fmt: skip


study = lab.Study(
    version=2,  # recentred and prior-matched accuracy, and the logits that are taken
    probes=(
        Config(n_seeds=2, n_layers=1, d_model=16, epochs=1, batch_size=4096, precision="fp32"),
        Config(n_seeds=2, n_aux=4, d_model=8, epochs=1, lr=1e-3, loss="mse", noise="shared", precision="fp32", seed=3),
    ),
)


if __name__ == "__main__":
    lab.main(study)
