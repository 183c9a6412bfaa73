"""Table and figure of `studies.input_distributions`: distributions, contrasts, predictions, and the law over all."""

import functools
from collections.abc import Iterator, Mapping

import mechsub as ms
from mechsub.lab import predictions

NULL = "cross_aux"
BASE = "uniform"
SHOWN = ("input_dimension_95", "aux_digit_correlation", "gate_dimension", "drive")
_NAMES = {"type": "category", "dtick": 1, "tickfont": {"size": 11}}  # distributions or quantities: each is named
Cells = dict[str, list[Mapping]]  # distribution -> rows


def _cells(records: list[Mapping]) -> Cells:
    found: Cells = {}
    for row in records:
        found.setdefault(row["inputs"], []).append(row)
    return found


def _values(rows: list[Mapping], arm: str = "aux", value: str = "accuracy") -> dict[int, float]:
    return {row["member"]: row[value] for row in rows if row["arm"] == arm}


def _mean(rows: list[Mapping], value: str = "accuracy") -> float:
    return predictions.mean(_values(rows, value=value))


# The table.


def table(records: list[dict], Config) -> list[dict]:
    cells = _cells(records)
    trained = [row for row in records if row["arm"] != "inputs"]
    judged = (row | {"arm": ""} for row in predictions.judged_factors(trained, Config))
    return [*_distributions(cells), *_contrasts(cells), *judged, *_laws(cells)]


def _distributions(cells: Cells) -> list[dict]:
    """Students of every distribution, best first, with their null and their difference from uniform noise."""
    rows, pairs = [], {}
    for name, cell in sorted(cells.items(), key=lambda item: -_mean(item[1])):
        own, null = _values(cell), _values(cell, NULL)
        if name != BASE and BASE in cells:
            pairs[name] = predictions.paired(own, _values(cells[BASE]))
        rows.append(
            {
                "cell": name,
                "accuracy": ms.stats.student_t(list(own.values())),
                "cross_aux (null)": ms.stats.student_t(list(null.values())),
                "above the null": predictions.paired(own, null).interval,
                "to uniform": pairs[name].interval if name in pairs else "",
                **{value: _mean(cell, value) for value in SHOWN},
            }
        )
    adjusted = dict(zip(pairs, ms.stats.holm([pair.p for pair in pairs.values()]) if pairs else [], strict=True))
    return [row | ({"p (Holm)": f"{adjusted[row['cell']]:.0e}"} if row["cell"] in adjusted else {}) for row in rows]


def _contrasts(cells: Cells) -> list[dict]:
    """The brief's claims, one paired difference each."""
    told = predictions.told()
    asked = [c for c in told.get("contrast", []) if set(c["inputs"]) <= set(cells)]
    rows, pairs = [], []
    for contrast in asked:
        value = contrast.get("value", "accuracy")
        students = [_values(cells[name], value=value) for name in contrast["inputs"]]
        verdicts = {
            who: f"{contrast[key]}: {predictions.verdict(contrast[key], students, [], told['margin'])}"
            for who, key in (("predicted", "direction"), ("brief", "brief"))
            if key in contrast
        }
        pairs.append(predictions.paired(students[1], students[0]))
        name = "" if value == "accuracy" else f", {value}"
        label = f"claim {contrast['row']}: {' to '.join(contrast['inputs'])}{name}"
        rows.append({"cell": label, "difference": pairs[-1].interval, **verdicts})
    adjusted = ms.stats.holm([pair.p for pair in pairs]) if pairs else []
    return [row | {"p (Holm)": f"{p:.0e}"} for row, p in zip(rows, adjusted, strict=True)]


def _laws(cells: Cells) -> Iterator[dict]:
    found, baseline = laws(cells)
    for law in found:
        yield {
            "cell": f"law: {law.quantity}",
            "rho, held out": law.score,
            "p (best of all)": f"{law.p:.3f}",
            "error": law.error,
            "error of the mean": baseline,
            "rho, fitted": law.fitted,
            "verdict": law.verdict,
        }


# The law.


def family(name: str, families: Mapping[str, list[str]]) -> str:
    """That which names the distribution or its kind; a name with its parameter before a kind."""
    kind = name.partition(":")[0]
    for wanted in (name, kind):
        for label, members in families.items():
            if wanted in members:
                return label
    return kind


def laws(cells: Cells) -> tuple[list, float]:
    """The laws, best first, and the error of predicting the mean; none for fewer than ten distributions."""
    import numpy as np

    told = predictions.told().get("law")
    if told is None or len(cells) < 10:
        return [], 0.0
    names = sorted(cells)
    families = tuple(family(name, told["families"]) for name in names)
    members = sorted(set.intersection(*(set(_values(cells[name])) for name in names)))
    sides = {
        value: np.array([[_values(cells[name], value=value)[i] for name in names] for i in members])
        for value in ("accuracy", *told["quantities"])
    }
    return _judged_laws(families, **{value: tuple(map(tuple, side)) for value, side in sides.items()})


@functools.cache  # the table and the figure ask for the same
def _judged_laws(families: tuple[str, ...], accuracy: tuple, **quantities: tuple) -> tuple[list, float]:
    import numpy as np

    from studies.input_distributions import law as input_law

    y, sides = np.array(accuracy), {name: np.array(side) for name, side in quantities.items()}
    return input_law.laws(y, sides, families), input_law.error(np.zeros(y.shape), y, families)


# The figure.


def plot(records: list[dict]):
    cells = _cells(records)
    families = predictions.told().get("law", {}).get("families", {})
    groups: dict[str, list[str]] = {}
    for name in sorted(cells, key=lambda name: -_mean(cells[name])):
        groups.setdefault(family(name, families), []).append(name)
    found, _ = laws(cells)
    panels = {"Students and their null": _accuracies(cells), "Power by frequency": _radial(cells)}
    if found:
        panels["Which quantity predicts families held out?"] = _scores(found)
    panels["Directions that hold 95% of the variance"] = _dimensions(cells)
    for i, quantity in enumerate([law.quantity for law in found] or SHOWN):
        panels[f"Accuracy against {quantity.replace('_', ' ')}"] = _scatter(cells, groups, quantity, i == 0)
    return ms.kinds.grid(
        list(panels.values()), list(panels), title="Input distributions",
        caption="Means over seeds; bars are 95% intervals (Student-t over seeds; of the law, seeds and distributions "
        "resampled). Grey: the null, students of another initialisation. Colours: families, each held out in turn.",
    )  # fmt: skip


def _accuracies(cells: Cells):
    import plotly.graph_objects as go

    names = sorted(cells, key=lambda name: _mean(cells[name]))
    traces = []
    for arm, color in ((NULL, ms.kinds.GREY), ("aux", ms.kinds.arm_color("student_aux"))):
        found = [ms.stats.student_t(list(_values(cells[name], arm).values())) for name in names]
        bars = ms.kinds.error_bar([(i.mean, i.low, i.high) for i in found], color=color)
        marks = {"mode": "markers", "marker": {"color": color, "size": 9}, "showlegend": False}
        traces.append(go.Scatter(x=[i.mean for i in found], y=names, error_x=bars, **marks))
    return ms.kinds.Panel(traces, {"title_text": "accuracy on test images", "rangemode": "tozero"}, _NAMES)


def _radial(cells: Cells):
    import plotly.graph_objects as go

    traces = []
    for i, (name, cell) in enumerate(cells.items()):
        power = next(row["radial_power"] for row in cell if row["arm"] == "inputs")
        color, dash = ms.kinds.OKABE_ITO[i % 8], ("solid", "dash", "dot", "dashdot")[i // 8 % 4]
        line = {"mode": "lines", "line": {"width": 2, "color": color, "dash": dash}, "name": name}
        traces.append(go.Scatter(x=list(range(len(power))), y=[max(v, 1e-6) for v in power], **line))
    return ms.kinds.Panel(
        traces,
        {"title_text": "cycles an image"},
        {"title_text": "mean power of a mode", "type": "log", "range": [-4.2, 3.2]},
    )


def _scores(found: list):
    import plotly.graph_objects as go

    ordered = found[::-1]
    mean = [law.score.mean for law in ordered]
    bars = ms.kinds.error_bar((law.score.mean, law.score.low, law.score.high) for law in ordered)
    names = [f"{law.quantity.replace('_', ' ')} ({law.verdict})" for law in ordered]
    marks = {"color": ms.kinds.OKABE_ITO[0], "size": 9}
    trace = go.Scatter(
        x=mean, y=names, mode="markers", marker=marks, showlegend=False, error_x=bars,
    )  # fmt: skip
    return ms.kinds.Panel([trace], {"title_text": "rank correlation, held out", "range": [-1, 1]}, _NAMES)


def _dimensions(cells: Cells):
    import plotly.graph_objects as go

    names = sorted(cells, key=lambda name: _mean(cells[name]))
    values = [_mean(cells[name], "input_dimension_95") for name in names]
    n = next(iter(cells.values()))[0]["n_described"]
    bar = go.Bar(x=values, y=names, orientation="h", marker={"color": ms.kinds.OKABE_ITO[0]}, showlegend=False)
    return ms.kinds.Panel([bar], {"title_text": f"principal components of {n:,} inputs"}, _NAMES)


def _scatter(cells: Cells, groups: Mapping[str, list[str]], quantity: str, listed: bool):
    import plotly.graph_objects as go

    traces = [
        go.Scatter(
            x=[_mean(cells[name], quantity) for name in names], y=[_mean(cells[name]) for name in names],
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
        {"title_text": "accuracy on test images"},
    )
