"""How pages draw figures: one panel a row, as wide as the page, in its light or dark colours (drawing.js)."""

import base64
import html
import json
import re
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go

from mechsub.lab.figures import colors

FOLDER = Path(__file__).parent
DIGITS = 8


class Drawing(NamedTuple):
    """A figure without title and caption, which the page shows as text; `data` is safe within a script."""

    title: str
    caption: str
    height: float
    data: str


def drawing(figure: go.Figure) -> Drawing:
    given = json.loads(figure.to_json())
    layout = given["layout"]
    title = html.unescape(layout.pop("title", {}).get("text", ""))
    notes = layout.get("annotations", [])
    caption = " ".join(html.unescape(n["text"].replace("<br>", " ")) for n in notes if n.get("name") == "caption")
    layout["annotations"] = [note for note in notes if note.get("name") != "caption"]
    margin = layout.get("margin", {})
    top, bottom = (40 if layout["annotations"] else 20), 90
    layout["height"] = layout.get("height", 450) - margin.get("t", 100) - margin.get("b", 80) + top + bottom
    layout["margin"] = margin | {"t": top, "b": bottom, "r": margin.get("r", 20)}
    data = json.dumps(_short(given), sort_keys=True, separators=(",", ":")).replace("<", "\\u003c")
    return Drawing(title, caption, layout["height"], data)


def _short(value):
    """Numbers with DIGITS digits, more than an eye or a pointer tells apart: a page has many."""
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def script(**config: bool) -> str:
    """drawing.js in base64, with the colours and plotly's `config`.

    A deferred script runs after plotly's only if it has a source; this one is within the page.
    """
    pattern = "|".join(map(re.escape, colors.DARK))
    told = (
        f"const DARK = {json.dumps(colors.DARK)}, PATTERN = new RegExp({json.dumps(pattern)}, 'g'), "
        f"CONFIG = {json.dumps(config)};\n"
    )
    return base64.b64encode((told + (FOLDER / "drawing.js").read_text(encoding="utf-8")).encode()).decode()


def page(figure: go.Figure, name: str) -> str:
    """HTML of one figure, which reads ../plotly.min.js."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html").render(
        name=name, drawn=drawing(figure), script=script(displaylogo=False, responsive=True)
    )
