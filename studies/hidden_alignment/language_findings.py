"""Findings and figure of `studies.hidden_alignment` of a language model."""

from collections.abc import Iterator

import mechsub as ms
from mechsub.lab.findings import CHOSEN, Drawn, Finding, clustered, clusters_p, holm, least_p, linked, over_clusters
from mechsub.lazy import go

METRICS = ("debiased_cka", "cosine")
PAIRINGS = ("favoured", "lowest")


def findings(cell: list[dict], metric: tuple[str, ...]) -> Iterator[Finding]:
    """Of every metric and layer: both pairings, the first beside shuffled pairs, and of the cosine their difference.

    All p are Holm's over the layers. Intervals are over the chosen numbers, each with its animals. A favoured number is
    more alike than a shuffled one also where like animals merely have like numbers, which is as true of the lowest: the
    difference is what the favouring adds.
    """
    for name in _shown(metric):
        pairings = [holm(_paired(cell, row) for row in _layers(cell, pairing, name)) for pairing in PAIRINGS]
        differences = holm(_difference(cell, row) for row in _layers(cell, PAIRINGS[0], name) if name == "cosine")
        for of_block in zip(*pairings, *([differences] if differences else []), strict=True):
            yield from of_block
    yield least_p(len(_layers(cell, PAIRINGS[0], METRICS[0])), cell[0].get("n_permutations", 999))


def _paired(cell: list[dict], row: dict) -> Finding:
    value = _interval(cell, row["pairing"], row["layer"]) if row["metric"] == "cosine" else row["value"]
    first = row["pairing"] == PAIRINGS[0]
    null = Drawn(row["null_mean"], row["null_95"]) if first else None
    key, words = f"{_subject(row)}/{row['pairing']}", "shuffled pairs" if first else ""
    unit = "animals" if row["metric"] != "cosine" else f"{CHOSEN}; p permutes animals"
    return Finding(key, _label(row), value, null, row["p"], unit, null_label=words)


def _difference(cell: list[dict], row: dict) -> Finding:
    """The cosine with the favoured number less that with the lowest, paired by animal."""
    (first, favoured), (second, lowest) = (_animals(cell, pairing, row["layer"]) for pairing in PAIRINGS)
    each = clustered([a - b for a, b in zip(first, second, strict=True)], linked(favoured, lowest))
    key, unit = f"{_subject(row)}/{'-'.join(PAIRINGS)}", "animals that share a number, together"
    return Finding(key, _label(row), over_clusters(each), 0.0, clusters_p(each), unit)


def _subject(row: dict) -> str:
    return f"{row['metric']}_block_{row['layer'] + 1}"


def _label(row: dict) -> str:
    return f"{row['metric']} after block {row['layer'] + 1}"


def _shown(metric: tuple[str, ...]) -> list[str]:
    shown = [name for name in metric if name in METRICS]
    if not shown:
        raise ValueError(f"--metric of a language model is {' or '.join(METRICS)}")
    return shown


def _layers(cell: list[dict], pairing: str, metric: str) -> list[dict]:
    return [r for r in cell if r["kind"] == "layer" and (r["pairing"], r["metric"]) == (pairing, metric)]


def _animals(cell: list[dict], pairing: str, layer: int) -> tuple[list[float], list[str]]:
    """Of every animal the cosine with its number, and the number."""
    own = [r for r in cell if r["kind"] == "animal" and (r["pairing"], r["layer"]) == (pairing, layer)]
    return [row["cosine"] for row in own], [row["number"] for row in own]


def _interval(cell: list[dict], pairing: str, layer: int):
    return over_clusters(clustered(*_animals(cell, pairing, layer)))


def plot(cell: list[dict], metric: tuple[str, ...], more: str = "") -> "go.Figure":
    colors, panels = {}, []
    for name in _shown(metric):
        rows = [row for pairing in PAIRINGS for row in _drawn(cell, pairing, name)]
        panels.append(ms.kinds.band_panel(rows, "after block", name.replace("_", " "), colors=colors))
    n = len({row["animal"] for row in cell if row["kind"] == "animal"})
    pairs = ", ".join(f"{pairing} {_layers(cell, pairing, METRICS[0])[0]['n_distinct']}" for pairing in PAIRINGS)
    return ms.kinds.grid(
        panels,
        [name.replace("_", " ") for name in _shown(metric)],
        title=f"States of {cell[0]['model']} under an animal's prompt and under its number's{more}",
        caption=f"n = {n} animals; different numbers among their partners: {pairs}. Bands of shuffled pairs: 95% "
        "of the permutations; of the cosine: 95% Student-t interval over the numbers. Numbers are chosen by the "
        "interaction animal to number.",
    )


def _drawn(cell: list[dict], pairing: str, metric: str) -> Iterator[dict]:
    """Points of a pairing's line, and for the first pairing those of its null."""
    for row in _layers(cell, pairing, metric):
        point = {"arm": f"{pairing} number", "x": row["layer"] + 1, "value": row["value"]}
        if metric == "cosine":
            found = _interval(cell, pairing, row["layer"])
            point |= {"low": found.low, "high": found.high}
        yield point
        if pairing == PAIRINGS[0]:
            null = {"value": row["null_mean"], "low": row["null_low"], "high": row["null_high"], "null": True}
            yield {"arm": "shuffled pairs", "x": row["layer"] + 1, **null}
