"""Findings of `studies.unembed_projection`: of every metric, and of the metrics beside each other."""

from collections.abc import Iterable, Iterator, Sequence

import mechsub as ms
from mechsub.designs.love import in_words_of
from mechsub.lab.findings import Finding, reworded, slug

DIRECTIONS = {"number_to_animal": "number to animal", "animal_to_number": "animal to number"}
# Checks, nulls, and steering where a state under a number already holds the outcome.
NOT_RANKED = ("total", "common", "rest", "scale", "normaliser", "other", "all layers")
ARMS = {"student_aux": "student", "cross_aux": "cross-initialisation student (null)"}
STATISTICS = {  # each above that of other animals
    "partial": "partial rank correlation (the rule)",
    "spearman": "rank correlation",
    "pearson": "correlation of the interactions, as a share of the ceiling",
}
CROSSED = "animals and partners (crossed)"
ACCURACIES = {
    "start": "start",
    "student": "whole change",
    "span": "only the part through the auxiliary span",
    "rest": "only the rest",
    "random_span": "only the part through a random span",
}


def findings(cell: list[dict]) -> Iterator[Finding]:
    """Of cells that differ in nothing but their metric."""
    if cell[0]["model"] == "toy":
        yield from _toy(cell)
    else:
        yield from reworded(_language(cell), in_words_of(cell[0].get("family", "numbers")))


def of(cell: Iterable[dict], kind: str, **keys) -> list[dict]:
    return [row for row in cell if all(row.get(key) == value for key, value in {"kind": kind, **keys}.items())]


def units(rows: Iterable[dict]) -> list[str]:
    """multiset, where strings share tokens, then string; metrics compete over the first."""
    found = {row["unit"] for row in of(rows, "summary")}
    return [unit for unit in ("multiset", "string") if unit in found]


def shown(row: dict) -> str:
    """The metric, with the part of dla or the layers of steering."""
    part = row.get("part", "all")
    return row["metric"] if part == "all" else f"{row['metric']}: {part}"


def _interval(row: dict, name: str) -> ms.stats.Interval:
    return ms.stats.Interval(row[name], row[f"{name}_low"], row[f"{name}_high"], row["n_animals"])


# Language models.


def _language(cell: list[dict]) -> Iterator[Finding]:
    known = units(cell)
    for direction in DIRECTIONS:
        for unit in known:
            keys = {"direction": direction, "unit": unit}
            summaries = of(cell, "summary", rows="all", **keys)
            for row in summaries:
                subject, label = _named(row, known, shown(row)), _label(row, shown(row))
                yield from _correlations(subject, label, row)
                same = [r for r in of(cell, "summary", rows="ceiling's", **keys) if shown(r) == shown(row)]
                if same:  # matched - mismatched over that of other wordings, both on the rows that these were run on
                    yield Finding(f"{subject}/of_ceiling", label, _interval(same[0], "of_ceiling"), unit=CROSSED)
            if unit == known[0]:
                ranked = [row for row in summaries if row["part"] not in NOT_RANKED]
                yield from _ranked(ranked, known)
                yield from highest(ranked, of(cell, "summary", rows="ceiling's", **keys))
            for row in of(cell, "ceiling", **keys)[:1]:
                yield from _correlations(_named(row, known, "ceiling"), _label(row, "ceiling: other wordings"), row)
    yield from shares(cell)
    yield from _geometry(cell)


def _named(row: dict, known: Sequence[str], what: str) -> str:
    """Direction, unit where it is not that over which metrics compete, and metric."""
    unit = "" if row["unit"] == known[0] else row["unit"]
    return slug(f"{row['direction']} {unit} {what}")


def _label(row: dict, what: str) -> str:
    return f"{DIRECTIONS[row['direction']]}, {row['unit']}: {what}"


def _correlations(subject: str, label: str, row: dict) -> Iterator[Finding]:
    others = row["spearman_mismatched"]
    value = _interval(row, "spearman")
    yield Finding(f"{subject}/spearman", label, value, others, unit=CROSSED, null_label="other animals")
    yield Finding(f"{subject}/spearman_others", label, others)
    yield Finding(f"{subject}/partial", label, _interval(row, "partial"), unit=CROSSED)
    yield Finding(f"{subject}/difference", label, _interval(row, "partial_difference"), 0.0, row["p"], CROSSED)
    yield Finding(f"{subject}/p_animals", label, row["p_animals"])


def shares(cell: list[dict]) -> Iterator[Finding]:
    found: dict[str, list[float]] = {}
    for row in of(cell, "share"):
        found.setdefault(row["part"], []).append(row["share"])
    for part, values in found.items():
        label = f"share of the interaction: dla: {part}"
        yield Finding(f"dla_{part}/share", label, ms.stats.student_t(values), unit="animals")
    if {"concept", "other"} <= set(found):
        pair = ms.stats.paired_difference(found["concept"], found["other"])
        label = "share of the interaction: dla: concept - other animals' directions"
        yield Finding("dla_concept-dla_other/share", label, pair.interval, 0.0, pair.p, "animals")


def _geometry(cell: list[dict]) -> Iterator[Finding]:
    """By the rule of the study's docstring, of what writing the animal's own direction predicts, animal to number."""
    keys = {"rows": "ceiling's", "direction": "animal_to_number", "unit": units(cell)[0]}
    found = {part: of(cell, "summary", part=part, **keys) for part in ("concept", "other")}
    if not all(found.values()):
        return
    own, other = found["concept"][0], found["other"][0]
    mean, low, high = (max(0.0, own[f"of_ceiling{end}"]) ** 2 for end in ("", "_low", "_high"))
    rule = _ruling(mean)
    if len({_ruling(value) for value in (mean, low, high)}) > 1:
        rule += " (the interval reaches another verdict)"
    if own["of_ceiling"] <= other["of_ceiling"]:
        rule += "; no more than other animals' directions"
    label = _label(own, "geometry, by dla: concept")
    explained = ms.stats.Interval(mean, low, high, own["n_animals"])
    yield Finding("geometry/explained", label, explained, unit=CROSSED)
    yield Finding("geometry/rule", label, rule)
    first = _ruling(max(0.0, own["of_ceiling"]))
    yield Finding("geometry/first_rule", f"{label}, by the rule stated first, of the ratio itself", first)


def _ruling(explained: float) -> str:
    return "refuted" if explained < 0.1 else "partial" if explained < 0.5 else "half or more"


def _ranked(rows: list[dict], known: Sequence[str]) -> Iterator[Finding]:
    """Holm's p over the metrics, of the larger of both p, and which wins by the rule of the study's docstring."""
    if not rows:
        return
    best = max(rows, key=lambda row: row["partial_difference"])
    for row, p in zip(rows, ms.stats.holm([max(row["p"], row["p_animals"]) for row in rows]), strict=True):
        subject, label = _named(row, known, shown(row)), _label(row, shown(row))
        yield Finding(f"{subject}/p_holm", label, p)
        rule = ""
        if row is best and len(rows) > 1:
            rule = "winner" if p < 0.05 else "highest, not significant"
        elif row["partial_difference"] > best["partial_difference_low"]:
            rule = "within the winner's interval"
        if rule:
            yield Finding(f"{subject}/rule", label, rule)


def highest(rows: list[dict], of_ceiling: list[dict]) -> Iterator[Finding]:
    """The metric that is highest by each statistic: the rule's alone hides that another statistic may name another."""
    names = {shown(row) for row in rows}
    statistics = {
        "partial": {shown(row): row["partial_difference"] for row in rows},
        "spearman": {shown(row): row["spearman"] - row["spearman_mismatched"] for row in rows},
        "pearson": {shown(row): row["of_ceiling"] for row in of_ceiling if shown(row) in names},
    }
    for name, values in statistics.items():
        if len(values) > 1:
            label = _label(rows[0], f"highest by {STATISTICS[name]}")
            yield Finding(f"{rows[0]['direction']}/highest_by_{name}", label, max(values, key=lambda m: values[m]))


# The toy.


def _toy(cell: list[dict]) -> Iterator[Finding]:
    for arm, title in ARMS.items():
        for summary in of(cell, "summary", arm=arm):
            rows = [row for row in of(cell, "seed", arm=arm) if row["metric"] == summary["metric"]]
            own, others = ([row[key] for row in rows] for key in ("spearman", "spearman_mismatched"))
            label = f"{shown(summary)}: rank correlation with recall, {title}"
            yield from _beside(f"{summary['metric']}_{arm}/rank", label, own, others, summary["p"], "other seeds' W_U")
        rows = of(cell, "share", arm=arm)
        for name, text in (("share", "share of the change"), ("share_varying", "share of what varies over images")):
            if rows:
                own, others = ([row[key] for row in rows] for key in (name, f"{name}_random"))
                p = ms.stats.paired_difference(own, others).p
                label = f"dla: {text} through the auxiliary span, {title}"
                yield from _beside(f"{arm}/{name}", label, own, others, p, "random spans")
        for name, text in ACCURACIES.items() if rows else ():
            value = ms.stats.student_t([row[f"accuracy_{name}"] for row in rows])
            yield Finding(f"{arm}/accuracy_{name}", f"dla: accuracy, {text}, {title}", value, unit="seeds")


def _beside(key: str, label: str, own: list[float], others: list[float], p: float, null: str) -> Iterator[Finding]:
    """A mean over seeds beside its null, and their difference."""
    other = ms.stats.student_t(others)
    yield Finding(key, label, ms.stats.student_t(own), other, p, "seeds", null_label=null)
    difference = ms.stats.paired_difference(own, others).interval
    yield Finding(f"{key}_difference", f"{label}, less {null}", difference, 0.0, unit="seeds")
