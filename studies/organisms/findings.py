"""What `studies.organisms` says of every model, and of all stored models by design."""

import dataclasses
from collections.abc import Iterator, Mapping

from mechsub.lab import predictions
from mechsub.lab.findings import Cell, Finding, cells, holm, less, mean, rows
from studies.organisms import ARMS, DOSES, Config

WAYS = ("forward", "back")
SCORES = (  # of all trained models, beside the untrained ones
    *("loved_animal_likeliest", "loved_number_likeliest", "agreement", "agreement_disattenuated"),
    *(f"{way}_{of}" for of in ("size", "reliability", "slopes", "dimensions", "rows") for way in WAYS),
    *("free", "side_effect", "exchange"),
)
FOLLOWED = tuple(f"{way}_follows_{of}" for of in ("rows", "number", "share") for way in WAYS)
DOSED = tuple(f"{way}_{of}" for of in ("dose_slope", *(f"at_dose_{dose:g}" for dose in DOSES)) for way in WAYS)
RANDOM = ("forward_rows", "back_rows", "forward_size", "back_size", "forward_reliability", "back_reliability")
EDITS = {  # arm -> its null, and what is asked of both
    "permuted": ("kept", FOLLOWED), "frozen": ("untrained", RANDOM), "orthogonal": ("frozen", DOSED),
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
    """Of all models: trained beside untrained; what each factor of the design does; every edit beside its null."""
    models: Models = {
        tuple(cell.options[name] for name in (*FACTORS.values(), "seed")): {f.key: f.value for f in cell.findings}
        for cell in found
    }
    if len(models) < 2:
        return []
    return [*_trained(models), *holm(_by_design(models)), *_edited(models), *_undosed(models)]


def _over_models(models: Models, arm: str, score: str) -> Finding | None:
    """The mean of a score over the models that have it; None for fewer than two."""
    values = {name: own[f"{arm}/{score}"] for name, own in models.items() if f"{arm}/{score}" in own}
    label = f"{ARMS[arm]}: {score.replace('_', ' ')}, all models"
    return mean(f"models_{arm}/{score}", label, values, unit="models") if len(values) > 1 else None


def _beside(own: Finding, null: Finding | None) -> Iterator[Finding]:
    """A mean with its null's beside it, and the difference, paired by model."""
    if null is None:
        yield own
        return
    yield dataclasses.replace(own, null=null.value, null_label=null.label.partition(":")[0])
    yield less(own, null, label=f"{own.label}, less {null.label.partition(':')[0]}")


def _trained(models: Models) -> Iterator[Finding]:
    for score in SCORES:
        if own := _over_models(models, "trained", score):
            yield from _beside(own, _over_models(models, "untrained", score))


def _edited(models: Models) -> Iterator[Finding]:
    for arm, (null, scores) in EDITS.items():
        for score in (*scores, "agreement", "loved_animal_likeliest"):
            if own := _over_models(models, arm, score):
                yield from _beside(own, _over_models(models, null, score))


def _undosed(models: Models) -> Iterator[Finding]:
    """Squares of what is left of numbers without a dose: with orthogonal rows, over those with random rows."""
    for way in WAYS:
        pair = [f"{arm}/{way}_undosed_size" for arm in ("orthogonal", "frozen")]
        shares = {name: (own[pair[0]] / own[pair[1]]) ** 2 for name, own in models.items() if set(pair) <= set(own)}
        if len(shares) > 1:
            label = f"{ARMS['orthogonal']}: {way}, squares left of numbers without a dose, as a share of random rows'"
            yield mean(f"models_orthogonal/{way}_undosed_share", label, shares, unit="models", null=1.0)


def _by_design(models: Models) -> Iterator[Finding]:
    """What each factor does to the trained models, and width by numbers: models alike in all else are subtracted.

    The narrowest less the widest; most numbers less fewest; tied less untied. Width by numbers: what many numbers do in
    the narrowest models, less what they do in the widest. Replicates are the sets of models alike in all else.
    """
    levels = [sorted({name[i] for name in models}) for i in range(len(FACTORS))]
    ends = [(some[-1], some[0]) for some in levels]
    ends[0] = ends[0][::-1]  # the narrowest less the widest
    for score in TESTED:
        values = {name: own[f"trained/{score}"] for name, own in models.items()}
        by_factor = {factor: _less(values, i, ends[i]) for i, factor in enumerate(FACTORS)}
        crossed = _less(_less(values, 1, ends[1]), 0, ends[0])
        for name, found in {**by_factor, "width_by_numbers": crossed}.items():
            if len(found) > 1:
                label = f"{name.replace('_', ' ')}: {score.replace('_', ' ')}"
                yield _tested(mean(f"{name}/{score}", label, found, unit="sets of models", null=0.0))


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
