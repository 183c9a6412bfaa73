"""The figure of `studies.input_distributions`."""

from collections.abc import Mapping

import plotly.graph_objects as go

import mechsub as ms
from mechsub.lab import predictions
from mechsub.lab.findings import cells, like_the_first
from studies.input_distributions import NULL, Config
from studies.input_distributions.findings import SHOWN, ByName, average, by_name, family, findings, laws

_NAMES = {"type": "category", "dtick": 1, "tickfont": {"size": 11}}  # distributions or quantities: each is named


def plot(records: list[dict]):
    every = cells(records, Config, findings)
    found_cells = like_the_first(("inputs",), every)
    more = "" if len(found_cells) == len(every) else " Other cells are in the table."
    spectra = {cell.options["inputs"]: next(r for r in cell.rows if r["arm"] == "inputs") for cell in found_cells}
    named = by_name(found_cells)
    families = predictions.told().get("law", {}).get("families", {})
    groups: dict[str, list[str]] = {}
    for name in named:
        groups.setdefault(family(name, families), []).append(name)
    found, _ = laws(named)
    panels = {"Students and their null": _accuracies(named), "Power by frequency": _radial(spectra)}
    if found:
        panels["Which quantity predicts families held out?"] = _scores(found)
    panels["Directions that hold 95% of the variance"] = _dimensions(named, spectra)
    for i, quantity in enumerate([law.quantity for law in found] or SHOWN):
        panels[f"Recentred accuracy against {quantity.replace('_', ' ')}"] = _scatter(named, groups, quantity, i == 0)
    return ms.kinds.grid(
        list(panels.values()), list(panels), title="Input distributions",
        caption="Means over seeds; bars are 95% intervals (Student-t over seeds; of the law, seeds and distributions "
        "resampled). Grey: the null, students of another initialisation. Colours: families, each held out in turn."
        + more,
    )  # fmt: skip


def _accuracies(named: ByName):
    names = list(named)[::-1]
    traces = []
    for arm, color in ((NULL, ms.kinds.GREY), ("aux", ms.kinds.arm_color("student_aux"))):
        found = [named[name][f"{arm}/recentred"].value for name in names]
        bars = ms.kinds.error_bar([(i.mean, i.low, i.high) for i in found], color=color)
        marks = {"mode": "markers", "marker": {"color": color, "size": 9}, "showlegend": False}
        traces.append(go.Scatter(x=[i.mean for i in found], y=names, error_x=bars, **marks))
    return ms.kinds.Panel(traces, {"title_text": "recentred accuracy on test images", "rangemode": "tozero"}, _NAMES)


def _radial(spectra: Mapping[str, Mapping]):
    traces = []
    for i, (name, row) in enumerate(spectra.items()):
        power = row["radial_power"]
        color, dash = ms.kinds.OKABE_ITO[i % 8], ("solid", "dash", "dot", "dashdot")[i // 8 % 4]
        line = {"mode": "lines", "line": {"width": 2, "color": color, "dash": dash}, "name": name}
        traces.append(go.Scatter(x=list(range(len(power))), y=[max(v, 1e-6) for v in power], **line))
    return ms.kinds.Panel(
        traces,
        {"title_text": "cycles an image"},
        {"title_text": "mean power of a mode", "type": "log", "range": [-4.2, 3.2]},
    )


def _scores(found: list):
    ordered = found[::-1]
    mean = [law.score.mean for law in ordered]
    bars = ms.kinds.error_bar((law.score.mean, law.score.low, law.score.high) for law in ordered)
    names = [f"{law.quantity.replace('_', ' ')} ({law.verdict})" for law in ordered]
    marks = {"color": ms.kinds.OKABE_ITO[0], "size": 9}
    trace = go.Scatter(
        x=mean, y=names, mode="markers", marker=marks, showlegend=False, error_x=bars,
    )  # fmt: skip
    return ms.kinds.Panel([trace], {"title_text": "rank correlation, held out", "range": [-1, 1]}, _NAMES)


def _dimensions(named: ByName, spectra: Mapping[str, Mapping]):
    names = list(named)[::-1]
    values = [average(named[name], "input_dimension_95") for name in names]
    n = next(iter(spectra.values()))["n_described"]
    bar = go.Bar(x=values, y=names, orientation="h", marker={"color": ms.kinds.OKABE_ITO[0]}, showlegend=False)
    return ms.kinds.Panel([bar], {"title_text": f"principal components of {n:,} inputs"}, _NAMES)


def _scatter(named: ByName, groups: Mapping[str, list[str]], quantity: str, listed: bool):
    traces = [
        go.Scatter(
            x=[average(named[name], quantity) for name in names], y=[average(named[name]) for name in names],
            mode="markers", text=names, name=f"family: {label}", legendgroup=label, showlegend=listed,
            marker={"color": ms.kinds.OKABE_ITO[i % len(ms.kinds.OKABE_ITO)], "size": 11},
        )
        for i, (label, names) in enumerate(groups.items())
    ]  # fmt: skip
    values = [x for trace in traces for x in trace.x]
    log = min(values) > 0 and max(values) > 20 * min(values)
    return ms.kinds.Panel(
        traces,
        {"title_text": quantity.replace("_", " "), "type": "log" if log else "linear"},
        {"title_text": "recentred accuracy on test images"},
    )
