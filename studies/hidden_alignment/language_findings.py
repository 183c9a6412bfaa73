"""Table and figure of `studies.hidden_alignment` of a language model."""

from collections.abc import Iterator
from typing import Any

import mechsub as ms

METRICS = ("debiased_cka", "cosine")
PAIRINGS = ("favoured", "lowest")


def table(cell: list[dict], metric: tuple[str, ...]) -> Iterator[dict]:
    """One row per metric and layer: both pairings with p, the null of the first, and for the cosine their difference.

    All p are Holm's over the layers. A favoured number is more alike than a shuffled one also where like animals merely
    have like numbers, which is as true of the lowest: the difference is what the favouring adds.
    """
    for name in _shown(metric):
        p = {pairing: _holm([row["p"] for row in _layers(cell, pairing, name)]) for pairing in PAIRINGS}
        differences = _differences(cell) if name == "cosine" else []
        p_difference = _holm([found.p for found in differences])
        for i, row in enumerate(_layers(cell, PAIRINGS[0], name)):
            out = {"metric": name, "layer": row["layer"] + 1}
            for pairing in PAIRINGS:
                value = _layers(cell, pairing, name)[i]["value"]
                out[f"{pairing} number"] = _interval(cell, pairing, row["layer"]) if name == "cosine" else value
                out[f"p, {pairing}"] = p[pairing][i]
            out |= {"null mean": row["null_mean"], "null 95%": row["null_95"]}
            if differences:
                out |= {"favoured - lowest": differences[i].interval, "p, difference": p_difference[i]}
            yield out


def _holm(p: list[float]) -> list[float]:
    return ms.stats.holm(p) if p else []


def _differences(cell: list[dict]) -> list:
    """Per layer: the cosine with the favoured number less that with the lowest, paired by animal."""
    layers = [row["layer"] for row in _layers(cell, PAIRINGS[0], "cosine")]
    return [ms.stats.paired_difference(*(_animals(cell, pairing, layer) for pairing in PAIRINGS)) for layer in layers]


def _shown(metric: tuple[str, ...]) -> list[str]:
    shown = [name for name in metric if name in METRICS]
    if not shown:
        raise ValueError(f"--metric of a language model is {' or '.join(METRICS)}")
    return shown


def _layers(cell: list[dict], pairing: str, metric: str) -> list[dict]:
    return [r for r in cell if r["kind"] == "layer" and (r["pairing"], r["metric"]) == (pairing, metric)]


def _animals(cell: list[dict], pairing: str, layer: int) -> list[float]:
    return [r["cosine"] for r in cell if r["kind"] == "animal" and (r["pairing"], r["layer"]) == (pairing, layer)]


def _interval(cell: list[dict], pairing: str, layer: int):
    return ms.stats.student_t(_animals(cell, pairing, layer))


def plot(cell: list[dict], metric: tuple[str, ...], more: str = "") -> Any:
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
        "of the permutations; of the cosine: 95% Student-t interval over animals. Numbers are chosen by the "
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
