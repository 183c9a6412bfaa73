"""Figures: the plotly template "mechsub" and the few figure kinds that studies use; each returns a Figure.

All kinds take plain records, one dict per seed (or pair), never averages. Mean, interval and n are computed here, so
that the caption's n is the n of the figure. Text from records is escaped.
"""

import html
import itertools
import math
import numbers
import textwrap
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from mechsub.lab import store
from mechsub.lab.figures import drawing, looks
from mechsub.lab.figures.colors import ARM_COLORS, GREY, OKABE_ITO, arm_color, faint
from mechsub.lab.findings import panel_of, value_text
from mechsub.lab.findings import points as points_of
from mechsub.stats import student_t

if TYPE_CHECKING:
    from mechsub.lab.findings import Cell, Finding

COLUMNS = 3  # panels side by side; more go below
MANY = 24  # panels of bars; more facets stand along an axis
MARKED = 2_000  # places of an axis whose intervals can be told apart
CAPTION_WIDTH = 110  # characters a line, at slide size
TITLE_WIDTH, TITLE_LINE = 34, 16  # of a panel in a row of three: characters a line, and pixels of a line
BETWEEN = 92  # pixels from a panel to the one below it, for the ticks, the title of its axis, and a title of one line
LONG_LEGEND = 15  # names; longer legends are smaller

plotly.io.templates["mechsub"] = go.layout.Template(
    layout={
        "font": {"family": "Helvetica, Arial, sans-serif", "size": 16, "color": "#222222"},
        "title": {"font": {"size": 22}, "x": 0.02, "xanchor": "left"},
        "colorway": OKABE_ITO,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": {"gridcolor": "#E6E6E6", "zerolinecolor": "#BBBBBB", "linecolor": "#444444", "automargin": True},
        "yaxis": {"gridcolor": "#E6E6E6", "zerolinecolor": "#BBBBBB", "linecolor": "#444444", "automargin": True},
        "legend": {"tracegroupgap": 0},
        "colorscale": {"sequential": "Cividis", "diverging": "RdBu"},
    }
)


def interval_bars(
    records: Iterable[Mapping],
    *,
    value: str,
    title: str,
    axis: str,
    caption: str,
    label: str = "arm",
    color: str | None = "arm",
    facet: str | None = None,
    unit: str = "seeds",
    null: float | int | tuple | None = None,
    horizontal: bool = True,
    interval: Callable | None = None,
) -> go.Figure:
    """Every record as a point, with mean and interval: a row (or column) for each `label`, a panel for each `facet`.

    `null` draws a line or a band (the expectation without an effect). `color` names the key of the arm. More than MANY
    facets become places along one axis, with a line for each label.
    """
    records = list(records)
    labels, facets = _distinct(records, label), _distinct(records, facet)
    if facet is not None and len(facets) > MANY:
        figure = _over_facets(records, facets, value, label, color, facet, interval)
        figure.update_yaxes(title_text=plain(axis))
        _draw_null(figure, null, vertical=False)
        counts = _counts(records, (label, facet))
        note = _interval_note(interval, unit, counts)
        return _finish(figure, title, f"{caption} {len(facets)} {plain(facet)}s. {note}", 560, legend=True)
    figure, tall = _panels(facets, horizontal, 45 * len(labels) if horizontal else 330)
    arms: dict[str, list] = {}
    for panel, (name, place, chosen) in _placed(records, labels, facets, label, facet):
        arm = chosen[0].get(color, name) if color else name
        for trace in _points_and_interval([row[value] for row in chosen], place, arm_color(arm), horizontal, interval):
            figure.add_trace(trace.update(name=plain(name)), **_cell(panel))
            arms.setdefault(str(arm), []).append(figure.data[-1])
    looks.tell_apart(arms)
    _label_rows(figure, labels, axis, horizontal)
    _draw_null(figure, null, vertical=horizontal)
    counts = _counts(records, (label, facet))
    return _finish(figure, title, f"{caption} {_interval_note(interval, unit, counts)}", 150 + tall, legend=False)


def _over_facets(
    records: list, facets: list, value: str, label: str, color: str | None, facet: str, interval: Callable | None
) -> go.Figure:
    """Means of every label over the facets, along the one number in which facets differ, else in their order; up to
    MARKED facets have intervals."""
    groups: dict = {}
    for row in records:
        groups.setdefault(row[label], {}).setdefault(row[facet], []).append(row)
    name, places = _numbered([str(one) for one in facets])
    spots = dict(zip(facets, places, strict=True))
    figure = go.Figure()
    for arm, cells in groups.items():
        chosen = sorted(cells, key=lambda one: spots[one])
        shade = arm_color(next(iter(cells.values()))[0].get(color, arm) if color else arm)
        found = [[row[value] for row in cells[one]] for one in chosen]
        line = {"x": [spots[one] for one in chosen], "hovertext": [plain(str(one)) for one in chosen]}
        if len(facets) > MARKED:
            style = {"mode": "markers", "marker": {"color": shade, "size": 3}}
            figure.add_trace(go.Scattergl(**line, **style, y=[_mean(values) for values in found], name=plain(arm)))
            continue
        bounds = [_summary(values, interval) for values in found]
        style = {"mode": "markers", "marker": {"color": shade}, "error_y": error_bar(bounds, color=shade)}
        figure.add_trace(go.Scatter(**line, **style, y=[mean for mean, _, _ in bounds], name=plain(arm)))
    return figure.update_xaxes(title_text=plain(name or facet))


def _numbered(texts: list[str]) -> tuple[str, list[float]]:
    """For texts such as "n_aux=3": the one option that differs, and its values; else "", and the places in order."""
    pairs = [text.partition("=") for text in texts]
    names = {name for name, _, _ in pairs}
    try:
        values = [float(value) for _, _, value in pairs]
    except ValueError:
        values = []
    if len(names) == 1 and values and all(map(math.isfinite, values)):
        return names.pop(), values
    return "", [float(place) for place in range(len(texts))]


def interval_lines(
    records: Iterable[Mapping],
    *,
    x: str,
    value: str,
    title: str,
    x_title: str,
    y_title: str,
    caption: str,
    arm: str = "arm",
    color: str = "arm",
    facet: str | None = None,
    unit: str = "seeds",
    null: float | int | tuple | None = None,
    log_x: bool = False,
    interval: Callable | None = None,
) -> go.Figure:
    """The mean over x with its interval as a band, one line for each arm, one panel (side by side) for each `facet`.

    Settings that are words have no line between them: a mean and its interval each, arms side by side. `color` names
    the key of the arm that gives the colour.
    """
    records = list(records)
    arms, facets = _distinct(records, arm), _distinct(records, facet)
    places = _distinct(records, x)
    axis = _categories(places)
    if log_x:
        _check_positive(places, x)
    (figure, tall), listed = _panels(facets, True, 370 if len(facets) <= COLUMNS else 280), set()
    for panel, (name, _, chosen) in _placed(records, arms, facets, arm, facet):
        xs = sorted(set(row[x] for row in chosen)) if axis is None else _distinct(chosen, x)
        bounds = [_summary([row[value] for row in chosen if row[x] == spot], interval) for spot in xs]
        shown = xs if axis is None else [_text(spot) for spot in xs]
        style = {"legendgroup": plain(str(name)), "name": plain(name), "showlegend": name not in listed}
        shade = arm_color(chosen[0].get(color, name))
        drawn = _band_and_line if axis is None else _marks
        for trace in drawn(shown, bounds, shade, **style):
            figure.add_trace(trace, **_cell(panel))
        listed.add(name)
    figure.update_xaxes(title_text=plain(x_title), **({"type": "log" if log_x else None} if axis is None else axis))
    figure.update_yaxes(title_text=plain(y_title), col=1).update_layout(scattermode="group", scattergap=0.6)
    _draw_null(figure, null, vertical=False)
    counts = _counts(records, (arm, facet, x))
    return _finish(figure, title, f"{caption} {_interval_note(interval, unit, counts)}", 150 + tall, legend=True)


def _marks(x: list[str], bounds: list[tuple], color: str, **style) -> list[go.Scatter]:
    """Means at settings that are words, with their intervals."""
    marks = {"mode": "markers", "marker": {"color": color, "size": 9}, "offsetgroup": style["legendgroup"]}
    y = [mean for mean, _, _ in bounds]
    return [go.Scatter(x=x, y=y, error_y=error_bar(bounds, color=color), **marks, **style)]


def swept(
    cells: "Sequence[Cell]", option: str, value: str, arms: Container[str], *, x_title: str, axis: str,
    log_x: bool = False, **more,
) -> go.Figure:  # fmt: skip
    """A score over an option in which cells differ, with a panel for the options beside it; else arm by arm."""
    drawn = [
        point | {option: cell.options[option], "panel": panel_of(cell, option)}
        for cell in sorted(cells, key=lambda cell: cell.options[option])
        for point in points_of(cell.findings, value)
        if point["arm"] in arms
    ]
    if len({point[option] for point in drawn}) > 1:
        return interval_lines(
            drawn, x=option, value=value, arm="label", facet="panel", x_title=x_title, y_title=axis, log_x=log_x, **more
        )
    facet = "cell" if len(cells) > 1 else None
    return interval_bars(drawn, value=value, label="label", facet=facet, axis=axis, **more)


def findings(found: "Iterable[Finding]", title: str) -> go.Figure:
    """Findings with intervals (`mechsub.lab.findings`), a panel for each score; the null of each is a cross.

    A row for each; more than MANY cells stand along an axis.
    """
    found = [finding for finding in found if hasattr(finding.value, "low")]
    if not found:
        caption = "No number here has an interval; the table has all of them."
        return _finish(go.Figure(), title, caption, 170, legend=False)
    scores = list(dict.fromkeys(finding.score for finding in found))
    units = ", ".join(dict.fromkeys(finding.unit for finding in found if finding.unit)) or "replicates"
    if len(cells := list(dict.fromkeys(finding.cell for finding in found if finding.cell))) > MANY:
        of_cells = [finding for finding in found if finding.cell]
        figure, tall = _over_cells(of_cells, cells, list(dict.fromkeys(finding.score for finding in of_cells)))
        bars = " with 95% intervals" if len(cells) <= MARKED else ""
        grey = "; grey: the null of each" if any(_null_of(finding) is not None for finding in of_cells) else ""
        more = "" if len(of_cells) == len(found) else " Comparisons of cells are in the table."
        caption = f"{len(cells)} cells. Means{bars} over {units}{grey}.{more}"
        return _finish(figure, title, caption, 190 + tall, legend=True)
    rows = _rows(found)
    place_of = {row: place for place, row in enumerate(rows)}
    figure, tall = _panels(scores, True, 35 * len(rows))
    for panel, score in enumerate(scores, 1):
        own = [finding for finding in found if finding.score == score]
        places = [place_of[_row(finding)] for finding in own]
        values = [finding.value for finding in own]
        error = error_bar(((value.mean, value.low, value.high) for value in values), color=GREY)
        mean = go.Scatter(
            x=[value.mean for value in values], y=places, error_x=error, mode="markers", name=plain(score),
            marker={"color": OKABE_ITO[(panel - 1) % len(OKABE_ITO)], "size": 9},
        )  # fmt: skip
        nulls = [_null_of(finding) for finding in own]
        null = go.Scatter(x=nulls, y=places, mode="markers", marker={"symbol": "x", "color": GREY}, name="null")
        figure.add_trace(mean, **_cell(panel)).add_trace(null, **_cell(panel))
    _label_rows(figure, list(rows.values()), "", True)
    caption = f"Means with 95% intervals over {units}; crosses: the null of each."
    return _finish(figure, title, caption, 170 + tall, legend=False)


def _over_cells(found: "Sequence[Finding]", cells: list[str], scores: list[str]) -> tuple[go.Figure, int]:
    """Findings of many cells along the one number in which these differ, else in their order, and the pixels of all
    panels; up to MARKED cells have intervals."""
    name, places = _numbered(cells)
    spots = dict(zip(cells, places, strict=True))
    kinds = dict.fromkeys((finding.subject, finding.label) for finding in found)
    often = Counter(label for _, label in kinds)
    words = {kind: kind[1] if often[kind[1]] == 1 else f"{kind[1]} ({kind[0]})" for kind in kinds}
    figure, tall = _panels(scores, False, 370)
    dots, size = (go.Scatter, 6) if len(cells) <= MARKED else (go.Scattergl, 3)
    for panel, score in enumerate(scores, 1):
        groups: dict[str, list[Finding]] = {}
        for finding in found:
            if finding.score == score:
                groups.setdefault(words[finding.subject, finding.label], []).append(finding)
        for i, (label, own) in enumerate(groups.items()):
            line = {"x": [spots[finding.cell] for finding in own], "mode": "markers"}
            nulls = [_null_of(finding) for finding in own]
            if any(null is not None for null in nulls):
                marker = {"symbol": "x", "color": GREY, "size": size}
                figure.add_trace(dots(**line, y=nulls, marker=marker, name="null"), **_cell(panel))
            shade, values = OKABE_ITO[i % len(OKABE_ITO)], [finding.value for finding in own]
            bars = error_bar(((value.mean, value.low, value.high) for value in values), color=shade)
            more = {"error_y": bars} if len(cells) <= MARKED else {}
            y, texts = [value.mean for value in values], [plain(finding.cell) for finding in own]
            marker = {"color": shade, "size": size}
            trace = dots(**line, **more, y=y, hovertext=texts, marker=marker, name=plain(label))
            figure.add_trace(trace, **_cell(panel))
    return figure.update_xaxes(title_text=plain(name or "cell")), tall


def _null_of(finding: "Finding") -> float | None:
    """The number of its null; some are words."""
    null = getattr(finding.null, "mean", finding.null)
    return null if _is_number(null) else None


def _row(finding: "Finding") -> tuple[str, str, str]:
    return finding.cell, finding.subject, finding.label


def _rows(found: "Iterable[Finding]") -> dict[tuple[str, str, str], str]:
    """The row of every finding, with its words; rows of the same words have their key behind them."""
    words = {_row(one): f"{one.cell}: {one.label}" if one.cell else one.label for one in found}
    often = Counter(words.values())
    return {row: text if often[text] == 1 else f"{text} ({row[1]})" for row, text in words.items()}


def heatmap(
    records: Iterable[Mapping],
    *,
    x: str,
    y: str,
    value: str,
    title: str,
    x_title: str,
    y_title: str,
    color_title: str,
    caption: str,
    unit: str = "seeds",
    center: float | int | None = None,
) -> go.Figure:
    """The mean of the records of every (x, y); `center` chooses a diverging scale around that value."""
    records = list(records)
    columns, rows = _distinct(records, x), _distinct(records, y)
    cells: dict[tuple, list[float]] = {}
    for row in records:
        cells.setdefault((row[y], row[x]), []).append(row[value])
    means = [[_mean(cells.get((down, across), [])) for across in columns] for down in rows]
    diverging = {"colorscale": "RdBu", "reversescale": True, "zmid": center}
    scale = {"colorscale": "Cividis"} if center is None else diverging
    names = {"x": [plain(str(name)) for name in columns], "y": [plain(str(name)) for name in rows]}
    figure = go.Figure(go.Heatmap(z=means, **names, **scale, colorbar={"title": {"text": plain(color_title)}}))
    figure.update_xaxes(title_text=plain(x_title), type="category")
    figure.update_yaxes(title_text=plain(y_title), type="category", autorange="reversed")
    note = f"Mean of n = {_range(_counts(records, (x, y)))} {unit} in every field."
    return _finish(figure, title, f"{caption} {note}", 200 + 32 * max(len(rows), 8), legend=False)


@dataclass(frozen=True)
class Panel:
    """Traces that share two axes; `grid` places panels."""

    traces: list
    x: dict
    y: dict


def grid(panels: list[Panel], titles: list[str], *, title: str, caption: str, spacing: float = 0.14) -> go.Figure:
    """Panels of different kinds, two a row; `spacing` (a share of the width) between them leaves room for labels."""
    rows = -(-len(panels) // 2)
    figure = make_subplots(
        rows=rows,
        cols=min(2, len(panels)),
        subplot_titles=[plain(t) for t in titles],
        vertical_spacing=0.3 / rows,
        horizontal_spacing=spacing,
    )
    for i, panel in enumerate(panels):
        place = {"row": 1 + i // 2, "col": 1 + i % 2}
        for trace in panel.traces:
            figure.add_trace(trace, **place)
        x, y = _named(panel.x, "x", panel.traces), _named(panel.y, "y", panel.traces)
        figure.update_xaxes(**x, **place).update_yaxes(**y, **place)
    figure.update_layout(barmode="stack")
    figure = _finish(figure, title, caption, 130 + 520 * rows, legend=True)
    # Names below a panel reach further down than numbers.
    return figure.update_annotations(selector={"name": "caption"}, yshift=-105).update_layout(
        margin_b=figure.layout.margin.b + 30
    )


def _named(axis: dict, side: str, traces: list) -> dict:
    """The axis, along which text stays text."""
    values = (value for trace in traces for value in _values(getattr(trace, side, None)))
    return {"type": "category", **axis} if any(isinstance(value, str) for value in values) else axis


def _values(along) -> Iterable:
    return () if along is None else along


def interval_panel(groups: Mapping[str, list[float]], x_title: str, null: float | int | None = None) -> Panel:
    """Every value of a group (a seed each) as a point, with mean and Student-t interval; dashed: `null`."""
    traces = []
    for place, (name, values) in enumerate(groups.items()):
        shade = OKABE_ITO[place % len(OKABE_ITO)]
        traces += [
            trace.update(name=plain(name), showlegend=False)
            for trace in _points_and_interval(values, place, shade, True, None)
        ]
    if null is not None:
        style = {"mode": "lines", "line": {"color": GREY, "dash": "dash"}, "showlegend": False, "hoverinfo": "skip"}
        traces.insert(0, go.Scatter(x=[null, null], y=[-0.5, len(groups) - 0.5], **style))
    labels = {"tickvals": list(range(len(groups))), "ticktext": [plain(name) for name in groups], "zeroline": False}
    return Panel(traces, {"title_text": plain(x_title)}, {**labels, "range": [len(groups) - 0.5, -0.5]})


def line_panel(lines: Mapping[str, Mapping], x_title: str, y_title: str) -> Panel:
    """The mean over x of every line, with its Student-t interval as a band."""
    traces = []
    axis = _categories(list(dict.fromkeys(spot for points in lines.values() for spot in points)))
    for place, (name, points) in enumerate(lines.items()):
        shade = OKABE_ITO[place % len(OKABE_ITO)]
        bounds = [_summary(values, None) for values in points.values()]
        xs = list(points) if axis is None else [_text(spot) for spot in points]
        traces += _band_and_line(xs, bounds, shade, legendgroup=plain(name), name=plain(name))
    return Panel(traces, {"title_text": plain(x_title), **(axis or {})}, {"title_text": plain(y_title)})


def band_panel(rows: list[dict], x_title: str, y_title: str, *, colors: dict[str, str]) -> Panel:
    """One line for every `arm` over `x` at `value`, with a band from `low` to `high` where its rows have them.

    Use it for ends that are computed already, such as those of a permutation test, which has no values to draw.
    `colors`: arm -> colour, shared by the panels of a figure. Arms that `colors` lacks are added and listed in the
    legend; a row with `null` makes its arm grey.
    """
    traces = []
    axis = _categories(_distinct(rows, "x"))
    for arm in _distinct(rows, "arm"):
        chosen = [row for row in rows if row["arm"] == arm]
        if axis is None:
            chosen.sort(key=lambda row: row["x"])
        listed = arm in colors
        color = colors.setdefault(arm, _free_color(arm, colors, chosen[0].get("null", False)))
        x = [row["x"] if axis is None else _text(row["x"]) for row in chosen]
        style = {"legendgroup": plain(arm), "name": plain(arm)}
        bounds = [(row["value"], row.get("low"), row.get("high")) for row in chosen]
        if all("low" in row for row in chosen):
            drawn = _band_and_line(x, bounds, color, **style)
        else:
            drawn = [_line(x, bounds, color, **style)]
        traces += [*drawn[:-1], drawn[-1].update(showlegend=not listed)]
    return Panel(traces, {"title_text": plain(x_title), **(axis or {})}, {"title_text": plain(y_title)})


def _band_and_line(x: list, bounds: list[tuple], color: str, **style) -> list[go.Scatter]:
    """The band of the intervals, and the line of the means. A bar stands where an interval has no neighbour to make a
    band with; an interval without limits leaves a gap."""
    limited = itertools.groupby(range(len(x)), key=lambda place: all(map(math.isfinite, bounds[place])))
    runs = [list(run) for known, run in limited if known]
    outline: list[tuple] = []
    for run in runs:
        outline += [(None, None)] * bool(outline) + [(x[place], bounds[place][2]) for place in run]
        outline += [(x[place], bounds[place][1]) for place in reversed(run)]
    filled = {"fill": "toself", "fillcolor": faint(color), "line": {"width": 0}, "hoverinfo": "skip", "mode": "lines"}
    area = {"x": [spot for spot, _ in outline], "y": [end for _, end in outline]}
    within = {place for run in runs if len(run) > 1 for place in run}
    line = _line(x, bounds, color, **style)
    if len(within) < len(x):
        bars = [None if place in within else bound for place, bound in enumerate(bounds)]
        line.update(error_y=error_bar(bars, color=color))
    return [go.Scatter(**area, **filled, **{**style, "showlegend": False}), line]


def _line(x: list, bounds: list[tuple], color: str, **style) -> go.Scatter:
    means = [mean for mean, _, _ in bounds]
    return go.Scatter(x=x, y=means, mode="lines+markers", line={"color": color, "width": 3}, **style)


def _free_color(arm: str, taken: dict[str, str], null: bool) -> str:
    """The arm's fixed colour, grey for a null, else the first colour that no other line has."""
    free = [color for color in OKABE_ITO if color not in taken.values()] or OKABE_ITO
    return ARM_COLORS.get(arm, GREY if null else free[0])


def ratio_scatter(x: list[float], y: list[float], names: list[str], x_title: str, y_title: str) -> Panel:
    """Two log ratios (nats) of every item as ratios on log axes; dashed at 1, dotted at 2."""
    points = go.Scatter(
        x=_ratios(x), y=_ratios(y), mode="markers", text=[plain(n) for n in names],
        marker={"color": OKABE_ITO[0], "size": 7, "opacity": 0.6}, showlegend=False,
    )  # fmt: skip
    lines = []
    for at, dash in ((1.0, "dash"), (2.0, "dot")):
        style = {"mode": "lines", "line": {"color": GREY, "dash": dash}, "showlegend": False, "hoverinfo": "skip"}
        lines.append(go.Scatter(x=[at, at], y=_ends(points.y, at), **style))
        lines.append(go.Scatter(x=_ends(points.x, at), y=[at, at], **style))
    return Panel(
        [*lines, points], {"type": "log", "title_text": plain(x_title)}, {"type": "log", "title_text": plain(y_title)}
    )


def _ends(values, at: float) -> list[float]:
    return [min(*values, at), max(*values, at)]


def ecdf(groups: Mapping[str, list[float]], x_title: str) -> Panel:
    """Share of the items of each group whose ratio (given as log ratio, nats) is at most x."""
    traces = []
    for name, values in groups.items():
        xs = _ratios(sorted(values))
        ys = [(i + 1) / len(xs) for i in range(len(xs))]
        line = {"color": arm_color(name), "width": 3, "shape": "hv"}
        traces.append(go.Scatter(x=xs, y=ys, mode="lines", line=line, name=plain(name)))
    return Panel(
        traces, {"type": "log", "title_text": plain(x_title)}, {"title_text": "share of items", "range": [0, 1.02]}
    )


def shares(rows: Sequence[tuple[object, object, float]]) -> Panel:
    """Stacked shares, one bar for each table: rows of (table, source, share)."""
    _check_places(rows, "table", "source")
    tables, sources = (_unlike(list(dict.fromkeys(row[side] for row in rows))) for side in (0, 1))
    axis = {"type": "category", "categoryorder": "array", "categoryarray": [_text(table) for table in tables]}
    traces = [
        go.Bar(
            y=[_text(table) for table, name, _ in rows if name == source], orientation="h", name=plain(source),
            x=[share for _, name, share in rows if name == source],
            marker={"color": OKABE_ITO[i % len(OKABE_ITO)]},
            text=[plain(source) if share > 0.08 else "" for _, name, share in rows if name == source],
            textposition="inside", insidetextanchor="middle",
        )
        for i, source in enumerate(sources)
    ]  # fmt: skip
    return Panel(traces, {"title_text": "share of variance", "range": [0, 1]}, {"autorange": "reversed", **axis})


def matrix(rows: Sequence[tuple[object, object, float]], x_title: str, y_title: str) -> Panel:
    """A small matrix on a diverging scale around zero: rows of (column, row, value)."""
    _check_places(rows, "column", "row")
    columns, lines = (_unlike(list(dict.fromkeys(row[side] for row in rows))) for side in (0, 1))
    values = {(row[1], row[0]): row[2] for row in rows}
    trace = go.Heatmap(
        z=[[values.get((line, column)) for column in columns] for line in lines],
        x=[plain(str(c)) for c in columns], y=[plain(str(line)) for line in lines],
        colorscale="RdBu", reversescale=True, zmid=0, colorbar={"len": 0.4, "y": 0.2},
    )  # fmt: skip
    return Panel(
        [trace],
        {"type": "category", "title_text": plain(x_title)},
        {"type": "category", "title_text": plain(y_title)},
    )


def _check_places(rows: Sequence[tuple], *names: str) -> None:
    """Raise where two values have one place, because the figure would show one of them, or their sum."""
    often = Counter(row[:2] for row in rows)
    if doubled := [place for place, count in often.items() if count > 1]:
        where = ", ".join(f"{name} {value!r}" for name, value in zip(names, doubled[0], strict=True))
        raise ValueError(f"{often[doubled[0]]} values are given for {where}; give one for each place")


def error_bar(found: Iterable[tuple[float, float, float] | None], **style) -> dict:
    """plotly's error_x or error_y for means with the ends of their intervals; None has no bar."""
    ends = [(None, None) if bound is None else (bound[2] - bound[0], bound[0] - bound[1]) for bound in found]
    above, below = [high for high, _ in ends], [low for _, low in ends]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **style}


def estimates(
    found: Mapping[str, tuple[float, float, float]],
    *,
    axis: str,
    title: str,
    caption: str,
    null: float | int | None = None,
    marked: str | None = None,
) -> go.Figure:
    """A row for every name, with given mean, low and high. `marked` rows stand out; dashed: `null`."""
    names, values = list(found), list(found.values())
    colors = [OKABE_ITO[1] if name == marked else OKABE_ITO[0] for name in names]
    figure = go.Figure()
    for place, (name, color) in enumerate(zip(names, colors, strict=True)):
        bar = error_bar([values[place]], thickness=4, width=10, color=color)
        text = {"text": [value_text(values[place][0])], "textposition": "top center", "textfont": {"size": 18}}
        marker = {"marker": {"color": color, "size": 16}, "mode": "markers+text", "name": plain(name)}
        figure.add_trace(go.Scatter(x=[values[place][0]], y=[place], error_x=bar, **marker, **text))
    _label_rows(figure, names, axis, True)
    _draw_null(figure, null, vertical=True)
    figure.update_yaxes(tickfont_size=20).update_xaxes(title_font_size=18)
    return _finish(figure, title, caption, 150 + 60 * len(names), legend=False)


def add_caption(figure: go.Figure, text: str) -> go.Figure:
    """Add a sentence to the caption below the figure (in place)."""
    earlier = next((note for note in figure.layout.annotations if note.name == "caption"), None)
    lines = ([] if earlier is None else earlier.text.split("<br>")) + _wrapped(text)
    note = {"name": "caption", "text": "<br>".join(lines), "showarrow": False, "align": "left", "font": {"size": 14}}
    below = {"xref": "paper", "yref": "paper", "x": 0, "y": 0, "xanchor": "left", "yanchor": "top", "yshift": -75}
    kept = [other for other in figure.layout.annotations if other.name != "caption"]
    figure.update_layout(annotations=[*kept, {**note, **below}], margin_b=100 + 20 * len(lines))
    return figure


def write_figure(figure: go.Figure, path: Path) -> None:
    """Write `<root>/<study>/<name>.html`, readable with no network: it refers to one plotly.min.js in the root."""
    path = path.expanduser()
    share_plotlyjs(path.parent.parent / "plotly.min.js")
    store.write_text(path, drawing.page(figure, f"{path.parent.name}: {path.stem}"))


def share_plotlyjs(path: Path) -> None:
    script = get_plotlyjs().encode()
    if not path.is_file() or path.read_bytes() != script:
        store.write_bytes(path, script)


def _finish(figure: go.Figure, title: str, caption: str, height: int, *, legend: bool) -> go.Figure:
    top = figure.layout.margin.t or 100
    layout = {"template": "mechsub", "title_text": plain(title), "showlegend": legend, "margin": {"t": top}}
    height += top - 100
    if legend:
        names = looks.list_once(figure.data)
        if names > LONG_LEGEND:
            figure.update_layout(legend_font_size=12)
            height = max(height, top + 20 * names + 40)
        left = looks.tell_apart(looks.by_name(figure.data))
        caption += f" {len(left)} names look like others: there are too many to tell apart." if left else ""
    add_caption(figure, caption + unlimited(figure))
    return figure.update_layout(**layout, height=height + figure.layout.margin.b)


def unlimited(figure: go.Figure) -> str:
    """A sentence for intervals without limits: a mean without a bar or a band would pass for an exact number."""
    found: Counter[str] = Counter()
    for trace in figure.data:
        for bar in (getattr(trace, side, None) for side in ("error_x", "error_y")):
            above = _values(bar and bar.array)
            below = above if bar is None or bar.arrayminus is None else bar.arrayminus  # one array is for both sides
            ends = [end for end in zip(above, below, strict=False) if None not in end]
            if n := sum(not all(map(math.isfinite, end)) for end in ends):
                found[html.unescape(str(trace.name or ""))] += n
    if not found:
        return ""
    listed = [f"{n} of {name}" if name else str(n) for name, n in found.items()]
    return f" Intervals without limits are not drawn: {', '.join(listed) if len(listed) < 5 else found.total()}."


def _panels(facets: list, shared_y: bool, height: int) -> tuple[go.Figure, int]:
    """Panels of this height, and the pixels of all rows of them."""
    columns, rows = min(len(facets), COLUMNS), -(-len(facets) // COLUMNS)
    width = TITLE_WIDTH * COLUMNS // columns
    titles = [[plain(line) for line in textwrap.wrap(str(name), width)] for name in facets if name is not None]
    more = TITLE_LINE * (max(map(len, titles), default=1) - 1)
    between = BETWEEN + max(more, 0)
    tall = rows * height + (rows - 1) * between
    gap = {"vertical_spacing": between / tall} if rows > 1 else {}
    named = ["<br>".join(lines) for lines in titles] or None
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=named, shared_yaxes=shared_y and "all", **gap)
    if more > 0:
        figure.update_annotations(font_size=12).update_layout(margin_t=100 + more)
    return figure, tall


def _cell(panel: int) -> dict[str, int]:
    """Row and column of the n-th panel, counted from 1."""
    return {"row": 1 + (panel - 1) // COLUMNS, "col": 1 + (panel - 1) % COLUMNS}


def _placed(records: list, names: list, facets: list, key: str, facet: str | None):
    """(panel, (name, place of the name, records of the name)) for every name in a panel."""
    for panel, group in enumerate(facets, 1):
        for place, name in enumerate(names):
            chosen = [row for row in records if row[key] == name and (facet is None or row[facet] == group)]
            if chosen:
                yield panel, (name, place, chosen)


def _distinct(records: list, key: str | None) -> list:
    """The values of a key, in order. Raises for values that one figure cannot tell apart."""
    if key is None:
        return [None]
    # True is 1 to a dict, and would take the place of it.
    return _unlike(list({(isinstance(row[key], bool), row[key]): row[key] for row in records}.values()))


def _unlike(values: list) -> list:
    seen: set = set()
    for value in values:
        own = {("value", value), ("text", str(value))}
        if own & seen:
            raise ValueError(f"{value!r} is given in two types, as a number and its text; a figure shows them as one")
        seen.update(own)
    return values


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _categories(values: list) -> dict | None:
    """Settings of an axis along which text stands (plotly would read "007" as 7, "1-2" as a day); None for numbers."""
    if all(map(_is_number, values)):
        if broken := [value for value in values if not math.isfinite(value)]:
            raise ValueError(f"{broken[0]} has no place along an axis")
        return None
    names = [_text(value) for value in _unlike(values)]
    return {"type": "category", "categoryorder": "array", "categoryarray": names}


def _text(value) -> str:
    return plain(str(value))


def _check_positive(values: list, name: str) -> None:
    if outside := [value for value in values if not _is_number(value) or value <= 0]:
        raise ValueError(f"{name} = {outside[0]!r} has no place along a logarithmic axis, which holds numbers above 0")


def _ratios(logs: list[float]) -> list[float]:
    """exp of log ratios; raises where it is 0 or infinite, because a logarithmic axis would not show it."""
    if outside := [value for value in logs if not abs(value) < 700]:
        raise ValueError(f"a log ratio of {outside[0]} nats has no place along a logarithmic axis")
    return [math.exp(value) for value in logs]


def _oriented(along: list, across: list, horizontal: bool) -> dict:
    return {"x": along, "y": across} if horizontal else {"x": across, "y": along}


def _points_and_interval(values: list[float], place: int, color: str, horizontal: bool, interval: Callable | None):
    """One trace with all values, spread a little sideways, and one trace with their mean and interval."""
    spots = [place + 0.25 * (2 * k / max(len(values) - 1, 1) - 1) for k in range(len(values))]
    points = {"mode": "markers", "marker": {"color": color, "size": 6, "opacity": 0.45}}
    mean, low, high = _summary(values, interval)
    bar = error_bar([(mean, low, high)], color=color, thickness=3, width=9)
    center = {"mode": "markers", "marker": {"color": color, "size": 13, "line": {"color": "white", "width": 2}}}
    center["error_x" if horizontal else "error_y"] = bar
    yield go.Scatter(**_oriented(values, spots, horizontal), **points)
    yield go.Scatter(**_oriented([mean], [place], horizontal), **center)


def _label_rows(figure: go.Figure, labels: list, axis: str, horizontal: bool) -> None:
    ticks = {"tickvals": list(range(len(labels))), "ticktext": [plain(str(name)) for name in labels], "zeroline": False}
    ends = [-0.5, len(labels) - 0.5]
    if horizontal:
        figure.update_xaxes(title_text=plain(axis)).update_yaxes(**ticks, range=ends[::-1])
    else:
        figure.update_xaxes(**ticks, range=ends).update_yaxes(title_text=plain(axis), col=1)


def _draw_null(figure: go.Figure, null, *, vertical: bool) -> None:
    if isinstance(null, tuple):
        add = figure.add_vrect if vertical else figure.add_hrect
        ends = dict(zip(("x0", "x1") if vertical else ("y0", "y1"), null, strict=True))
        add(**ends, fillcolor=GREY, opacity=0.25, line_width=0, layer="below")
    elif null is not None:
        add = figure.add_vline if vertical else figure.add_hline
        add(null, line={"color": GREY, "dash": "dash", "width": 2})


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _summary(values: list[float], interval: Callable | None) -> tuple[float, float, float]:
    """Mean, low, high; the interval of one value has no limits."""
    mean = _mean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf  # type: ignore[return-value]
    measure: Callable = interval or student_t
    found = measure(values)
    low, high = found if isinstance(found, tuple) and len(found) == 2 else (found.low, found.high)
    return mean, low, high  # type: ignore[return-value]


def _interval_note(interval: Callable | None, unit: str, counts: list[int]) -> str:
    kind = "95% Student-t interval" if interval is None else f"interval ({interval.__name__.replace('_', ' ')})"
    return f"Mean and {kind} over n = {_range(counts)} {unit}."


def _counts(records: list, keys: tuple) -> list[int]:
    groups: dict[tuple, int] = {}
    for row in records:
        group = tuple(row[key] for key in keys if key is not None)
        groups[group] = groups.get(group, 0) + 1
    return sorted(groups.values())


def _range(counts: list[int]) -> str:
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def plain(text):
    """Text without markup: plotly shows some HTML tags in labels, and records are not to be trusted with them."""
    return html.escape(text) if isinstance(text, str) else text


def _wrapped(text: str) -> list[str]:
    return [html.escape(line) for line in textwrap.wrap(text, CAPTION_WIDTH)]
