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
    data = json.dumps(given, sort_keys=True).replace("<", "\\u003c")
    return Drawing(title, caption, layout["height"], data)


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
