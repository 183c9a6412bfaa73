"""Which recipe teaches a student of three auxiliary logits the most? A search on seeds of its own.

Three entries, and the candidates of each (CANDIDATES):

* budget: 295 student steps of 1,024 inputs from the published teacher, as published;
* free_teacher: the same steps from another teacher of the same size and start;
* open: as many steps as one likes; teachers, widths and activations are free too, the numbers of digit and auxiliary
  logits are not.

Successive halving: all candidates with few seeds (and few epochs, where steps are free), the better ones with more.
The choice is by raw accuracy, as it was before recentred and prior-matched accuracy were known; both stand beside it,
with what the choice lost of the first. The unit is the seed; means of so few seeds are biased upwards for the best of
several, so its score is not an answer: `studies.maximise` gives the chosen recipe other seeds. Null of the choice: the
published recipe is a candidate too.

    python -m studies.recipe_search --entry budget free_teacher
"""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population, recipes
from mechsub.designs.recipes import Recipe
from mechsub.lab.findings import Finding, cells, less, mean, points, within

if TYPE_CHECKING:
    from mechsub.training.distillation import Precision


@dataclass(frozen=True)
class Round:
    """Candidates beyond the best `keep` of the round before are left out; seeds and share of epochs of this round."""

    keep: int
    n_seeds: int
    share: float = 1.0


def _grid(base: Recipe, **options) -> list[Recipe]:
    """All combinations of the options' values."""
    return [
        dataclasses.replace(base, **dict(zip(options, values, strict=True)))
        for values in itertools.product(*options.values())
    ]


_STEPS = Recipe(loss="mse", head="frozen", lr=1e-3)
_LONGER: dict = {"teacher_epochs": 10, "teacher_batch_size": 256, "teacher_schedule": "cosine"}
_FREE = dataclasses.replace(_STEPS, teacher_head="frozen", inputs="blurred:1")
_OPEN = dataclasses.replace(
    _STEPS, **_LONGER | {"teacher_epochs": 20, "teacher_lr": 1e-3}, teacher_head="frozen", gain=2.0, inputs="blurred:1",
    fresh=True, epochs=20, lr=2e-3, batch_size=256, schedule="cosine",
)  # fmt: skip
CANDIDATES: dict[str, list[Recipe]] = {
    "budget": [
        Recipe(),
        _STEPS,
        *_grid(_STEPS, inputs=("blurred:0.5", "blurred:1", "blurred:2", "power_law:1"), lr=(1e-3, 1.5e-3)),
        dataclasses.replace(_STEPS, inputs="blurred:1", lr=2e-3, schedule="cosine"),
    ],
    "free_teacher": [
        Recipe(),
        dataclasses.replace(_FREE, inputs="uniform"),
        *_grid(_FREE, teacher_head=("trained", "frozen"), lr=(1e-3, 1.5e-3)),
        *_grid(dataclasses.replace(_FREE, **_LONGER), teacher_head=("trained", "frozen"), lr=(1e-3, 1.5e-3)),
        dataclasses.replace(_FREE, teacher_lr=1e-3, teacher_schedule="cosine"),
    ],
    "open": [
        dataclasses.replace(Recipe(), epochs=_OPEN.epochs),
        _OPEN,
        *_grid(_OPEN, inputs=("uniform", "blurred:0.5", "blurred:2")),
        *_grid(_OPEN, lr=(1e-3, 3e-3)),
        *_grid(_OPEN, gain=(1.5, 3.0)),
        dataclasses.replace(_OPEN, activation="gelu"),
        dataclasses.replace(_OPEN, teacher_epochs=10),
    ],
}
ROUNDS = {
    "budget": [Round(1000, 2), Round(3, 5)],
    "free_teacher": [Round(1000, 2), Round(3, 5)],
    "open": [Round(1000, 2, 0.2), Round(3, 2)],
}


@dataclass(frozen=True)
class Config:
    entry: recipes.Entry = lab.option("budget", "what is held fixed")
    n_images: lab.Count = lab.option(60_000, "training images, and inputs of an epoch")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    seed: lab.Index = lab.option(0, "first seed")


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    images, labels = ms.images.mnist("train")
    precision = ms.distillation.resolve_precision(cfg.precision)
    yield from searched(cfg, CANDIDATES[cfg.entry], ROUNDS[cfg.entry], images, labels, precision)
    yield {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "dtype": f"fp32 weights and losses, {precision} products in training",
            "measured_on": f"10,000 test images; offsets on the first {population.UNLABELLED} training images",
            "null": "the published recipe, a candidate",
        }
    }


def searched(
    cfg: Config, candidates: list[Recipe], rounds: list[Round], images, labels, precision: "Precision"
) -> Iterator[dict]:
    """A row for every round, candidate still in it, and seed."""
    images, labels = images[: cfg.n_images], labels[: cfg.n_images]
    left = candidates
    for number, now in enumerate(rounds, 1):
        scores = {}
        left = left[: now.keep]
        teachers = {}
        for done, recipe in enumerate(left):
            lab.show_progress((number - 1 + done / len(left)) / len(rounds), f"round {number}")
            seeds = range(cfg.seed, cfg.seed + now.n_seeds)
            if recipe.teacher not in teachers:
                teachers[recipe.teacher] = recipes.taught(recipe, seeds, images, labels, precision)
            taught = teachers[recipe.teacher]
            rows = list(_tried(_shortened(recipe, now.share), taught, (images, labels), precision))
            scores[recipe] = sum(row["accuracy"] for row in rows) / len(rows)
            told = {"round": number, "candidate": recipes.label(recipe), "recipe": dataclasses.asdict(recipe)}
            yield from (told | {"share": now.share} | row for row in rows)
        left = sorted(left, key=scores.__getitem__, reverse=True)


def _shortened(recipe: Recipe, share: float) -> Recipe:
    return dataclasses.replace(recipe, epochs=max(1, round(share * recipe.epochs)))


def _tried(recipe: Recipe, teacher, training: tuple, precision: "Precision") -> Iterator[dict]:
    test = ms.images.mnist("test")
    start = recipes.initial(recipe, teacher.seeds)
    student = recipes.distilled(recipe, {"student": start}, teacher, training[0], precision)["student"]
    scored = (population.scores(model, teacher.seeds, test, training) for model in (student, teacher))
    for member, own, of_teacher in zip(teacher.seeds, *scored, strict=True):
        yield {
            "member": member, **own, "teacher_accuracy": of_teacher["accuracy"],
            "teacher_recentred": of_teacher["recentred"], "epochs_run": recipe.epochs,
        }  # fmt: skip


def findings(cell: list[dict]) -> list[Finding]:
    """Of every candidate of every round, best first; its null is the published recipe in the same round."""
    groups: dict[tuple[int, str], list[dict]] = {}
    for row in cell:
        groups.setdefault((row["round"], row["candidate"]), []).append(row)
    accuracy, recentred = (
        {of: _mean(some, f"round_{of[0]}:{_key(of[1])}/{score}", of) for of, some in groups.items()}
        for score in ("accuracy", "recentred")
    )
    last = max(groups)[0], recipes.label(recipes.chosen(cell))
    found = []
    for number, candidate in sorted(groups, key=lambda of: (of[0], -accuracy[of].value.mean)):
        of, some = (number, candidate), groups[number, candidate]
        published = accuracy.get((number, "published"))
        found += [
            dataclasses.replace(accuracy[of], null=published and published.value),
            recentred[of],
            _mean(some, f"{accuracy[of].subject}/teacher_accuracy", of),
            Finding(f"{accuracy[of].subject}/epochs", accuracy[of].label, some[0]["epochs_run"]),
        ]
    for score, known in (("accuracy", accuracy), ("recentred", recentred)):
        found.append(dataclasses.replace(known[last], key=f"chosen/{score}", label=f"chosen: {known[last].label}"))
    return [*found, _lost(recentred, last)]


def _lost(recentred: dict[tuple[int, str], Finding], chosen: tuple[int, str]) -> Finding:
    """What choosing by raw accuracy lost of recentred accuracy, in the last round; the best there is biased upwards."""
    of_round = [of for of in recentred if of[0] == chosen[0]]
    best = max(of_round, key=lambda of: recentred[of].value.mean)
    gap = less(recentred[best], recentred[chosen], label=f"recentred: best ({best[1]}) less chosen")
    return dataclasses.replace(gap, key="best-chosen/recentred", p=None)


def _mean(some: list[dict], key: str, of: tuple[int, str]) -> Finding:
    score = key.rpartition("/")[2]
    scores = {row["member"]: row[score] for row in some}
    return within(mean(key, f"round {of[0]}: {of[1]}", scores, unit="seeds"))


def _key(candidate: str) -> str:
    return candidate.replace(", ", ",")


def plot(records: list[dict]):
    found = cells(records, Config, findings)
    drawn = []
    for cell in found:
        last = max(row["round"] for row in cell.rows)
        drawn += [
            point | {"label": point["label"].partition(": ")[2]}
            for point in points(cell.findings, "accuracy")
            if point["arm"].startswith(f"round_{last}:")
        ]
    return ms.kinds.interval_bars(
        drawn, value="accuracy", label="label", color=None, facet="cell" if len(found) > 1 else None,
        title="The last round of the search for a recipe", axis="accuracy on test images", null=0.1,
        caption="Dashed: chance. The best of several is biased upwards: studies.maximise has it on other seeds.",
    )  # fmt: skip


# Of "auto" precision, as the cells that studies.maximise builds on; where probes run, it is fp32. Numbers of images and
# seeds are such that the candidates that go on are apart by more than processors differ.
study = lab.Study(
    version=2,  # recentred and prior-matched
    probes=(
        Config(n_images=96),
        Config(entry="free_teacher", n_images=64, seed=2),
        Config(entry="open", n_images=48),
    ),
)


if __name__ == "__main__":
    lab.main(study)
