"""Figures: what is drawn is what was recorded, the caption says n and the interval, files need no network."""

import html
import json
import math
import re

import chromium
import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest

from mechsub import stats
from mechsub.lab.figures import kinds
from mechsub.lab.findings import Finding


def extremes(values):
    return min(values), max(values)


RECORDS = [
    {"arm": arm, "seed": seed, "layer": layer, "loss": loss, "v": float(seed + layer)}
    for arm in ("teacher", "student_aux", "<b>x</b>")
    for seed in range(3)
    for layer in (0, 1)
    for loss in ("kl", "mse")
]


def _bars(records, **more):
    words = {"title": "T", "axis": "accuracy", "caption": "Accuracy in %.", "interval": extremes}
    return kinds.interval_bars(records, value="v", **words | more)


def _lines(records, **more):
    words = {"title": "T", "x_title": "layer", "y_title": "v", "caption": "Cosine.", "interval": extremes}
    return kinds.interval_lines(records, x="layer", value="v", **words | more)


def _heat(records, **more):
    words = {"title": "T", "x_title": "layer", "y_title": "arm", "color_title": "v", "caption": "Cosine."}
    return kinds.heatmap(records, x="layer", y="arm", value="v", **words | more)


def _caption(figure):
    return next(note.text for note in figure.layout.annotations if note.name == "caption")


def _words(figure):
    """The caption as it is read, in whatever lines."""
    return html.unescape(_caption(figure).replace("<br>", " "))


@pytest.mark.parametrize("horizontal", [True, False])
def test_bars_show_every_value_and_the_interval_of_them(horizontal):
    rows = [row for row in RECORDS if row["layer"] == 0 and row["loss"] == "kl"]
    figure = _bars(rows, horizontal=horizontal, null=(0.0, 0.5))
    along, error = ("x", "error_x") if horizontal else ("y", "error_y")
    points, center = figure.data[0], figure.data[1]
    assert sorted(points[along]) == [0, 1, 2] and center[along] == (1,)
    assert (center[error].array, center[error].arrayminus) == ((1,), (1,))
    assert "n = 3 seeds" in _caption(figure) and "Accuracy in %." in _caption(figure)
    assert len(figure.layout.shapes) == 1


def test_lines_have_one_legend_entry_an_arm_and_one_panel_a_facet():
    figure = _lines(RECORDS, facet="loss", null=0.5)
    entries = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert entries == ["teacher", "student_aux", "&lt;b&gt;x&lt;/b&gt;"]
    assert {trace.xaxis for trace in figure.data} == {"x", "x2"}
    assert figure.data[1].y == (1.0, 2.0) and "n = 3 seeds" in _caption(figure)


def test_heatmap_draws_means_and_leaves_gaps():
    rows = [row for row in RECORDS if row["loss"] == "kl" and not (row["arm"] == "teacher" and row["layer"] == 1)]
    figure = _heat(rows, center=0)
    assert [list(row) for row in figure.data[0].z] == [[1.0, None], [1.0, 2.0], [1.0, 2.0]]
    assert figure.data[0].zmid == 0 and "n = 3 seeds" in _caption(figure)


def test_unequal_n_is_said_and_the_interval_of_one_value_has_no_limits():
    figure = _bars([{"arm": "a", "v": 1.0}, {"arm": "b", "v": 1.0}, {"arm": "b", "v": 2.0}])
    assert "n = 1 to 2 seeds" in _caption(figure)
    assert "Intervals without limits are not drawn: 1 of a." in _words(figure)
    assert figure.data[1].error_x.array == (math.inf,) and json.loads(figure.to_json())["data"][1]["error_x"]


def test_default_interval_is_student_t():
    stats = pytest.importorskip("mechsub.stats")
    mean, low, high = kinds._summary([1.0, 2.0, 4.0], None)
    found = stats.student_t([1.0, 2.0, 4.0])
    assert (low, high) == pytest.approx((found.low, found.high)) and low < mean < high


def test_colours_are_fixed_by_name_and_differ_between_arms():
    assert len(set(kinds.ARM_COLORS.values())) == len(kinds.ARM_COLORS)
    assert kinds.arm_color("teacher") == kinds.ARM_COLORS["teacher"]
    assert kinds.arm_color("new arm") == kinds.arm_color("new arm") in kinds.OKABE_ITO


def test_template_is_registered():
    assert "mechsub" in plotly.io.templates


def test_captions_are_added_not_replaced_and_escaped():
    figure = kinds.add_caption(_bars(RECORDS), "Stale: <script>.")
    assert "Accuracy" in _caption(figure) and "&lt;script&gt;" in _caption(figure)


@pytest.mark.parametrize("kind", [_bars, _lines, _heat])
def test_file_is_offline_escaped_and_reproducible(tmp_path, kind):
    rows = [row | {"arm": "</script><script>alert(1)"} for row in RECORDS]
    path = tmp_path / "study" / "default.html"
    kinds.write_figure(kind(rows), path)
    page = path.read_text()
    plotly, own = re.findall(r'<script[^>]*src="([^"]*)"', page)
    assert plotly == "../plotly.min.js" and own.startswith("data:text/javascript;base64,")
    assert "http" not in page.replace(own, "") and "<script>alert" not in page
    assert (tmp_path / "plotly.min.js").stat().st_size > 1e6
    kinds.write_figure(kind(rows), path)
    assert path.read_text() == page


@chromium.needed
def test_a_page_of_one_figure_is_read_on_a_phone_and_in_the_dark(tmp_path):
    path = tmp_path / "study" / "default.html"
    kinds.write_figure(_bars(RECORDS), path)
    with chromium.page() as page:
        for width, dark in ((390, True), (768, False), (1280, True), (1920, False)):
            page.open(path, width=width, dark=dark, until="document.documentElement.dataset.drawn")
            assert page.value("document.documentElement.scrollWidth <= innerWidth")
            assert page.value(chromium.OVERLAPS) == []
            paper = page.value("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(32, 34, 38)" if dark else "rgb(255, 255, 255)")
            assert page.value("document.querySelector('h1').textContent") == "T"
            assert [e for e in page.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")] == []
        for figure in (
            go.Figure(go.Scatter(y=[1, 2])),
            go.Figure(go.Pie(values=[1, 2])),
        ):  # of a user: no axis is named
            kinds.write_figure(figure, path)
            page.open(path, until="document.documentElement.dataset.drawn")
            assert page.value("document.querySelector('.plot').getBoundingClientRect().height") > 200
            assert page.value("!!document.querySelector('.plot .trace, .plot .slice')")


# Text along an axis stays text: without categories plotly reads "007" as 7, "1.10" as 1.1 and "1-2" as a day.
TEXTS = ["2024-01-02", "007", "7", "1.10", "1.1", "1e5", "True", "<i>", "1-2"]
SHOWN = [html.escape(name) for name in TEXTS]


def _axes(figure, letter):
    return [axis for key, axis in figure.to_plotly_json()["layout"].items() if key.startswith(f"{letter}axis")]


def _along(names):
    """Every kind with names along an axis of positions: (kind, figure, the letter of that axis)."""
    rows = [{"layer": n, "arm": a, "v": i + 0.5 * s} for i, n in enumerate(names) for a in "ab" for s in range(2)]
    more = {"title": "T", "caption": "C"}
    yield "lines", _lines(rows), "x"
    yield "lines of other parts", _lines([r for r in rows if r["arm"] == "a" or r["layer"] != names[0]]), "x"
    yield "heatmap, x", _heat(rows), "x"
    yield (
        "heatmap, y",
        kinds.heatmap(rows, x="arm", y="layer", value="v", x_title="", y_title="", color_title="", **more),
        "y",
    )
    yield "shares", kinds.grid([kinds.shares([(n, s, 0.5) for n in names for s in "ab"])], ["s"], **more), "y"
    yield "matrix", kinds.grid([kinds.matrix([(n, "row", 0.5) for n in names], "", "")], ["m"], **more), "x"
    values = {n: [0.5, 0.7] for n in names}
    yield "line panel", kinds.grid([kinds.line_panel({"a": values, "b": values}, "", "")], ["l"], **more), "x"
    banded = [{"arm": "a", "x": n, "value": 0.5, "low": 0.4, "high": 0.6} for n in names]
    yield "bands", kinds.grid([kinds.band_panel(banded, "", "", colors={})], ["b"], **more), "x"


@pytest.mark.parametrize("place", range(8))
def test_text_along_an_axis_is_a_category(place):
    kind, figure, letter = list(_along(TEXTS))[place]
    (axis,) = _axes(figure, letter)
    assert axis["type"] == "category", kind
    drawn = list(dict.fromkeys(name for trace in figure.data for name in trace[letter]))
    assert sorted(drawn) == sorted(SHOWN)
    assert list(axis.get("categoryarray", drawn)) == SHOWN  # in the order of the records


@pytest.mark.parametrize("place", range(8))
def test_numbers_and_texts_along_one_axis_are_all_text(place):
    kind, figure, letter = list(_along([3, "007", 1.5, True, "many"]))[place]
    assert _axes(figure, letter)[0]["type"] == "category", kind
    drawn = {name for trace in figure.data for name in trace[letter]}
    assert drawn == {"3", "007", "1.5", "True", "many"}


@pytest.mark.parametrize("names", [[1, "1"], [True, 1], [2.5, "2.5"], ["True", True]])
def test_what_one_place_would_merge_is_refused(names):
    for place in range(8):
        with pytest.raises(ValueError, match="is given in two types"):
            list(_along(names))[place]
    for kind in (_bars, _lines):
        rows = [{"arm": name, "layer": 0, "v": 1.0} for name in names]
        with pytest.raises(ValueError, match="is given in two types"):
            kind(rows)
        with pytest.raises(ValueError, match="is given in two types"):
            kind([row | {"arm": "a", "facet": row["arm"]} for row in rows], facet="facet")


def test_numbers_are_numbers_also_those_of_numpy():
    for spots in ([10, 2, 1], [np.int64(10), np.float32(2.0), 1]):
        figure = _lines([{"layer": n, "arm": "a", "v": 1.0} for n in spots])
        assert figure.layout.xaxis.type is None and list(figure.data[1].x) == [1, 2, 10]


@pytest.mark.parametrize("spot", [0, -1, float("nan"), "7", True])
def test_what_has_no_place_along_a_logarithmic_axis_is_refused(spot):
    rows = [{"layer": n, "arm": "a", "v": 1.0} for n in (10, spot, 100)]
    with pytest.raises(ValueError, match="has no place along a"):
        _lines(rows, log_x=True)
    assert _lines([rows[0], rows[2]], log_x=True).layout.xaxis.type == "log"


def test_a_ratio_that_a_logarithmic_axis_cannot_show_is_refused():
    for draw in (lambda v: kinds.ratio_scatter([v], [0.0], ["a"], "", ""), lambda v: kinds.ecdf({"a": [v]}, "")):
        draw(-600.0)
        for nats in (-800.0, 800.0, float("nan")):
            with pytest.raises(ValueError, match="log ratio of"):
                draw(nats)


def test_a_figure_of_findings_shows_each_with_its_interval_and_its_null():
    values = [stats.Interval(0.5, 0.4, 0.7, 9), stats.Interval(0.2, 0.1, 0.3, 9)]
    found = [
        Finding("a/accuracy", "A", values[0], null=values[1], unit="seeds"),
        Finding("b/accuracy", "B", values[1], null="by chance", unit="seeds"),
        Finding("a/loss", "A", values[1]),
        Finding("c/note", "words", "infinite"),
    ]
    figure = kinds.findings(found, "T")
    mean, null, loss, _ = figure.data
    assert list(mean.x) == [0.5, 0.2] and list(mean.y) == [0, 1] and list(loss.x) == [0.2] and list(loss.y) == [0]
    assert figure.layout.yaxis.ticktext == ("A", "B")
    assert np.allclose(mean.error_x.array, [0.2, 0.1]) and np.allclose(mean.error_x.arrayminus, [0.1, 0.1])
    assert list(null.x) == [0.2, None]


@pytest.mark.parametrize("n_scores", [1, 3, 4, 7, 12])
def test_a_figure_of_findings_has_a_panel_for_every_score(n_scores):
    some = stats.Interval(0.5, 0.4, 0.7, 9)
    figure = kinds.findings([Finding(f"{s}/score{i}", s, some) for i in range(n_scores) for s in "ab"], "T")
    assert [trace.name for trace in figure.data[::2]] == [f"score{i}" for i in range(n_scores)]
    assert len({trace.xaxis for trace in figure.data}) == n_scores
    titles = [note for note in figure.layout.annotations if note.name != "caption"]
    panels = {f"x{'' if i == 0 else i + 1}": f"score{i}" for i in range(n_scores)}
    for trace in figure.data[::2]:  # each under the title of its own panel
        axis = figure.layout[trace.xaxis.replace("x", "xaxis")]
        title = next(note for note in titles if note.text == panels[trace.xaxis])
        assert title.x == pytest.approx(sum(axis.domain) / 2) and trace.name == title.text


def test_findings_of_many_cells_stand_along_the_number_in_which_they_differ():
    def told(n, null: object = 0.5, more=()):
        found = [
            Finding(f"{arm}/{score}", arm, stats.Interval(i / n, 0.0, 1.0, 5), null, unit="seeds", cell=f"seed={i}0")
            for i in range(n)
            for arm in ("own", "other")
            for score in ("accuracy", "loss")
        ]
        return kinds.findings([*found, *more], "T")

    for n in (kinds.MANY + 1, kinds.MARKED + 1):
        figure = told(n)
        named = [trace for trace in figure.data if trace.name == "own"]
        assert len(figure.data) == 8 and [len(trace.x) for trace in named] == [n, n]  # and no row for each
        assert list(named[0].x[:3]) == [0, 10, 20] and list(named[0].y[:2]) == [0, 1 / n]
        assert named[0].hovertext[1] == "seed=10" and figure.layout.xaxis.title.text == "seed"
        assert f"{n} cells." in _words(figure) and figure.layout.height < 1000
        assert (named[0].type, "intervals" in _words(figure)) == (
            ("scatter", True) if n <= kinds.MARKED else ("scattergl", False)
        )
    assert [trace.name for trace in told(kinds.MANY).data[::2]] == ["accuracy", "loss"]
    compared = Finding("own-other/gain", "own less other", stats.Interval(0.1, 0.0, 1.0, 5), 0.0)  # of no cell
    beside = told(kinds.MANY + 1, "a word", [compared])
    assert list(beside.data[0].x[:3]) == [0, 10, 20] and {trace.name for trace in beside.data} == {"own", "other"}
    assert f"{kinds.MANY + 1} cells." in _words(beside) and "Comparisons of cells are in the table." in _words(beside)
    assert "grey" not in _words(beside)


def test_a_figure_of_findings_without_intervals_is_empty_and_says_so():
    for found in ([], [Finding("a/n", "A", 3), Finding("b/note", "B", "infinite")]):
        figure = kinds.findings(found, "T")
        assert figure.data == () and "No number here has an interval" in _caption(figure)


def test_findings_of_one_label_and_score_have_rows_of_their_own():
    some, other = stats.Interval(0.5, 0.4, 0.7, 9), stats.Interval(0.2, 0.1, 0.3, 9)
    found = [Finding("a/v", "same", some), Finding("b/v", "same", other), Finding("c/v", "007", some)]
    mean, _ = kinds.findings(found, "T").data
    assert list(mean.y) == [0, 1, 2]
    axis = kinds.findings(found, "T").layout.yaxis
    assert axis.ticktext == ("same (a)", "same (b)", "007") and axis.tickvals == (0, 1, 2)  # words, and no number 7


def test_intervals_without_limits_are_said():
    lows = ((1, -math.inf), (2, -1.0))
    open_ended = stats.Interval(0.3, -math.inf, math.inf, 1)
    found = [Finding("a/v", "A", open_ended), Finding("b/v", "B", stats.Interval(0.5, 0.4, 0.7, 9))]
    assert "Intervals without limits are not drawn: 1 of v." in _words(kinds.findings(found, "T"))
    assert "Intervals" not in _words(kinds.findings(found[1:], "T"))
    bar = kinds.error_bar([(0.3, -math.inf, math.inf), (0.1, 0.0, 0.2)])
    panels = {
        "a study's own bars": kinds.Panel([go.Scatter(x=[1, 2], y=[0.3, 0.1], error_y=bar, name="a & b")], {}, {}),
        "one replicate": kinds.interval_panel({"a & b": [0.3], "c": [0.1, 0.2]}, "x"),
        "a line of one replicate": kinds.line_panel({"a & b": {1: [0.3], 2: [0.1, 0.2]}}, "x", "y"),
        "a band": kinds.band_panel(
            [{"arm": "a & b", "x": x, "value": 0.3, "low": low, "high": -low} for x, low in lows],
            "x", "y", colors={},
        ),
    }  # fmt: skip
    for kind, panel in panels.items():
        caption = _words(kinds.grid([panel], ["p"], title="T", caption="C."))
        assert "Intervals without limits are not drawn: 1 of a & b." in caption, kind
    estimated = {name: (0.3, -math.inf, math.inf) for name in "abcdef"}
    assert "are not drawn: 6." in _words(kinds.estimates(estimated, axis="v", title="T", caption="C."))


def test_a_band_has_gaps_where_limits_are_missing_and_bars_where_a_point_is_alone():
    spots = {1: [0.1, 0.2], 2: [0.1, 0.2], 3: [0.3], 4: [0.1, 0.2]}
    band, line = kinds.line_panel({"a": spots}, "x", "y").traces
    assert list(band.x) == [1, 2, 2, 1, None, 4, 4] and all(v is None or math.isfinite(v) for v in band.y)
    array = list(line.error_y.array)
    assert array[:2] == [None, None] and array[2] == math.inf and 0 < array[3] < math.inf
    whole = kinds.line_panel({"a": {x: spots[1] for x in spots}}, "x", "y").traces[1]
    assert whole.error_y.array is None


@pytest.mark.parametrize("kind", [kinds.matrix, lambda rows, *titles: kinds.shares(rows)])
def test_two_values_of_one_place_are_refused(kind):
    kind([("a", "b", 0.1), ("b", "a", 0.2)], "", "")
    with pytest.raises(ValueError, match=r"2 values are given for .* 'a', .* 'b'; give one"):
        kind([("a", "b", 0.1), ("b", "a", 0.2), ("a", "b", 0.3)], "", "")


def test_text_along_an_axis_of_a_studys_own_panel_is_a_category():
    traces = [go.Scatter(x=[0.1, 0.2], y=["007", "1-2"])]
    figure = kinds.grid(
        [kinds.Panel(traces, {"title_text": "x"}, {"autorange": "reversed"})], ["p"], title="", caption=""
    )
    assert figure.layout.yaxis.type == "category" and figure.layout.xaxis.type is None
    own = kinds.grid([kinds.Panel(traces, {}, {"type": "date"})], ["p"], title="", caption="")
    assert own.layout.yaxis.type == "date"


def test_panels_side_by_side_have_titles_that_fit():
    rows = [
        row | {"facet": f"student=convolutional, arms=heads, n={n}, perturbed=halfway"}
        for row in RECORDS
        for n in "1234"
    ]
    for figure in (_lines(rows, facet="facet"), _bars(rows, facet="facet")):
        titles = [note.text for note in figure.layout.annotations if note.name != "caption"]
        assert len(titles) == 4 and all(max(map(len, title.split("<br>"))) <= 34 for title in titles)
        assert titles[0].replace("<br>", " ") == rows[0]["facet"] and figure.layout.margin.t > 100


def test_a_small_estimate_is_not_0():
    assert "0.0002" in kinds.estimates({"a": (2e-4, 1e-4, 3e-4)}, axis="v", title="T", caption="C.").data[0].text


def test_many_facets_stand_along_an_axis():
    places = [(arm, n, s) for arm in ("a", "b") for n in range(2, 42) for s in (0, 1)]
    rows = [{"arm": arm, "cell": f"n_aux={n}", "v": float(n + s)} for arm, n, s in places]
    figure = kinds.interval_bars(rows, value="v", title="t", axis="y", caption="c", facet="cell")
    assert [len(trace.x) for trace in figure.data] == [40, 40] and list(figure.data[0].x) == list(range(2, 42))
    assert figure.layout.xaxis.title.text == "n_aux" and "40 cells" in str(figure.layout.annotations)
    assert figure.data[0].error_y.array is not None and list(figure.data[0].y) == [n + 0.5 for n in range(2, 42)]
    words = [row | {"cell": row["cell"].replace("=", " is ")} for row in rows]
    figure = kinds.interval_bars(words, value="v", title="t", axis="y", caption="c", facet="cell")
    assert list(figure.data[0].x) == list(range(40)) and figure.data[0].hovertext[0] == "n_aux is 2"


def test_ten_thousand_facets_are_one_light_figure():
    rows = [{"arm": "a", "cell": f"seed={n}", "v": float(n)} for n in range(10_000)]
    figure = kinds.interval_bars(rows, value="v", title="t", axis="y", caption="c", facet="cell")
    assert len(figure.data) == 1 and len(figure.data[0].x) == 10_000 and figure.data[0].type == "scattergl"
