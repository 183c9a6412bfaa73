"""One panel of a figure as a figure of its own, for a slide or a paper that shows one.

`alone(figure)[1]` is the second panel, with its title, axes, colour bar, names in the legend, and caption.
"""

import html
import itertools
import re
from collections.abc import Iterator

import plotly.graph_objects as go

from mechsub.lab.figures import kinds
from mechsub.lab.figures.fitting import Place, caption_of, key_of, listed, places, title_of, words

LEAST = 330  # pixels of a panel's height
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
OPENING = re.compile(
    r"(?:The )?(?P<which>[Ff]irst|[Ll]ast|Others)(?: (?P<many>two|three|four|five))?(?: panels are[^:]*)?:"
)
PLACED = ("x", "y", "xref", "yref", "len", "xanchor", "yanchor")  # of a colour bar: beside its own panel


def alone(figure: go.Figure) -> list[go.Figure]:
    """Every panel as a figure; the figure itself where it has one."""
    layout = figure.layout.to_plotly_json()
    drawn = {_axes(trace) for trace in figure.data}
    found = [place for place in places(layout) if (place.x, place.y) in drawn]  # a grid may have an empty field
    if len(found) < 2:
        return [figure]
    return [_of(figure, layout, found, place) for place in found]


def _of(figure: go.Figure, layout: dict, found: list[Place], place: Place) -> go.Figure:
    margin = layout.get("margin", {})
    inner = layout["height"] - margin.get("t", 100) - margin.get("b", 80)
    caption = caption_of(layout) or {}
    kept = {key: layout[key] for key in ("template", "barmode", "showlegend", "legend") if key in layout}
    traces = [trace.to_plotly_json() for trace in figure.data if _axes(trace) == (place.x, place.y)]
    title = _title(layout, place) or _text(layout)
    one = go.Figure(
        [_placed(trace) for trace in _listed(traces, _names(figure))],
        {
            **kept,
            "xaxis": _axis(layout, place.x, "y", ""),
            "yaxis": _axis(layout, place.y, "x", _shared_title(figure, layout, found, place)),
            "shapes": list(_inside(layout, "shapes", place)),
            "annotations": list(_inside(layout, "annotations", place)),
            "title": {"text": html.escape(title)},
            "margin": {"t": 100},
        },
    )
    said = f"Panel {found.index(place) + 1} of {len(found)}: {_text(layout).rstrip('.')}."
    kinds.add_caption(one, f"{said} {_share(figure, layout, found, place)}{kinds.unlimited(one)}")
    shift = caption.get("yshift", -75)
    below = one.layout.margin.b - 75 - shift
    one.update_annotations(selector={"name": "caption"}, yshift=shift)
    tall = max(LEAST, inner * (place.down[1] - place.down[0]))
    return one.update_layout(margin_b=below, height=one.layout.margin.t + tall + below)


def _axes(trace) -> tuple[str, str]:
    return trace.xaxis or "x", trace.yaxis or "y"


def _text(layout: dict) -> str:
    return words(layout.get("title", {}).get("text", ""))


def _title(layout: dict, place: Place) -> str:
    note = title_of(layout, place)
    return words(note["text"]) if note else ""


def _axis(layout: dict, axis: str, anchor: str, shared: str) -> dict:
    """An axis that takes all of the figure, and shows what another one showed for it."""
    own = {k: v for k, v in layout.get(key_of(axis), {}).items() if k not in ("matches", "showticklabels")}
    own |= {"domain": [0, 1], "anchor": anchor}
    return own | ({"title": {**own.get("title", {}), "text": shared}} if shared else {})


def _shared_title(figure: go.Figure, layout: dict, found: list[Place], place: Place) -> str:
    """The title of an axis of numbers that has none, because that of the panel to its left is for the row."""
    axis = layout.get(key_of(place.y), {})
    values = itertools.chain.from_iterable(
        listed(trace.y) for trace in figure.data if _axes(trace) == (place.x, place.y)
    )
    if axis.get("title", {}).get("text") or axis.get("ticktext") or any(isinstance(value, str) for value in values):
        return ""
    row = [other for other in found if other.down == place.down and other.across < place.across]
    titles = [layout[key_of(other.y)].get("title", {}).get("text", "") for other in row]
    return next(filter(None, reversed(titles)), "")


def _names(figure: go.Figure) -> set[str]:
    """Of the legend; it lists a name for the first panel that has it."""
    shown = figure.layout.showlegend is not False
    return {trace.name for trace in figure.data if shown and trace.name and trace.showlegend is not False}


def _listed(traces: list[dict], names: set[str]) -> Iterator[dict]:
    """The traces, with one entry of the legend for each of these names."""
    seen = set()
    for trace in traces:
        name = trace.get("name")
        first = name in names - seen and not trace.get("fill")  # a band has no entry, the line on it has
        if first:
            seen.add(name)
        yield {**trace, "showlegend": first}


def _placed(trace: dict) -> dict:
    """On the only axes, its colour bar beside them."""
    own = {key: value for key, value in trace.items() if key not in ("xaxis", "yaxis")}
    if "colorbar" in own:
        own["colorbar"] = {key: value for key, value in own["colorbar"].items() if key not in PLACED}
    if own["type"] == "heatmap":
        own.pop("showlegend")
    return own


def _inside(layout: dict, kind: str, place: Place) -> Iterator[dict]:
    """Lines, bands and texts in the panel, as those of the only axes."""
    for one in layout.get(kind, []):
        refs = {side: one.get(f"{side}ref", "paper").partition(" ") for side in "xy"}
        if (refs["x"][0], refs["y"][0]) == (place.x, place.y):
            yield one | {f"{side}ref": f"{side}{gap}{domain}" for side, (_, gap, domain) in refs.items()}


def _share(figure: go.Figure, layout: dict, found: list[Place], place: Place) -> str:
    """The figure's caption, less its sentences that name other panels, and less what was counted over all panels."""
    text = words((caption_of(layout) or {}).get("text", "")).replace(kinds.unlimited(figure).strip(), "")
    own, panel = _title(layout, place), found.index(place)
    others = {title for other in found if (title := _title(layout, other)) and title != own}
    kept, meant = [], set(range(len(found)))
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text):
        if (opening := OPENING.match(sentence)) is not None:
            meant = _meant(opening, meant, len(found))
            if panel not in meant:
                continue
        if not any(title in sentence for title in others):
            kept.append(sentence.strip())
    return " ".join(filter(None, kept))


def _meant(opening: re.Match, before: set[int], n: int) -> set[int]:
    """The panels of which a sentence speaks that begins with "First:", "The last two:" or, after these, "Others:"."""
    every = list(range(n))
    many = NUMBERS.get(opening["many"], 1)
    which = {"first": every[:many], "last": every[-many:], "others": set(every) - before}
    return set(which[opening["which"].lower()])
