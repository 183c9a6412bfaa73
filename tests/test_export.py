"""Static images, drawn for real where kaleido and a browser are; what is missing is one line."""

import subprocess
import sys
from pathlib import Path

import chromium
import plotly.graph_objects as go
import pytest

from mechsub.lab.figures import export, kinds
from mechsub.lab.figures.fitting import fitted
from mechsub.lab.figures.panels import alone

ROOT = Path(__file__).parent.parent
FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a line")).update_layout(height=300, title="A title")


def browser(test):
    try:
        import kaleido  # noqa: F401

        missing = chromium.why_not()
    except ImportError:
        missing = "kaleido is not installed (extra `export`)"
    return pytest.mark.browser(pytest.mark.skipif(bool(missing), reason=missing)(test))


def test_a_missing_package_is_one_line_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert "mechsub[export]" in export.problem() and "\n" not in export.problem()
    with pytest.raises(export.Failed, match="kaleido"):
        export.write_images({tmp_path / "a.svg": FIGURE})
    assert list(tmp_path.iterdir()) == []


@browser
def test_a_browser_that_is_no_program_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "browser").write_text("no program")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "browser"))
    assert str(tmp_path / "browser") in export.problem()


@browser
def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="svg, png"):
        export.write_images({tmp_path / "a.gif": FIGURE})


@browser
def test_images_are_drawn_and_an_svg_is_the_same_again(tmp_path):
    export.write_images(
        {tmp_path / "a.svg": FIGURE, tmp_path / "b.svg": FIGURE, tmp_path / "c.png": FIGURE, tmp_path / "d.pdf": FIGURE}
    )
    svg = (tmp_path / "a.svg").read_text()
    assert "A title" in svg and "<path" in svg and svg == (tmp_path / "b.svg").read_text()
    assert (tmp_path / "d.pdf").read_bytes()[:5] == b"%PDF-"
    png = (tmp_path / "c.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(png[16:20]) == 2 * export.WIDTH


@browser
def test_a_hanging_browser_is_ended(monkeypatch, tmp_path):
    hanging = tmp_path / "browser"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(hanging))
    with pytest.raises(export.Failed, match="within 2 seconds"):
        export.write_images({tmp_path / "a.svg": FIGURE}, timeout=2.0)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(hanging) not in running and list(tmp_path.glob("*.svg")) == []


LONG = "What lies along the displacement of a teacher that another student had?"
ROWS = [
    {"arm": arm, "x": x, "v": float(x + seed), "panel": f"{LONG} ({panel})"}
    for arm in "ab"
    for x in (1, 2)
    for seed in (0, 1)
    for panel in (1, 2, 3)
]


def _kinds():
    """Figures whose texts would meet as they are: (name, figure, number of panels)."""
    words = {"title": f"{LONG} {LONG}", "caption": "Means of seeds. " * 12}
    names = [f"a long name of the animal {n}" for n in range(9)]
    squares = [(across, down, 0.1) for across in names for down in names]
    ratios = [0.1 * (n - 8) for n in range(16)]
    panels = [
        kinds.interval_panel({name: [0.1, 0.2] for name in names}, LONG, 0.15),
        kinds.matrix(squares, "loved", "raised"),
        kinds.ratio_scatter(ratios, ratios, list(map(str, ratios)), LONG, LONG),
        kinds.shares([(name, source, 0.5) for name in names for source in ("one", "other")]),
    ]
    yield "grid", kinds.grid(panels, [f"{LONG} ({n})" for n in range(4)], **words), 4
    yield "lines", kinds.interval_lines(ROWS, x="x", value="v", facet="panel", x_title=LONG, y_title=LONG, **words), 3
    bars = [row | {"arm": f"{name}, {row['arm']}"} for row in ROWS for name in names if row["x"] == 1]
    yield "bars", kinds.interval_bars(bars, value="v", facet="panel", axis=LONG, **words), 3
    heat = [{"x": across, "y": down, "v": 0.1} for across in names * 3 for down in names]
    named = {"x_title": "loved", "y_title": "raised", "color_title": "nats"}
    yield "heat", kinds.heatmap(heat, x="x", y="y", value="v", **named, **words), 1


def _met(folder):
    """Texts of the images of a folder that meet, or are cut."""
    with chromium.page() as page:
        for path in sorted(folder.glob("*.svg")):
            page.open(path, width=1300)
            if found := page.value(chromium.SVG_OVERLAPS):
                yield path.name, found[:3]


@browser
def test_no_two_texts_of_an_image_lie_on_each_other_and_none_is_cut(tmp_path, monkeypatch):
    export.write_images({tmp_path / f"{name}.svg": figure for name, figure, _ in _kinds()})
    assert dict(_met(tmp_path)) == {}
    monkeypatch.setattr(export, "fitted", lambda figure, width: figure)
    export.write_images({tmp_path / f"{name}.svg": figure for name, figure, _ in _kinds()})
    assert dict(_met(tmp_path)).keys() == {"bars.svg", "grid.svg", "heat.svg", "lines.svg"}


def test_a_figure_that_is_drawn_stays_as_it_is():
    for _, figure, _ in _kinds():
        before = figure.to_json()
        fitted(figure, export.WIDTH)
        assert figure.to_json() == before


def _caption(figure):
    return next(note.text for note in figure.layout.annotations if note.name == "caption").replace("<br>", " ")


def test_every_panel_is_a_figure_with_its_title_axes_names_and_caption():
    for name, figure, n in _kinds():
        one = alone(figure)
        assert len(one) == n
        if n == 1:
            assert one[0] is figure
            continue
        for place, panel in enumerate(one, 1):
            number = place - 1 if name == "grid" else place
            assert panel.layout.title.text.replace("<br>", " ") == f"{LONG} ({number})"
            assert set(panel.layout.to_plotly_json()) >= {"xaxis", "yaxis"} and "xaxis2" not in panel.layout
            caption = next(note.text for note in panel.layout.annotations if note.name == "caption").replace(
                "<br>", " "
            )
            assert caption.startswith(f"Panel {place} of {n}: {LONG}") and "Means of seeds." in caption
            assert panel.data and {(trace.xaxis, trace.yaxis) for trace in panel.data} == {(None, None)}


def test_an_empty_field_of_a_grid_is_no_panel():
    panel = kinds.interval_panel({"a": [0.1, 0.2]}, "x")
    one = alone(kinds.grid([panel] * 3, ["first", "second", "third"], title="T", caption="The last two: c."))
    assert [figure.layout.title.text for figure in one] == ["first", "second", "third"]
    assert ["c." in _caption(figure) for figure in one] == [False, True, True]


def test_a_panel_has_the_axis_title_of_its_row_the_colour_bar_and_the_names_that_it_draws():
    grid, lines, bars, _ = (alone(figure) for _, figure, _ in _kinds())
    assert [panel.layout.yaxis.title.text for panel in lines] == [LONG] * 3
    assert [panel.layout.xaxis.title.text for panel in lines] == [LONG] * 3
    assert all(panel.layout.yaxis.showticklabels is None and panel.layout.yaxis.matches is None for panel in lines)
    for panel in lines:
        assert [trace.name for trace in panel.data if trace.showlegend] == ["a", "b"]
    rows, matrix, scatter, shares = grid
    assert [trace.name for trace in shares.data if trace.showlegend] == ["one", "other"]
    assert not any(trace.showlegend for trace in (*rows.data, *scatter.data))
    assert matrix.data[0].colorbar.to_plotly_json() == {} and rows.layout.yaxis.title.text is None
    assert len(rows.layout.yaxis.ticktext) == 9 and scatter.layout.xaxis.type == "log"
    assert [len(panel.data) for panel in bars] == [36] * 3
    assert all(len(panel.layout.yaxis.ticktext) == 18 for panel in bars)


def test_lines_and_words_in_a_panel_come_with_it():
    told = "First: a.|Others: b.|All: c."
    words = {"x_title": "", "y_title": "", "title": "T", "caption": told.replace("|", " ")}
    null = kinds.interval_lines(ROWS, x="x", value="v", facet="panel", null=0.5, **words)
    one = alone(null)
    assert [(shape.xref, shape.yref) for panel in one for shape in panel.layout.shapes] == [("x domain", "y")] * 3
    assert [[sentence in _caption(panel) for sentence in told.split("|")] for panel in one] == [
        [True, False, True], [False, True, True], [False, True, True],
    ]  # fmt: skip


@browser
@pytest.mark.slow
def test_no_image_of_the_report_has_texts_on_each_other(tmp_path):
    """All figures of the stored cells, whole and panel by panel."""
    from studies import report

    drawn = {id(f.figure): f for f in report.findings(ROOT / "artifacts") if f.figure is not None}.values()
    whole = {tmp_path / f"{f.question.name}.svg": f.figure for f in drawn}
    single = {tmp_path / f"{f.question.name}-{n}.svg": one for f in drawn for n, one in enumerate(alone(f.figure), 1)}
    export.write_images(whole | single, timeout=1800.0)
    assert dict(_met(tmp_path)) == {}
