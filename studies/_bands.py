"""Lines with bands whose ends were computed before: the null of a permutation test has no replicates to draw."""

from mechsub.plot import Panel


def lines(rows: list[dict], x_title: str, y_title: str, *, colors: dict[str, str]) -> Panel:
    """One line for every `arm` over `x` at `value`, with a band from `low` to `high` where its rows have them.

    `colors`: arm -> colour, shared by the panels of a figure. Arms not in it are added and listed in the legend; a row
    with `null` makes its arm grey.
    """
    import plotly.graph_objects as go

    from mechsub.plot import _faint, _safe

    traces = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        chosen = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["x"])
        listed = arm in colors
        color = colors.setdefault(arm, _color(arm, colors, chosen[0].get("null", False)))
        x, style = [row["x"] for row in chosen], {"legendgroup": _safe(arm), "name": _safe(arm)}
        if all("low" in row for row in chosen):
            ends = [row["high"] for row in chosen] + [row["low"] for row in reversed(chosen)]
            filled = {"fill": "toself", "fillcolor": _faint(color), "line": {"width": 0}, "hoverinfo": "skip"}
            traces.append(go.Scatter(x=x + x[::-1], y=ends, mode="lines", **filled, **style, showlegend=False))
        line = {"line": {"color": color, "width": 3}, "mode": "lines+markers", "showlegend": not listed}
        traces.append(go.Scatter(x=x, y=[row["value"] for row in chosen], **line, **style))
    return Panel(traces, {"title_text": _safe(x_title)}, {"title_text": _safe(y_title)})


def _color(arm: str, taken: dict[str, str], null: bool) -> str:
    """The arm's fixed colour, grey for a null, else the first that no other line has."""
    from mechsub.plot import ARM_COLORS, GREY, OKABE_ITO

    free = [color for color in OKABE_ITO if color not in taken.values()] or OKABE_ITO
    return ARM_COLORS.get(arm, GREY if null else free[0])
