"""In no figure do two names of the legend look alike, and one name has one look in all panels."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from mechsub.lab import finder, options, store
from mechsub.lab.cells import records_of
from mechsub.lab.figures import colors, kinds, looks
from mechsub.lab.study import figure_of

ARTIFACTS = Path(__file__).parent.parent / "artifacts"
TITLES = {"title": "T", "caption": "C."}


def drawn(trace, place):
    """Colour, dash, marker and pattern of a trace as plotly draws it, None for what it does not draw."""
    if trace.type == "bar":
        return trace.marker.color, None, None, trace.marker.pattern.shape or ""
    mode = trace.mode or "lines+markers"
    color = (trace.line.color if "lines" in mode else None) or trace.marker.color or trace.marker.line.color
    return (
        color or colors.OKABE_ITO[place % 8],  # the template's
        (trace.line.dash or "solid") if "lines" in mode else None,
        (trace.marker.symbol or "circle") if "markers" in mode else None,
        None,
    )


def entries(figure):
    """Name and look of every entry of the legend."""
    if figure.layout.showlegend is False:
        return []
    kind = ("scatter", "scattergl", "bar")
    traces = [(place, trace) for place, trace in enumerate(figure.data) if trace.type in kind and trace.name]
    return [(trace.name, drawn(trace, place)) for place, trace in traces if trace.showlegend is not False]


def like(one, other):
    both = [(a, b) for a, b in zip(one[1:], other[1:], strict=True) if None not in (a, b)]
    return one[0] == other[0] and both and all(a == b for a, b in both)


def check(figure):
    told = entries(figure)
    assert [(a, b) for (a, one), (b, other) in itertools.combinations(told, 2) if like(one, other)] == []
    assert len({name for name, _ in told}) == len(told)  # once in the legend
    shades: dict[str, set] = {}
    for place, trace in enumerate(figure.data):
        if trace.name and trace.type in ("scatter", "scattergl", "bar") and not getattr(trace, "fill", None):
            shades.setdefault(trace.name, set()).add(drawn(trace, place)[0])
            assert trace.name not in colors.ARM_COLORS or shades[trace.name] == {colors.ARM_COLORS[trace.name]}
        if getattr(trace, "fill", None) == "toself":  # a band has the colour of its line
            lines = [
                t for t in figure.data if t.name == trace.name and t.fill is None and "lines" in (t.mode or "lines")
            ]
            assert all(trace.fillcolor == colors.faint(line.line.color) for line in lines)
    if figure.layout.showlegend is not False:
        assert {name: some for name, some in shades.items() if len(some) > 1} == {}
    return dict(told)


def test_colours_of_single_points_and_symmetric_bars_are_let_be():
    shades = go.Scatter(x=[1, 2], y=[1, 2], name="a", mode="markers", marker={"color": np.array([0.1, 0.9])})
    bars = go.Scatter(x=[1, 2], y=[1, 2], name="b", error_y={"type": "data", "array": [1.0, 2.0]})
    figure = kinds.grid([kinds.Panel([shades, bars], {}, {})], ["p"], **TITLES)
    assert (
        list(figure.data[0].marker.color) == [0.1, 0.9] and "without limits" not in figure.layout.annotations[-1].text
    )
    bars = go.Scatter(x=[1], y=[1], name="b", error_y={"type": "data", "array": [math.inf]})
    figure = kinds.grid([kinds.Panel([bars], {}, {})], ["p"], **TITLES)
    assert "Intervals without limits are not drawn: 1 of b" in figure.layout.annotations[-1].text


STORED = [name for name in finder.all_names() if (ARTIFACTS / name).is_dir()]


@pytest.mark.parametrize("name", STORED)
def test_names_of_stored_figures_are_told_apart(name):
    """Of all stored cells of a study in one figure, as an export draws them."""
    study = finder.find_study(name)
    shown = [each for each in dataclasses.fields(study.Config) if each.metadata.get("display")]
    records = records_of(study, store.complete_cells(ARTIFACTS / name))
    check(figure_of(study, records, {each.name: options.default_values(each) for each in shown}))


ARMS = ["teacher", "student_aux", "cross_aux", "reference", "cross_all", "teacher_body_initial_head"]


def _kinds(names):
    """A figure of every kind that has a legend, of lines or bars with these names."""
    rows = [{"arm": name, "x": x, "v": x + s, "facet": x} for name in names for x in (1, 2, 3) for s in (0.0, 1.0)]
    bands = [{"arm": name, "x": x, "value": x, "low": x - 1, "high": x + 1} for name in names for x in (1, 2)]
    lines = {name: {x: [0.1, 0.2] for x in (1, 2)} for name in names}
    axes = {"x_title": "x", "y_title": "y"}
    yield kinds.interval_lines(rows, x="x", value="v", facet="facet", **axes, **TITLES)
    yield kinds.grid([kinds.line_panel(lines, "x", "y")], ["p"], **TITLES)
    yield kinds.grid([kinds.band_panel(bands, "x", "y", colors={})], ["p"], **TITLES)
    yield kinds.grid([kinds.ecdf({name: [0.1, 0.2] for name in names}, "x")], ["p"], **TITLES)
    yield kinds.grid([kinds.shares([("t", name, 0.01) for name in names])], ["p"], **TITLES)
    yield kinds.grid([kinds.Panel([go.Scatter(x=[1], y=[1], name=name) for name in names], {}, {})], ["p"], **TITLES)
    many = [{"arm": name, "cell": f"n={n}", "v": n + s} for name in names for n in range(30) for s in (0.0, 1.0)]
    yield kinds.interval_bars(many, value="v", axis="v", facet="cell", **TITLES)


@pytest.mark.parametrize("n", [1, 8, 9, 11, 28])
@pytest.mark.parametrize("arms", [0, 1, 6], ids=lambda arms: f"{arms} arms")
def test_many_names_of_one_figure_are_told_apart(n, arms):
    names = [*[f"line {i}" for i in range(n - arms)], *ARMS[:arms]]
    for figure in _kinds(names):
        told = check(figure)
        assert sorted(told) == sorted(names)
        for name in set(names) & set(ARMS):
            near = (told[name][0], *colors.NEAR.get(name, ()))
            others = [
                other for other, look in told.items() if look[0] in near and like((0, *look[1:]), (0, *told[name][1:]))
            ]
            assert others == [name]  # nothing that some eye would take for the arm


def test_the_first_colours_are_free_ones_and_the_rest_have_dashes_and_markers():
    lines = {f"line {i}": {1: [0.1, 0.2]} for i in range(28)}
    told = list(check(kinds.grid([kinds.line_panel(lines, "x", "y")], ["p"], **TITLES)).values())
    assert [look[0] for look in told[:8]] == list(colors.OKABE_ITO)
    assert {look[1:3] for look in told[:8]} == {("solid", "circle")}
    assert {look[1:3] for look in told[8:]} == {("dash", "diamond"), ("dot", "square"), ("dashdot", "triangle-up")}


def test_panels_of_different_names_share_no_look_and_of_one_name_have_one():
    a, b = ({name: {1: [0.1, 0.2]} for name in names} for names in ("ab", "cb"))
    bands = [{"arm": arm, "x": 1, "value": 1.0, "null": arm != "c"} for arm in ("one", "two", "c")]
    panels = [
        kinds.line_panel(a, "x", "y"),
        kinds.line_panel(b, "x", "y"),
        kinds.interval_panel({"new": [0.1, 0.2], "b": [0.1, 0.3], "c": [0.1, 0.2]}, "x"),
        kinds.band_panel(bands, "x", "y", colors={}),
    ]
    told = check(kinds.grid(panels, ["1", "2", "3", "4"], **TITLES))
    assert list(told) == ["a", "b", "c", "one", "two"]
    assert told["one"][:2] == (colors.GREY, "solid") and told["two"][:2] == (colors.GREY, "dash")


def test_rows_keep_the_fixed_colours_of_arms_and_the_others_differ():
    names = ["x", "teacher", *[f"arm {i}" for i in range(12)]]
    rows = [{"arm": name, "v": v} for name in names for v in (1.0, 2.0)]
    figure = kinds.interval_bars(rows, value="v", axis="v", **TITLES)
    own = {trace.name: (trace.marker.color, trace.marker.symbol or "circle") for trace in figure.data}
    assert own["teacher"] == ("#000000", "circle") and len(set(own.values())) == len(names)
    assert all(trace.error_x.color in (None, trace.marker.color) for trace in figure.data)


def test_what_a_study_chose_stays_where_no_other_name_has_it():
    traces = [
        go.Scatter(x=[1], y=[1], mode="markers", name=n, marker={"color": c})
        for n, c in (("yes", "#009E73"), ("no", "gray"))
    ]
    told = check(kinds.grid([kinds.Panel(traces, {}, {})], ["p"], **TITLES))
    assert told["yes"][0] == "#009E73" and told["no"][0] == "gray"


def test_more_names_than_looks_are_said():
    lines = {f"line {i}": {1: [0.1, 0.2]} for i in range(400)}
    figure = kinds.grid([kinds.line_panel(lines, "x", "y")], ["p"], **TITLES)
    (caption,) = (note.text for note in figure.layout.annotations if note.name == "caption")
    assert "64 names look like others" in caption
    assert len(colors.OKABE_ITO) * looks.STYLES == 400 - 64


def test_a_long_legend_is_as_high_as_its_figure():
    for n in (28, 60):
        lines = {f"line {i}": {1: [0.1, 0.2]} for i in range(n)}
        layout = kinds.grid([kinds.line_panel(lines, "x", "y")], ["p"], **TITLES).layout
        assert layout.height - layout.margin.t - layout.margin.b > 19 * n
