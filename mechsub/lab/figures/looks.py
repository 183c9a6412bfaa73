"""The looks of a figure's names: no two look alike, and one name has one look in all panels.

An arm has its fixed colour, a null is grey, and any other name keeps the look that its kind of figure gave it, unless
an earlier name has that look. Then it gets a colour that no name has; where none is left, a colour with another dash,
marker and pattern.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mechsub.lab.figures.colors import ARM_COLORS, GREY, NEAR, OKABE_ITO, faint

# Lengths without a common divisor, so that a dash with a marker is not the same again for long.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "x", "cross")
PATTERNS = ("", "/", "x", "-", ".", "\\", "+", "|")
STYLES = len(DASHES) * len(SYMBOLS)
KINDS = ("scatter", "scattergl", "bar")


class Look(NamedTuple):
    """What tells the traces of a name from others; None for what they do not have."""

    color: str | None
    dash: str | None = None  # of lines
    symbol: str | None = None  # of markers
    pattern: str | None = None  # of bars


def alike(a: Look, b: Look, near: Sequence[str] = ()) -> bool:
    """Whether a reader takes one for the other: one colour, or one near b's, and one style of what both have."""
    both = [(one, other) for one, other in zip(a[1:], b[1:], strict=True) if None not in (one, other)]
    return bool(both) and all(one == other for one, other in both) and a.color in (b.color, *near)


def look(trace) -> Look:
    if trace.type == "bar":
        return Look(trace.marker.color, pattern=_first(trace.marker.pattern.shape, ""))
    mode = trace.mode or "lines+markers"
    lines, markers = "lines" in mode, "markers" in mode
    color = _first(trace.line.color if lines else None, trace.marker.color, trace.marker.line.color)
    dash, symbol = _first(trace.line.dash, "solid"), _first(trace.marker.symbol, "circle")
    return Look(color, dash if lines else None, symbol if markers else None)


def _first(*values):
    """The first that is given; it may be an array, of which each point has its own."""
    return next((value for value in values if value is not None), None)


def by_name(traces: Iterable) -> dict[str, list]:
    """Traces by name; names of the legend first, then names of rows."""
    named = [trace for trace in traces if trace.name and trace.type in KINDS]
    groups: dict[str, list] = {}
    for trace in sorted(named, key=lambda trace: trace.showlegend is False):
        groups.setdefault(trace.name, []).append(trace)
    return groups


def tell_apart(groups: Mapping[str, Sequence]) -> list[str]:
    """Give the traces of every name a look of their own (in place); returns the names for which none was left."""
    wanted = {name: found for name, traces in groups.items() if (found := _wanted(name, traces)) is not None}
    own: dict[str, Look] = {}
    for name in sorted(wanted, key=lambda name: name not in ARM_COLORS):
        if name in ARM_COLORS or _free(wanted[name], own):
            own[name] = wanted[name]
    colors, greys = _others(wanted, own), iter([Look(GREY, *style) for style in _styles()])
    left = []
    for name in (name for name in wanted if name not in own):
        given = (_like(wanted[name], new) for new in (greys if wanted[name].color == GREY else colors))
        if (new := next((new for new in given if _free(new, own)), None)) is None:
            left.append(name)
        else:
            own[name] = new
    for name, new in own.items():
        for trace in groups[name]:
            _restyle(trace, new, wanted[name].color)
    return left


def _wanted(name: str, traces: Sequence) -> Look | None:
    """The look that a name has already, of its first traces; None where colours are those of single points."""
    looks = [look(trace) for trace in traces if not getattr(trace, "fill", None)]
    if not looks or not all(isinstance(value, str | None) for found in looks for value in found):
        return None
    color, *style = (next((one for one in side if one is not None), None) for side in zip(*looks, strict=True))
    return Look(ARM_COLORS.get(name, color), *style)


def _free(new: Look, own: Mapping[str, Look]) -> bool:
    return new.color is not None and not any(alike(new, known, NEAR.get(name, ())) for name, known in own.items())


def _styles() -> list[tuple[str, str, str]]:
    return [(DASHES[i % len(DASHES)], SYMBOLS[i % len(SYMBOLS)], PATTERNS[i % len(PATTERNS)]) for i in range(STYLES)]


def _others(wanted: Mapping[str, Look], own: Mapping[str, Look]) -> Iterator[Look]:
    """Looks for names without one: colours that no name has, then colours with styles; none near the figure's arms."""
    arms = {color for name in wanted if name in ARM_COLORS for color in (ARM_COLORS[name], *NEAR.get(name, ()))}
    colors = [color for color in OKABE_ITO if color not in arms]
    seen = {known.color for known in own.values()}
    plain, *styles = _styles()
    yield from (Look(color, *plain) for color in sorted(colors, key=lambda color: color in seen))
    yield from (Look(color, *style) for style in styles for color in colors or OKABE_ITO)


def _like(has: Look, new: Look) -> Look:
    """The new look, of what the name has."""
    return Look(new.color, *(one if own is not None else None for own, one in zip(has[1:], new[1:], strict=True)))


def _restyle(trace, new: Look, before: str | None) -> None:
    if getattr(trace, "fill", None):
        if trace.fillcolor and new.color:
            trace.fillcolor = faint(new.color)
        return
    has = look(trace)
    if has == _like(has, new):
        return
    if has.dash is not None:
        trace.line.update(color=new.color, dash=new.dash)
    if has.symbol is not None and (has.dash is None or trace.marker.color or has.symbol != new.symbol):
        trace.marker.update(color=new.color, symbol=new.symbol)
    if has.pattern is not None:
        trace.marker.color = new.color
        trace.marker.pattern.shape = new.pattern
    for part in (trace.marker.line, trace.error_x, trace.error_y):
        if part.color is not None and part.color in (has.color, before):
            part.color = new.color


def list_once(traces: Iterable) -> int:
    """Leave one entry of the legend for each name, which shows and hides the name in all panels (in place). Returns the
    number of entries."""
    listed = [trace for trace in traces if trace.name and trace.type in KINDS and trace.showlegend is not False]
    first: dict[str, Any] = {}
    for trace in listed:
        if first.setdefault(trace.name, trace) is not trace:
            trace.showlegend = False
            for one in (first[trace.name], trace):
                one.legendgroup = one.legendgroup or one.name
    return len(first)
