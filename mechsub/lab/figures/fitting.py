"""Room for the texts of a figure that is drawn at a fixed width: no two meet, and none is cut.

Pages arrange figures anew for their width (drawing.js). A static image keeps the grid of its panels: titles are wrapped
to their panel, names along an axis that do not fit side by side are turned, logarithmic axes number fewer places, and
rows move apart for what stands between them.
"""

import base64
import html
import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

Number = float | int
LETTER, LINE = 0.6, 1.3  # of a font's size: the width of a letter, and the height of a line
NEAR = 0.03  # of the figure: a title stands this near to the middle and the top of its panel
GAP = 10  # pixels between texts
TICK = 12  # pixels from a panel to the names along its axis, with their marks
LEAST_FONT = 7
BESIDE = 0.2  # of the width: names beside a panel, and in a legend beside all, take as much at most


class Place(NamedTuple):
    """A panel: the names of its axes, and the part of the figure that it takes."""

    x: str
    y: str
    across: tuple[Number, Number]
    down: tuple[Number, Number]


def places(layout: Mapping) -> list[Place]:
    """The panels of a layout, row by row."""
    found = []
    for key, y in layout.items():
        if key.startswith("yaxis") and not y.get("overlaying"):
            x = y.get("anchor", "x")
            across, down = layout.get(key_of(x), {}).get("domain", (0, 1)), y.get("domain", (0, 1))
            found.append(Place(x, key.replace("axis", ""), (across[0], across[1]), (down[0], down[1])))
    return sorted(found, key=lambda place: (-place.down[1], place.across[0]))


def key_of(axis: str) -> str:
    """x2 -> xaxis2"""
    return f"{axis[0]}axis{axis[1:]}"


def title_of(layout: Mapping, place: Place) -> dict | None:
    """The annotation that is a panel's title."""
    middle, top = sum(place.across) / 2, place.down[1]
    for note in layout.get("annotations", []):
        if (note.get("xref"), note.get("yref"), note.get("name")) == ("paper", "paper", None):
            if abs(note["x"] - middle) < NEAR and abs(note["y"] - top) < NEAR:
                return note
    return None


def caption_of(layout: Mapping) -> dict | None:
    return next((note for note in layout.get("annotations", []) if note.get("name") == "caption"), None)


def words(text: str) -> str:
    """A text as it is read, in one line."""
    return html.unescape(text.replace("<br>", " "))


def fitted(figure: go.Figure, width: int) -> go.Figure:
    """The figure for an image of this width (pixels); it may become higher."""
    given = figure.to_plotly_json()
    layout = given["layout"]
    page = _Page(layout, given["data"], width)
    found = places(layout)
    titles = [title_of(layout, place) for place in found]
    found = page.columns(found, titles)
    above = [page.title(place, note) for place, note in zip(found, titles, strict=True)]
    below = [page.across(place) for place in found]
    for place in found:
        page.down(place)
    page.rows(found, titles, above, below)
    page.headed(max([0.0, *(room for place, room in zip(found, above, strict=True) if place.down[1] > 1 - NEAR)]))
    page.captioned(max([0.0, *(room for place, room in zip(found, below, strict=True) if place.down[0] < NEAR)]))
    return go.Figure(given["data"], layout)


class _Page:
    """A layout (changed in place) with what its texts take, in pixels."""

    def __init__(self, layout: dict, data: Sequence[Mapping], width: int):
        self.layout, self.data, self.width = layout, data, width
        template = layout.get("template", {}).get("layout", {})
        self.font = {**template.get("font", {}), **layout.get("font", {})}.get("size", 12)
        self.head = {**template.get("title", {}).get("font", {}), **layout.get("title", {}).get("font", {})}.get("size")
        self.margin = {"l": 80, "r": 80, "t": 100, "b": 80} | layout.get("margin", {})
        self.height = layout.get("height", 450)
        found = places(layout)
        for place in found:
            self._wrap_names(place)
        first = (self._names_beside(place) for place in found if place.across[0] < NEAR)
        self.left = max([self.margin["l"], *first])
        self.under = self._legend_below()
        self.inner = max(100.0, width - self.left - self._right())

    @property
    def tall(self) -> Number:
        """Pixels of all panels with what is between them."""
        return max(1.0, self.height - self.margin["t"] - self.margin["b"])

    def _names_beside(self, place: Place) -> Number:
        """What stands left of a panel."""
        axis = self._axis(place.y)
        names = max(map(_longest, self._names(place, "y")), default=5) * self._size(axis) * LETTER
        shown = axis.get("showticklabels") is not False
        return TICK + (names if shown else 0) + (2.5 * self.font if self._title(axis) else 0)

    def _wrap_names(self, place: Place) -> None:
        """Long names beside a panel leave it room, where others stand beside it."""
        if _part(place.across) > 0.5:
            return
        axis, names = self._axis(place.y), self._names(place, "y")
        room, size = BESIDE * self.width, self._size(axis)
        if max(map(_longest, names), default=0) * size * LETTER > room:
            axis.setdefault("tickvals", names)
            axis |= {"tickmode": "array", "ticktext": [_wrapped(name, room, size)[0] for name in names]}

    def _entries(self) -> list[Number]:
        """What each name of the legend takes."""
        if self.layout.get("showlegend") is False:
            return []
        names = [t["name"] for t in self.data if t.get("name") and t.get("showlegend") is not False]
        return [60 + _longest(name) * self._legend_size() * LETTER for name in names] if len(names) > 1 else []

    def _legend_size(self) -> Number:
        return self.layout.get("legend", {}).get("font", {}).get("size", self.font)

    def _legend_below(self) -> Number:
        """A legend that would take too much of the width stands below all; its height, 0 for one that does not."""
        widths = self._entries()
        if max(widths, default=0) <= BESIDE * self.width:
            return 0.0
        below = {"orientation": "h", "x": 0, "xref": "container", "xanchor": "left"}
        self.layout["legend"] = {
            **self.layout.get("legend", {}), **below, "y": 0, "yref": "container", "yanchor": "bottom",
        }  # fmt: skip
        a_row = max(1, int((self.width - 2 * GAP) / max(widths)))
        return math.ceil(len(widths) / a_row) * self._legend_size() * 1.5 + GAP

    def _right(self) -> Number:
        """What stands right of the panels."""
        bars = [trace.get("colorbar", {}) for trace in self.data if trace["type"] == "heatmap"]
        for bar in bars:
            if "title" in bar:
                bar["title"].setdefault("side", "right")  # above, it would lie on the first number
        bar = 80 + 2 * self.font * any("title" in bar for bar in bars) if bars else 0
        return max([self.margin["r"], bar, *(self._entries() if not self.under else [])])

    def columns(self, found: Sequence[Place], titles: Sequence) -> list[Place]:
        """Move columns apart where what stands beside their panels needs more than is there; the panels then."""
        ends = sorted({place.across for place in found})
        if any(low < high for (_, high), (low, _) in itertools.pairwise(ends)):
            return list(found)  # not columns
        needs = [0.0] + [max(self._names_beside(p) for p in found if p.across == one) + GAP for one in ends[1:]]
        gaps = [0.0] + [(low - high) * self.inner for (_, high), (low, _) in itertools.pairwise(ends)]
        if all(need <= gap for need, gap in zip(needs, gaps, strict=True)):
            return list(found)
        free = self.inner - sum(map(max, needs, gaps))
        share = max(free, 100.0 * len(ends)) / sum(map(_part, ends)) / self.inner
        moved, at = {}, 0.0
        for one, need, gap in zip(ends, needs, gaps, strict=True):
            at += max(need, gap) / self.inner
            moved[one] = (at, min(1.0, at + _part(one) * share))
            at = moved[one][1]
        for place, note in zip(found, titles, strict=True):
            self._axis(place.x)["domain"] = list(moved[place.across])
            if note is not None:
                note["x"] = sum(moved[place.across]) / 2
        return [place._replace(across=moved[place.across]) for place in found]

    def _axis(self, name: str) -> dict:
        return self.layout.setdefault(key_of(name), {})

    def _title(self, axis: Mapping) -> str:
        return axis.get("title", {}).get("text", "")

    def _size(self, axis: Mapping) -> Number:
        return axis.get("tickfont", {}).get("size", self.font)

    def _title_size(self, axis: Mapping) -> Number:
        return axis.get("title", {}).get("font", {}).get("size", round(1.2 * self.font))

    def _traces(self, place: Place) -> list[Mapping]:
        return [t for t in self.data if (t.get("xaxis", "x"), t.get("yaxis", "y")) == (place.x, place.y)]

    def _names(self, place: Place, side: str) -> list[str]:
        """The names along an axis, where it has some in place of numbers."""
        axis = self._axis(getattr(place, side))
        if axis.get("ticktext"):
            return [str(text) for text in axis["ticktext"]]
        values = itertools.chain.from_iterable(listed(trace.get(side)) for trace in self._traces(place))
        found = list(dict.fromkeys(value for value in values if isinstance(value, str)))
        return found if found or axis.get("type") != "category" else [str(n) for n in axis.get("categoryarray", [])]

    def title(self, place: Place, note: dict | None) -> Number:
        """Wrap a panel's title to its panel; what it takes above that."""
        if note is None:
            return 0.0
        size = note.get("font", {}).get("size", 16)
        note["text"], lines = _wrapped(note["text"], self.inner * _part(place.across), size)
        return lines * size * LINE + GAP

    def across(self, place: Place) -> Number:
        """Fit names and the title along a panel's x axis; what they take below it."""
        axis, room = self._axis(place.x), self.inner * _part(place.across)
        size, names = self._size(axis), self._names(place, "x")
        taken = TICK + size * LINE
        if names:
            slot = room / len(names)
            if max(map(_longest, names)) * size * LETTER + GAP > slot:
                size = self._small(axis, slot)
                axis["tickangle"] = -90
                taken = TICK + max(map(_longest, names)) * size * LETTER
        elif axis.get("type") == "log":
            self._log(axis, place, "x", room, 3.5 * size)
        if self._title(axis):
            head = self._title_size(axis)
            axis["title"]["text"], lines = _wrapped(self._title(axis), room, head)
            axis["title"].setdefault("standoff", GAP)
            taken += lines * head * LINE + GAP
        return taken

    def down(self, place: Place) -> None:
        """Fit names and the title along a panel's y axis."""
        axis, room = self._axis(place.y), self.tall * _part(place.down)
        if names := self._names(place, "y"):
            lines = max(name.count("<br>") + 1 for name in names)
            self._small(axis, room / len(names) / lines)
        elif axis.get("type") == "log":
            self._log(axis, place, "y", room, self._size(axis) * LINE)
        if self._title(axis):
            axis["title"]["text"], _ = _wrapped(self._title(axis), room, self._title_size(axis))
            axis["title"].setdefault("standoff", GAP)

    def _small(self, axis: dict, slot: Number) -> Number:
        """Names as high as their slot at most."""
        size = min(self._size(axis), max(LEAST_FONT, slot / LINE))
        if size < self._size(axis):
            axis["tickfont"] = {**axis.get("tickfont", {}), "size": size}
        if slot < LEAST_FONT * LINE and "tickvals" not in axis:
            axis["dtick"] = math.ceil(LEAST_FONT * LINE / slot)
        return size

    def _log(self, axis: dict, place: Place, side: str, room: Number, number: Number) -> None:
        """Numbers at 1, 2 and 5 where they have room (pixels of one), else at powers of ten."""
        values = itertools.chain.from_iterable(listed(trace.get(side)) for trace in self._traces(place))
        positive = [value for value in values if isinstance(value, int | float) and 0 < value < math.inf]
        if "dtick" in axis or "tickvals" in axis or not positive or max(positive) == min(positive):
            return
        decade = room / (1.1 * math.log10(max(positive) / min(positive)))
        axis["dtick"] = "D2" if 0.3 * decade > number else math.ceil(number / decade)

    def rows(self, found: Sequence[Place], titles: Sequence, above: Sequence[Number], below: Sequence[Number]) -> None:
        """Move rows apart where what stands between them needs more than is there."""
        ends = sorted({place.down for place in found}, reverse=True)
        if any(low < next_high for (low, _), (_, next_high) in itertools.pairwise(ends)):
            return  # not rows
        tall, at = self.tall, 0.0
        moved: dict[tuple, tuple[Number, Number]] = {}
        for row, (low, high) in enumerate(ends):
            if row:
                room = max(b for place, b in zip(found, below, strict=True) if place.down == ends[row - 1])
                room += max(a for place, a in zip(found, above, strict=True) if place.down == ends[row])
                at += max((ends[row - 1][0] - high) * tall, room)
            else:
                at = (1 - high) * tall
            moved[low, high] = (at, at + (high - low) * tall)
            at = moved[low, high][1]
        total = at + ends[-1][0] * tall if ends else tall
        if total <= tall + 1:
            return
        for place, note in zip(found, titles, strict=True):
            top, bottom = moved[place.down]
            self._axis(place.y)["domain"] = [1 - bottom / total, 1 - top / total]
            if note is not None:
                note["y"] = 1 - top / total
        for trace in self.data:
            self._move_bar(trace, tall, total, moved)
        self.height += total - tall
        self.layout["height"] = self.height

    def _move_bar(self, trace: Mapping, tall: Number, total: Number, moved: Mapping) -> None:
        """A colour bar keeps its panel and its length."""
        bar = trace.get("colorbar")
        if not isinstance(bar, dict) or "y" not in bar:
            return
        for (low, high), (top, _) in moved.items():
            if low - NEAR <= bar["y"] <= high + NEAR:
                bar["y"] = 1 - (top + (high - bar["y"]) * tall) / total
                bar["len"] = bar.get("len", 1) * tall / total
                return

    def headed(self, panels: Number) -> None:
        """Wrap the figure's title, and leave room for it and the titles of the first row."""
        size, lines = self.head or round(1.4 * self.font), 0
        if text := self.layout.get("title", {}).get("text", ""):
            self.layout["title"]["text"], lines = _wrapped(text, 0.96 * self.width, size)
        top = max(self.margin["t"], 3 * GAP + lines * size * LINE + GAP + panels)
        self.height += top - self.margin["t"]
        if top > self.margin["t"] and text:  # else it would stand halfway to the panels
            self.layout["title"] |= {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 3 * GAP}}
        self._set(margin=top, side="t")

    def captioned(self, panels: Number) -> None:
        """Wrap the caption to the image, below what stands under the last row."""
        note = caption_of(self.layout)
        if note is None:
            return
        size = note.get("font", {}).get("size", 14)
        room = self.width - self.left - 2 * GAP
        lines = note["text"].split("<br>")
        if max(map(len, lines)) * size * LETTER > room:
            text, _ = _wrapped(note["text"], room, size)
            lines = text.split("<br>")
        shift = max(-note.get("yshift", 0), panels + GAP)
        note |= {"text": "<br>".join(lines), "yshift": -shift}
        bottom = max(self.margin["b"], shift + len(lines) * size * 1.45 + GAP) + self.under
        self.height += bottom - self.margin["b"]
        self._set(margin=bottom, side="b")

    def _set(self, *, margin: Number, side: str) -> None:
        self.margin[side] = margin
        self.layout["margin"] = {**self.layout.get("margin", {}), side: margin}
        self.layout["height"] = self.height


def _part(ends: tuple[Number, Number]) -> Number:
    return ends[1] - ends[0]


def _longest(text: str) -> int:
    return max(map(len, html.unescape(text).split("<br>")))


def listed(along) -> Iterable:
    """The numbers or names of a trace along an axis; plotly keeps an array of numpy's, or its bytes."""
    if along is None:
        return ()
    if isinstance(along, Mapping):
        return np.frombuffer(base64.b64decode(along["bdata"]), along["dtype"]).tolist()
    return along.tolist() if isinstance(along, np.ndarray) else along


def _wrapped(text: str, room: Number, size: Number) -> tuple[str, int]:
    """The text in lines for this room (pixels), and their number."""
    letters = max(8, int(room / (size * LETTER)))
    if _longest(text) <= letters:
        return text, text.count("<br>") + 1
    lines = [html.escape(line) for line in textwrap.wrap(words(text), letters)]
    return "<br>".join(lines), len(lines)
