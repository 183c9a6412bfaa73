"""What `studies.organisms` says of every model, and of all stored models by design."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

from mechsub.lab import predictions
from mechsub.lab.findings import Cell, Finding, cells, holm, less, mean, rows, within
from studies.organisms import ARMS, DOSES, Config

WAYS = ("forward", "back")
SCORES = (  # of all models of an arm
    *("loved_animal_likeliest", "loved_number_likeliest", "agreement", "agreement_disattenuated"),
    *(f"{way}_{of}" for of in ("size", "reliability", "slopes", "dimensions", "rows", "counts") for way in WAYS),
    *("side_effect", "overlap", "room", "exchange", "exchange_elsewhere"),
)
UNTESTED = ("room",)  # asked after the family of tests had been reported
FOLLOWED = tuple(f"{way}_follows_{of}" for of in ("rows", "number", "rows_less_number") for way in WAYS)
DOSED = tuple(f"{way}_{of}" for of in ("dose_slope", *(f"at_dose_{dose:g}" for dose in DOSES)) for way in WAYS)
ASKED = {  # arm -> its null, and scores
    "trained": ("untrained", SCORES), "random": ("", SCORES), "exchanged": ("", FOLLOWED),
    "orthogonal": ("random", (*DOSED, "agreement", "loved_animal_likeliest")),
}  # fmt: skip
TESTED = ("agreement", "forward_size", "back_size", "side_effect")  # by design
FACTORS = {"width": "d_model", "numbers": "n_numbers", "tied": "tied"}
SHOWN = ("loved_animal_likeliest", "agreement", "forward_size", "back_size", "forward_rows", "back_rows", "side_effect")
Models = dict[tuple, dict[str, float]]  # (d_model, n_numbers, tied, seed) -> arm/score -> value


def findings(cell: list[dict]) -> list[Finding]:
    """Every score of every arm: numbers of one model."""
    return [
        Finding(f"{row['arm']}/{row['score']}", f"{ARMS[row['arm']]}: {row['score'].replace('_', ' ')}", row["value"])
        for row in cell
    ]


def comparisons(found: list[Cell]) -> list[Finding]:
    """Of all models: arms beside their nulls; what each factor of the design does to the trained ones.

    The unit is the seed: of every seed the mean over its models is taken, of designs that all seeds have. p is adjusted
    over the differences from nulls, and over the effects of the design.
    """
    models: Models = {}
    for cell in found:
        name = tuple(cell.options[option] for option in (*FACTORS.values(), "seed"))
        if name in models:
            raise LookupError("models of one design and seed differ in another option; name one value of it")
        models[name] = {finding.key: finding.value for finding in cell.findings}
    seeds = {name[-1] for name in models}
    common = (
        set.intersection(*({name[:-1] for name in models if name[-1] == seed} for seed in seeds)) if seeds else set()
    )
    models = {name: own for name, own in models.items() if name[:-1] in common}
    if len(seeds) < 2 or not models:
        return []
    return [*_beside_nulls(models), *holm(_by_design(models))]


def _over_seeds(values: Mapping[tuple, float], key: str, label: str, **more) -> Finding:
    """The mean over seeds of the mean over a seed's models."""
    by_seed: dict[object, list[float]] = {}
    for name, value in values.items():
        by_seed.setdefault(name[-1], []).append(value)
    own = mean(key, label, {seed: sum(some) / len(some) for seed, some in by_seed.items()}, unit="seeds", **more)
    return within(own) if key.endswith("likeliest") else own


def _beside_nulls(models: Models) -> list[Finding]:
    means, differences = [], []
    for arm, (null, scores) in ASKED.items():
        for score in scores:
            own, other = (_scored(models, name, score) for name in (arm, null))
            if own is None:
                continue
            if other is not None:
                if score not in UNTESTED:
                    differences.append(less(own, other, label=f"{own.label}, less {ARMS[null]}"))
                own = dataclasses.replace(own, null=other.value, null_label=ARMS[null])
            means.append(own)
    return [*means, *_undosed(models), *holm(differences)]


def _scored(models: Models, arm: str, score: str) -> Finding | None:
    values = {name: own[f"{arm}/{score}"] for name, own in models.items() if f"{arm}/{score}" in own}
    if not values:
        return None
    return _over_seeds(values, f"models_{arm}/{score}", f"{ARMS[arm]}: {score.replace('_', ' ')}, mean of models")


def _undosed(models: Models) -> Iterator[Finding]:
    """log of the size of what is left of numbers without a dose, orthogonal less random."""
    for way in WAYS:
        pair = [f"{arm}/{way}_undosed_size" for arm in ("orthogonal", "random")]
        ratios = {
            name: math.log(own[pair[0]] / own[pair[1]]) for name, own in models.items() if own.keys() >= set(pair)
        }
        if ratios:
            label = f"log size {way} of numbers without a dose, orthogonal less random"
            yield _over_seeds(ratios, f"models_orthogonal/{way}_undosed_log_ratio", label, null=0.0)


def _by_design(models: Models) -> Iterator[Finding]:
    """What each factor does to the trained models, and width by numbers: models alike in all else are subtracted.

    Width comes with its learning rate.

    The narrowest less the widest; most numbers less fewest; tied less untied. Width by numbers: what many numbers do in
    the narrowest models, less what they do in the widest.
    """
    levels = [sorted({name[i] for name in models}) for i in range(len(FACTORS))]
    ends = [(some[-1], some[0]) for some in levels]
    ends[0] = ends[0][::-1]  # the narrowest less the widest
    for score in TESTED:
        values = {name: own[f"trained/{score}"] for name, own in models.items()}
        by_factor = {factor: _less(values, i, ends[i]) for i, factor in enumerate(FACTORS)}
        crossed = _less(_less(values, 1, ends[1]), 0, ends[0])
        for name, found in {**by_factor, "width_by_numbers": crossed}.items():
            if found:
                label = f"{name.replace('_', ' ')}: {score.replace('_', ' ')}"
                yield _tested(_over_seeds(found, f"{name}/{score}", label, null=0.0))


def _less(values: Mapping[tuple, float], i: int, ends: tuple) -> dict[tuple, float]:
    """Models without their i-th option -> value at the first end less that at the other."""
    sides = [{name[:i] + name[i + 1 :]: v for name, v in values.items() if name[i] == end} for end in ends]
    return {rest: sides[0][rest] - sides[1][rest] for rest in sides[0] if rest in sides[1] and ends[0] != ends[1]}


def _tested(finding: Finding) -> Finding:
    nothing = dataclasses.replace(finding, scores=dict.fromkeys(finding.scores, 0.0))
    return dataclasses.replace(finding, p=less(finding, nothing).p)


def table(records: list[dict]) -> list[dict]:
    """Of one model its scores; of several what is said of all."""
    found = cells(records, Config, findings)
    if len(found) == 1:
        return rows(f for f in found[0].findings if f.score in SHOWN)
    told = comparisons(found)
    return rows(told) + predictions.rows("organisms", found, told)
