"""What `studies.factors` says of its cells, and of sweeps over them."""

import dataclasses
from collections.abc import Iterator, Mapping

import mechsub as ms
from mechsub.designs import population
from mechsub.lab import predictions
from mechsub.lab.findings import Cell, Finding, all_findings, arm_means, by_arm, cells, holm, less, rows
from studies.factors import ARMS, NULL, Config

SCORES, KAPPAS = ("recentred", "accuracy"), ("recentred_kappa", "kappa")
DESCRIBED = (  # quantities in the rows of aux
    *("drive", "gate_dimension", "input_dimension", "input_dimension_95", "input_mean_share"),
    *("aux_digit_correlation", "aux_digit_correlation_initial"),
)
NULLS = {arm: NULL for arm in ARMS if arm != NULL}


def findings(cell: list[dict]) -> list[Finding]:
    """Students and their teachers, by accuracies and by kappas; of aux also what its inputs are."""
    both = cell + [_of_teacher(row) for row in cell if row["arm"] == "aux"]
    told = (*SCORES, "prior_matched", *KAPPAS)
    scores = [f for score in told for f in by_arm(both, score, null=NULLS, unit="seeds")]
    described = (arm_means(cell, quantity, unit="seeds") for quantity in DESCRIBED)
    return scores + [finding for found in described for finding in found.values()]


def _of_teacher(row: Mapping) -> dict:
    own = {"arm": "teacher", "member": row["member"], "n_classes": row["n_classes"]}
    for score, kappa in zip(SCORES, KAPPAS, strict=True):
        own[score] = row[f"teacher_{score}"]
        own[kappa] = population.kappa(own[score], row["n_classes"])
    return own


def swept(found: list[Cell]) -> dict[str, list]:
    """The options that differ between cells, each with its levels: numbers ascending, others in their order."""
    options = {}
    for field in dataclasses.fields(Config):
        levels = list(dict.fromkeys(cell.options[field.name] for cell in found))
        if len(levels) > 1:
            number = all(isinstance(level, int | float) for level in levels)
            options[field.name] = sorted(levels) if number else levels
    return options


def scores_of(factors: Mapping) -> tuple[str, str]:
    """What cells are compared by, recentred and raw: accuracy, unless chance differs between them."""
    return KAPPAS if "n_classes" in factors else SCORES


def comparisons(found: list[Cell]) -> list[Finding]:
    """Students less those of the default cell, or of the sweep's first level where it leaves the default out."""
    factors, usual = swept(found), {field.name: field.default for field in dataclasses.fields(Config)}
    at = {name: usual[name] if usual[name] in levels else levels[0] for name, levels in factors.items()}
    base = next((cell for cell in found if at.items() <= cell.options.items()), None)
    told = [f for score in scores_of(factors) if base for f in _less_reference(found, base, score)]
    return told + [law for score in SCORES for law in laws(found, factors, score)]


def _less_reference(found: list[Cell], base: Cell, score: str) -> list[Finding]:
    reference = {f.subject: f for f in base.findings if f.score == score}
    return holm(
        dataclasses.replace(
            less(own, reference[own.subject], label=f"{own.subject}, less the reference"),
            key=f"{own.subject}_less_reference/{score}", cell=cell.label,
        )
        for cell in found
        for own in cell.findings
        if cell is not base and own.score == score and own.subject in ARMS and own.subject in reference
    )  # fmt: skip


def laws(found: list[Cell], factors: Mapping[str, list], score: str = "recentred") -> Iterator[Finding]:
    """Where ten or more input distributions are compared: does what they are to the network tell how much is learned?

    Spearman's correlation, over distributions, of the mean of every quantity of `spectra` with the mean score, and
    Holm's p over the quantities. Nothing is fitted, but the best of several must be confirmed on other distributions.
    """
    if set(factors) != {"inputs"} or len(factors["inputs"]) < 10:
        return
    by_key = [{finding.key: finding for finding in cell.findings} for cell in found]
    learned = [_mean(told[f"aux/{score}"]) for told in by_key]
    told, law = [], "law" if score == "accuracy" else f"{score}_law"
    for quantity in DESCRIBED:  # gates of another activation than ReLU have none
        means = [_mean(own[f"aux/{quantity}"]) for own in by_key if f"aux/{quantity}" in own]
        if len(means) == len(by_key) and len(set(ms.stats.joined(means).tolist())) > 1:
            rho, p = ms.stats.spearman(means, learned), ms.stats.spearman_p(means, learned)
            told.append(Finding(f"{quantity}/{law}", f"law: {quantity}", rho, 0, p, "inputs"))
    yield from holm(told)


def _mean(finding: Finding) -> float:
    return predictions.mean(finding.scores)


def table(records: list[dict]) -> list[dict]:
    found = cells(records, Config, findings)
    told, shown = all_findings(found, comparisons), (*scores_of(swept(found)), "law", "recentred_law")
    return rows(f for f in told if f.score in shown) + predictions.rows("factors", found)
