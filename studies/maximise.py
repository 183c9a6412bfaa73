"""How much can a student of three auxiliary logits learn, and what is the rest?

The recipe that `studies.recipe_search` chose on seeds from 0 on is given other seeds, from 100 on. Entries: "budget",
295 student steps of 1,024 inputs from the published teacher; "free_teacher", the same steps from another teacher of
the same size; "open", any number of steps, any teacher, ten digit and three auxiliary logits. Every recipe has its
null, the students that start from the next seed's initialisation.

What is missing to the teacher is looked for in parts: one part of the student is replaced by its teacher's (a block, or
the output layer), `--share` lengthens or shortens the student's training, `--precision` says what bf16 costs. Cells
that differ in their seeds alone are pooled. Intervals are Student-t over seeds, differences paired by seed.

The open entry in parts that survive a kill: --entry open --n-seeds 5 --seed 100 105 110 115 120.

Answer (25 seeds that no recipe was chosen on; artifacts/maximise). In the published 295 steps from the published
teacher of 0.944 [0.943, 0.945]: 0.901 [0.893, 0.909], null 0.095 [0.081, 0.109]. From a teacher whose output layer
stays at its start, 0.939 [0.938, 0.940]: 0.915 [0.910, 0.921], null 0.103 [0.087, 0.120]. Without a budget: 0.979
[0.978, 0.979] from a teacher of 0.981 [0.981, 0.981], null 0.100 [0.091, 0.108]. What is missing is in W2: with the
teacher's second layer the three gaps of 0.043 [0.035, 0.051], 0.024 [0.018, 0.029] and 0.002 [0.002, 0.003] shrink by
0.026 [0.018, 0.033], 0.019 [0.014, 0.024] and 0.002 [0.002, 0.003], with its first by 0.002 [-0.001, 0.005], 0.000
[-0.002, 0.002] and -0.000 [-0.000, 0.000]; the published teacher's trained output layer, which no student sees, is the
rest of the first. The best student is its teacher in function more than in weights: 0.467 [0.462, 0.471] of the
teacher's displacement of W2 is left between them, and 0.335 [0.333, 0.338] of W1's. All eight predictions were hits.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import recipes
from mechsub.lab import predictions, verdicts

NULL = "cross"


@dataclass(frozen=True)
class Config:
    entry: recipes.Entry = lab.option("budget", "what is held fixed, as in studies.recipe_search")
    share: lab.Positive = lab.option(1.0, "epochs of the student, as a share of the chosen recipe's")
    n_images: lab.Count = lab.option(60_000, "training images, and inputs of an epoch")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products")
    n_seeds: lab.Count = lab.option(25, "seeds: one teacher and student each")
    seed: lab.Index = lab.option(100, "first seed; those before 100 are the search's")

    def __post_init__(self):
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")
        if self.seed < 100:
            raise ValueError(f"--seed must be at least 100, not {self.seed}: the recipe was chosen on those before")


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
            "measured_on": "10,000 test images",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed",
        }
    }


def tried(cfg: Config, recipe: recipes.Recipe, images, labels, precision: str) -> Iterator[dict]:
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
        scores = ms.distillation.accuracy(model, *test).tolist()
        for member, accuracy, far in zip(seeds, scores, left, strict=True):
            row = {"arm": arm, "member": member, "accuracy": accuracy, "candidate": recipes.label(recipe)}
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


# What the records say.


def pooled(records: list[Mapping]) -> list[tuple[str, list[Mapping]]]:
    """Groups of rows whose cells differ in their seeds alone, each with its label."""
    own = ("seed", "n_seeds")
    rows = [{key: value for key, value in row.items() if key not in own} for row in records]
    return lab.by_cell(rows, Config)  # type: ignore[return-value]


def outcomes(rows: list[Mapping]) -> dict[str, Any]:
    """Name -> Interval, of one group; differences are paired by seed."""
    arms: dict[str, dict[int, float]] = {}
    for row in rows:
        arms.setdefault(row["arm"], {})[row["member"]] = row["accuracy"]

    def less(a: str, b: str):
        common = sorted(arms[a].keys() & arms[b].keys())
        return ms.stats.paired_difference([arms[a][i] for i in common], [arms[b][i] for i in common]).interval

    found = {arm: ms.stats.student_t(list(scores.values())) for arm, scores in arms.items()}
    found["student above the null"] = less("student", NULL)
    found["gap to the teacher"] = less("teacher", "student")
    for arm in arms:
        if arm.startswith("student with "):
            found[f"gain of {arm.removeprefix('student with ')}"] = less(arm, "student")
    found["loss of the initial digit head"] = less("teacher", "teacher with initial unembed")
    for name in (key for key in rows[0] | _first(rows, "student") if key.startswith("left ")):  # type: ignore[operator]
        found[name] = ms.stats.student_t([row[name] for row in rows if name in row])
    return found


def _first(rows: list[Mapping], arm: str) -> Mapping:
    return next(row for row in rows if row["arm"] == arm)


def table(records: list[dict]) -> list[dict]:
    rows = []
    for label, group in pooled(records):
        found = outcomes(group)
        rows.append({"cell": label, "quantity": f"recipe: {group[0]['candidate']}"})
        for name, value in found.items():
            null = found[NULL] if name in ("student", "teacher") else ""
            told = verdict(group, name, value)
            rows.append({"cell": label, "quantity": name, "value": value, "seeds": value.n, "null": null, **told})
    return rows + list(_lengths(records))


def verdict(group: list[Mapping], outcome: str, value) -> dict[str, str]:
    """What predictions.toml expected of an outcome of the recipe as it was chosen: hit if the whole interval keeps the
    bounds, miss if it is wholly beyond one, open otherwise; {} where nothing was said."""
    if any(group[0][name] != usual for name, usual in (("share", 1), ("precision", "auto"), ("n_images", 60_000))):
        return {}
    for told in predictions.told().get("maximise", []):
        if told["entry"] == group[0]["entry"] and told["outcome"] == outcome:
            low, high = told.get("at_least", -float("inf")), told.get("at_most", float("inf"))
            words = [f"{key.replace('_', ' ')} {told[key]:g}" for key in ("at_least", "at_most") if key in told]
            return {"expected": ", ".join(words), "verdict": verdicts.side("within", value, (low, high))[0]}
    return {}


def _lengths(records: list[Mapping]) -> Iterator[dict]:
    """How the gap to the teacher falls from one training length to the next, over the seeds that both have."""
    gaps: dict[tuple, dict[float, dict[int, float]]] = {}
    scores = {(r["entry"], r["precision"], r["share"], r["member"], r["arm"]): r["accuracy"] for r in records}
    for (*key, share, member, arm), accuracy in scores.items():
        if arm == "teacher":
            gap = accuracy - scores[*key, share, member, "student"]
            gaps.setdefault(tuple(key), {}).setdefault(share, {})[member] = gap
    for (entry, precision), by_share in gaps.items():
        for a, b in itertools.pairwise(sorted(by_share)):
            common = sorted(by_share[a].keys() & by_share[b].keys())
            if len(common) > 1:
                shorter, longer = ([by_share[share][i] for i in common] for share in (a, b))
                yield {
                    "cell": f"entry={entry}, precision={precision}",
                    "quantity": f"gap at share {b:g} less gap at share {a:g}",
                    "value": ms.stats.paired_difference(longer, shorter).interval,
                    "seeds": len(common),
                }


def plot(records: list[dict]):
    drawn = {"student": "student_aux", NULL: "cross_aux"}
    rows = [
        {**row, "cell": label, "arm": drawn.get(row["arm"], row["arm"])}
        for label, group in pooled(records)
        for row in group
    ]
    return ms.kinds.interval_bars(
        rows, value="accuracy", facet="cell" if len(pooled(records)) > 1 else None,
        title="The recipe that teaches the student most, on new seeds", axis="accuracy on the 10,000 test images",
        null=0.1, caption="One point per seed. Dashed: chance. cross_aux, from another initialisation, is the null.",
    )  # fmt: skip


study = lab.Study(
    version=1,
    probes=(
        Config(n_images=96, precision="fp32", n_seeds=2),
        Config(entry="open", share=0.1, n_images=48, precision="fp32", n_seeds=2, seed=105),
    ),
)


if __name__ == "__main__":
    lab.main(study)
