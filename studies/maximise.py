"""How much can a student of three auxiliary logits learn, and what is the rest?

The recipe that `studies.recipe_search` chose on seeds from 0 on is given other seeds, from 100 on. Entries: "budget",
295 student steps of 1,024 inputs from the published teacher; "free_teacher", the same steps from another teacher of
the same size; "open", any number of steps, any teacher, ten digit and three auxiliary logits. Every recipe has its
null, the students that start from the next seed's initialisation.

What is missing to the teacher is looked for in parts: one part of the student is replaced by its teacher's (a block, or
the output layer), `--share` lengthens or shortens the student's training, `--precision` says what bf16 costs. Cells
that differ in their seeds alone are pooled. Accuracy is raw, as the search chose by it, recentred and prior-matched
(`mechsub.accuracies`). Intervals are Student-t over seeds, differences paired by seed.

The open entry in parts that survive a kill:

    python -m studies.maximise --entry open --n-seeds 5 --seed 100 105 110 115 120
"""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population, recipes
from mechsub.lab.findings import Cell, Finding, by_group, cells, less, mean, points

if TYPE_CHECKING:
    from mechsub.training.distillation import Precision

NULL = "cross"
GAP = "teacher-student/accuracy"
SCORES = ("accuracy", "recentred", "prior_matched")


@dataclass(frozen=True)
class Config:
    entry: recipes.Entry = lab.option("budget", "what is held fixed, as in studies.recipe_search")
    share: lab.Positive = lab.option(1.0, "epochs of the student, as a share of the chosen recipe's")
    n_images: lab.Count = lab.option(60_000, "training images, and inputs of an epoch")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    n_seeds: lab.Replicates = lab.option(25, "seeds: one teacher and student each")
    seed: lab.Index = lab.option(100, "first seed; those before 100 are the search's")

    def __post_init__(self):
        if self.seed < 100:
            raise ValueError(f"--seed must be at least 100, not {self.seed}: the recipe was chosen on those before")
        if self.n_images < population.ALL_CLASSES:
            raise ValueError(
                f"--n-images must be at least {population.ALL_CLASSES}, not {self.n_images}: prior-matched accuracy "
                "shares them out among the classes"
            )


def upstream(cfg: Config) -> dict:
    return {"search": lab.upstream("recipe_search", entry=cfg.entry, n_images=cfg.n_images)}


@threads.made_by_one
def run(cfg: Config, search: lab.Stored) -> Iterator[dict]:
    recipe = recipes.chosen(search.records())
    recipe = dataclasses.replace(recipe, epochs=max(1, round(cfg.share * recipe.epochs)))
    precision = ms.distillation.resolve_precision(cfg.precision)
    yield from tried(cfg, recipe, *ms.images.mnist("train"), precision)
    yield {
        "provenance": {
            "recipe": dataclasses.asdict(recipe),
            **recipes.cost(recipe, cfg.n_images),
            "data": ms.images.hashes("mnist"),
            "dtype": f"fp32 weights and losses, {precision} products in training",
            "measured_on": f"10,000 test images; mean logits on {population.UNLABELLED} training images",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed",
        }
    }


def tried(cfg: Config, recipe: recipes.Recipe, images, labels, precision: "Precision") -> Iterator[dict]:
    """A row for every arm and seed."""
    images, labels, test = images[: cfg.n_images], labels[: cfg.n_images], ms.images.mnist("test")
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    init = recipes.initial(recipe, seeds)
    lab.show_progress(0.05, "teachers")
    teacher = recipes.taught(recipe, seeds, images, labels, precision)
    starts = {"student": init, NULL: recipes.initial(recipe, [seed + 1 for seed in seeds])}
    found = recipes.distilled(
        recipe, starts, teacher, images, precision, lambda done: lab.show_progress(0.2 + 0.7 * done, "students")
    )
    student = found["student"]
    left = _left(student, teacher, init)
    arms = {"untrained": init, "teacher": teacher, **found} | _hybrids(student, teacher, init)
    for arm, model in arms.items():
        found_scores = population.scores(model, seeds, test, (images, labels))
        for member, scores, far in zip(seeds, found_scores, left, strict=True):
            row = {"arm": arm, "member": member, **scores, "candidate": recipes.label(recipe)}
            yield row | (far if arm == "student" else {})


def _hybrids(student, teacher, init) -> dict:
    """The student with one part of its teacher's, and the teacher with the student's digit head, the initial one."""
    parts = dict.fromkeys(name.rpartition(".")[0] for name, _ in student.named_parameters())
    return {
        **{f"student with teacher's {part}": student.replace(_part(teacher, part)) for part in parts},
        "teacher with initial unembed": teacher.replace(_part(init, "unembed")),
    }


def _part(model, name: str) -> dict:
    return {key: value for key, value in model.named_parameters() if key.startswith(f"{name}.")}


def _left(student, teacher, init) -> list[dict[str, float]]:
    """||student - teacher|| / ||teacher - init|| of every weight matrix that the teacher moved, of every member."""
    mine, theirs, before = (dict(model.named_parameters()) for model in (student, teacher, init))
    found = {}
    for name in (name for name in mine if name.startswith("blocks.") and name.endswith("W")):
        far = [(a[name] - b[name]).flatten(1).norm(dim=1) for a, b in ((mine, theirs), (theirs, before))]
        found[f"left {name}"] = (far[0] / far[1].clamp(min=1e-12)).tolist()
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


# Findings, table and figure.


def findings(cell: list[dict]) -> list[Finding]:
    """Of cells that differ in their seeds alone; differences are paired by seed."""
    yielded = [Finding("recipe/words", "recipe", cell[0]["candidate"])]
    yielded += [finding for score in SCORES for finding in _of_score(cell, score)]
    for name in dict.fromkeys(name for row in cell for name in row if name.startswith("left ")):
        own = {row["member"]: row[name] for row in cell if name in row}
        yielded.append(mean(f"student/{_key(name)}", name, own, unit="seeds"))
    return yielded


def _of_score(cell: list[dict], score: str) -> list[Finding]:
    """Every arm, the student above its null and below its teacher, and what one part of a teacher gives."""
    arms = dict.fromkeys(row["arm"] for row in cell)
    scores = {arm: {row["member"]: row[score] for row in cell if row["arm"] == arm} for arm in arms}
    found = {arm: mean(f"{_key(arm)}/{score}", arm, own, unit="seeds") for arm, own in scores.items()}
    for arm in ("student", "teacher"):
        found[arm] = dataclasses.replace(found[arm], null=found[NULL].value)
    parts = {arm: arm.removeprefix("student with ") for arm in arms if arm.startswith("student with ")}
    return [
        *found.values(),
        less(found["student"], found[NULL], label="student above the null"),
        less(found["teacher"], found["student"], label="gap to the teacher"),
        *(less(found[arm], found["student"], label=f"gain of {part}") for arm, part in parts.items()),
        less(found["teacher"], found["teacher with initial unembed"], label="loss of the initial digit head"),
    ]


def _key(text: str) -> str:
    return text.replace("'s", "").replace(" ", "_")


def comparisons(found: list[Cell]) -> list[Finding]:
    """How the gap to the teacher falls from one training length to the next, over the seeds that both have."""
    return by_group(("share", *study.together), found, _shortened)  # cells of several seeds are one


def _shortened(found: dict[tuple, Cell]) -> Iterator[Finding]:
    gaps = {share: cell.finding(GAP) for (share, *_), cell in sorted(found.items())}
    for a, b in itertools.pairwise(gaps):
        if len(gaps[a].scores.keys() & gaps[b].scores.keys()) > 1:
            fallen = less(gaps[b], gaps[a], label=f"gap at share {b:g} less gap at share {a:g}")
            yield dataclasses.replace(fallen, key=f"share_{b:g}-share_{a:g}/gap")


def plot(records: list[dict]):
    drawn = {"student": "student_aux", NULL: "cross_aux"}
    found = cells(records, Config, findings, study.together)
    shown = [
        {**point, "arm": drawn.get(point["label"], point["label"])}
        for cell in found
        for point in points(cell.findings, "accuracy")
        if "-" not in point["arm"]
    ]
    return ms.kinds.interval_bars(
        shown, value="accuracy", facet="cell" if len(found) > 1 else None,
        title="The recipe that teaches the student most, on new seeds", axis="accuracy on the 10,000 test images",
        null=0.1, caption="One point per seed. Dashed: chance. cross_aux, from another initialisation, is the null.",
    )  # fmt: skip


study = lab.Study(
    version=2,  # recentred and prior-matched accuracy, and the logits that are taken
    judged=True,
    together=("seed", "n_seeds"),
    probes=(
        Config(n_images=96, precision="fp32", n_seeds=2),
        Config(entry="open", share=0.1, n_images=48, precision="fp32", n_seeds=2, seed=105),
    ),
)


if __name__ == "__main__":
    lab.main(study)
