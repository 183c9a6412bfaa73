"""What `studies.input_distributions` says of every distribution, of the write-up's claims, and of the law over all."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping

from mechsub.lab import predictions
from mechsub.lab.findings import Cell, Finding, all_findings, arm_means, by_arm, by_group, cells, holm, less, rows
from mechsub.lazy import np
from studies.input_distributions import NULL, Config

BASE = "uniform"
SCORES = ("recentred", "accuracy")
SHOWN = ("input_dimension_95", "aux_digit_correlation", "gate_dimension", "drive")  # in the table
SAID = {"recentred": "recentred accuracy", "accuracy": "raw accuracy"}
ByName = dict[str, dict[str, Finding]]  # distribution -> key -> finding


def findings(cell: list[dict]) -> list[Finding]:
    """Students with their null, and every quantity of the inputs."""
    students = [row for row in cell if row["arm"] != "inputs"]
    scores = (*SCORES, "prior_matched")
    found = [f for score in scores for f in by_arm(students, score, null={"aux": NULL}, unit="seeds")]
    for quantity in dict.fromkeys([*SHOWN, *_quantities()]):
        found += arm_means(students, quantity, unit="seeds").values()
    return found


def _quantities() -> list[str]:
    return list(predictions.told().get("law", {}).get("quantities", {}))


def by_name(found: list[Cell]) -> ByName:
    """Students best first, recentred, of cells that differ in their distributions alone."""
    ordered = {cell.options["inputs"]: {f.key: f for f in cell.findings} for cell in found}
    return dict(sorted(ordered.items(), key=lambda item: -average(item[1])))


def average(findings: Mapping[str, Finding], quantity: str = "recentred") -> float:
    """Mean over seeds of a quantity of a distribution, or of a score."""
    return predictions.mean(findings[f"aux/{quantity}"].scores)


def comparisons(found: list[Cell]) -> list[Finding]:
    """For each score: distributions less uniform noise; differences predicted or claimed; and the law over all."""
    return by_group(("inputs",), found, lambda group: _compared(by_name(list(group.values()))))


def _compared(named: ByName) -> list[Finding]:
    told = (part(named, score) for part in (_to_uniform, _expected, _laws) for score in SCORES)
    return [finding for some in told for finding in some]


def _to_uniform(named: ByName, score: str) -> list[Finding]:
    key = f"aux/{score}"
    return holm(
        dataclasses.replace(
            less(own[key], named[BASE][key], label=f"{name} less uniform noise"), key=f"{name}_less_uniform/{score}"
        )
        for name, own in named.items()
        if name != BASE and BASE in named
    )


def _expected(named: ByName, score: str) -> Iterator[Finding]:
    """The last less the first stored level of every entry; p is adjusted over the write-up's claims.

    Entries are about raw accuracy or another quantity; those about accuracy are asked of the other score too.
    """
    claims, others = {}, {}
    for entry in (entry for entry in predictions.entries() if entry.study == "input_distributions"):
        levels = [level for level in entry.levels if level in named]
        key = f"aux/{score}" if entry.finding == "aux/accuracy" else entry.finding
        if len(levels) < 2 or (key == entry.finding and score != "accuracy"):
            continue
        a, b = (named[level][key] for level in (levels[0], levels[-1]))
        label = f"{f'claim {entry.claim}: ' if entry.claim else ''}{levels[0]} to {levels[-1]}"
        own = dataclasses.replace(less(b, a, label=label), key=f"{levels[-1]}-{levels[0]}/{b.score}", cell="")
        (claims if entry.claim else others)[own.key] = own
    yield from holm(claims.values())
    yield from (dataclasses.replace(own, p=None) for key, own in others.items() if key not in claims)


def _laws(named: ByName, score: str) -> Iterator[Finding]:
    found, baseline = laws(named, score)
    for law in found:
        label, of = f"law of {SAID[score]}: {law.quantity}", law.quantity
        of += "" if score == "accuracy" else f"_{score}"
        yield Finding(f"{of}/held_out_correlation", label, law.score, 0, law.p, "distributions")
        yield Finding(f"{of}/error", label, law.error, baseline, null_label="of the mean")
        yield Finding(f"{of}/fitted_correlation", label, law.fitted)
        yield Finding(f"{of}/verdict", label, law.verdict)


def table(records: list[dict]) -> list[dict]:
    found = cells(records, Config, findings)
    order = [average({f.key: f for f in cell.findings}) for cell in found]
    found = [found[i] for i in sorted(range(len(found)), key=lambda i: -order[i])]
    named = [f for f in all_findings(found) if f.score in (*SCORES, *SHOWN)]
    return rows(named) + rows(comparisons(found)) + predictions.rows("input_distributions", found)


# The law.


def family(name: str, families: Mapping[str, list[str]]) -> str:
    """That which names the distribution or its kind; a name with its parameter before a kind."""
    kind = name.partition(":")[0]
    for wanted in (name, kind):
        for label, members in families.items():
            if wanted in members:
                return label
    return kind


def laws(named: ByName, score: str = "recentred") -> tuple[list, float]:
    """The laws of a score, best first, and the error of predicting its mean; none for fewer than ten distributions."""
    told = predictions.told().get("law")
    if told is None or len(named) < 10:
        return [], 0.0
    names = sorted(named)
    families = tuple(family(name, told["families"]) for name in names)
    members = sorted(set.intersection(*(set(named[name][f"aux/{score}"].scores) for name in names)))
    sides = {
        value: tuple(tuple(named[name][f"aux/{value}"].scores[i] for name in names) for i in members)
        for value in (score, *told["quantities"])
    }
    return _judged_laws(families, sides.pop(score), **sides)


@functools.cache  # the table and the figure ask for the same
def _judged_laws(families: tuple[str, ...], accuracy: tuple, **quantities: tuple) -> tuple[list, float]:
    from studies.input_distributions import law as input_law

    y, sides = np.array(accuracy), {name: np.array(side) for name, side in quantities.items()}
    return input_law.laws(y, sides, families), input_law.error(np.zeros(y.shape), y, families)
