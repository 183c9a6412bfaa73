"""The page of `studies.report` as HTML. All text is escaped here, whether it comes from code, records or provenance."""

import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from mechsub import store, study

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #55565a; --paper: #fff; --card: #f5f6f8; --line: #d9dbe0;
  --link: #0b5cad; --good: #00664b; --bad: #a33c00; --part: #6b5600; --open: #55565a; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --soft: #b3b5bb; --paper: #17181b; --card: #222428;
  --line: #3b3e45; --link: #7db8f5; --good: #4fd0a5; --bad: #ff9d66; --part: #e3c65a; --open: #b3b5bb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; font: 1.05rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; } h2 { margin: 3rem 0 1rem; font-size: 1.45rem; }
h3 { margin: 0 0 .5rem; font-size: 1.15rem; } a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
article { border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 0 0 1.5rem; background: var(--card); }
article p { margin: .4rem 0; } .soft, figcaption, dt { color: var(--soft); }
.verdict { display: inline-block; font-weight: 600; white-space: nowrap; }
.verdict::before { content: "\\25CF  "; } .good { color: var(--good); } .bad { color: var(--bad); }
.part { color: var(--part); } .open { color: var(--open); } .warn { color: var(--bad); font-weight: 600; }
figure { margin: 1rem 0; } figcaption { font-size: .92rem; margin-top: .4rem; }
.scroll { overflow-x: auto; } .plot { background: #fff; color: #222; border-radius: .4rem; }
@media (prefers-color-scheme: dark) { .plot { filter: brightness(.9); } }
.plot p { padding: 1rem; margin: 0; }
code { font: .9rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; white-space: pre-wrap;
  margin: .5rem 0; } summary { cursor: pointer; padding: .25rem 0; }
table { border-collapse: collapse; font-size: .92rem; } th, td { text-align: left; vertical-align: top;
  padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); } .numbers td { white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; font-size: .92rem; }
dd { margin: 0; overflow-wrap: anywhere; min-width: 0; } ul { padding-left: 1.2rem; }
@media print { body { max-width: none; font-size: 10pt; } article { break-inside: avoid; background: none; }
  .scroll { overflow: visible; } .modebar, .skip { display: none !important; } }
"""

# Figures are drawn one after the other, so that the page can be read meanwhile; on a phone, names of rows are wrapped.
SCRIPT = """
"use strict";
const wrap = (text) => String(text).replace(/(.{10,17}?) /g, "$1<br>");
function fitted(given, narrow) {
  const figure = JSON.parse(given);
  if (!narrow) return figure;
  const layout = figure.layout;
  layout.font = Object.assign({}, layout.font, {size: 11});
  layout.margin = Object.assign({}, layout.margin, {l: 40, r: 12});
  layout.legend = {orientation: "h", y: -0.2, yanchor: "top"};
  for (const key of Object.keys(layout).filter((key) => key.startsWith("yaxis")))
    if (layout[key].ticktext) layout[key].ticktext = layout[key].ticktext.map(wrap);
  return figure;
}
function draw(place) {
  const figure = fitted(place.nextElementSibling.textContent, place.clientWidth < 600);
  place.replaceChildren();
  return Plotly.newPlot(place, figure.data, figure.layout, {displaylogo: false, responsive: true});
}
async function drawAll() {
  if (typeof Plotly === "undefined") return;
  for (const place of document.querySelectorAll(".plot")) {
    await draw(place);
    await new Promise((resume) => setTimeout(resume));
  }
  document.documentElement.dataset.drawn = "all";
}
addEventListener("beforeprint", () => document.querySelectorAll(".js-plotly-plot").forEach((p) => Plotly.Plots.resize(p)));
drawAll();
"""
CLASSES = {"confirmed": "good", "hit": "good", "refuted": "bad", "miss": "bad", "partly": "part"}
COLUMN = 300  # pixels that a panel needs; narrower pages scroll within the figure


def page(findings: list, predictions: list[Mapping], root: Path) -> str:
    topics = dict.fromkeys(found.question.topic for found in findings)
    sections = "".join(_section(topic, [f for f in findings if f.question.topic == topic], root) for topic in topics)
    answered = sum(found.answer is not None for found in findings)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mechsub: what the stored cells say</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<script defer src="plotly.min.js"></script>
</head>
<body>
<a class="skip" href="#answers">Skip to the answers</a>
<header>
<h1>Subliminal learning and token entanglement: what the stored cells say</h1>
<p>{answered} of {len(findings)} questions are answered. Every sentence and verdict is made from the stored cells by
<code>python -m studies.report</code>. Brackets are 95% intervals; the null is what the number would be without the effect.
A verdict is on the published claim, in this set-up.</p>
</header>
<nav aria-label="Questions">{_contents(findings)}</nav>
<main id="answers">{sections}
<section aria-labelledby="predictions"><h2 id="predictions">Predictions</h2>
{_predictions(predictions)}</section></main>
<script defer src="data:text/javascript;base64,{_base64(SCRIPT)}"></script>
</body>
</html>
"""


def _base64(text: str) -> str:
    """A deferred script runs after plotly's only if it has a source; this one is within the page."""
    import base64

    return base64.b64encode(text.encode()).decode()


def _e(value) -> str:
    return html.escape(study._cell_text(value))


def _badge(verdict: str) -> str:
    return f'<span class="verdict {CLASSES.get(verdict, "open")}">{_e(verdict)}</span>'


def _contents(findings: list) -> str:
    rows = [
        f'<tr><td><a href="#{_e(f.question.name)}">{_e(f.question.question)}</a></td><td>{_badge(f.verdict)}</td></tr>'
        for f in findings
    ]
    return f"<table><thead><tr><th>question</th><th>published claim</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _section(topic: str, findings: list, root: Path) -> str:
    return f"<section><h2>{_e(topic)}</h2>{''.join(_article(found, root) for found in findings)}</section>\n"


def _article(found, root: Path) -> str:
    q = found.question
    claim = f'<p class="soft">Claim: {_e(q.claim)}</p>' if q.claim else ""
    if found.answer is None:
        said = f"<p>Not answered yet. {_e(found.why_not)}</p>"
    else:
        said = f"<p>{_e(found.answer.sentence)}</p><p><b>Null:</b> {_e(found.answer.null)}.</p>"
    return (
        f'<article id="{_e(q.name)}"><h3>{_e(q.question)}</h3>{claim}<p>{_badge(found.verdict)}</p>{said}'
        f"{_warnings(found)}{_figure(found)}<pre><code>{_e(found.command)}</code></pre>"
        f"{_numbers(found.rows, q.question)}{_provenance(found, root)}</article>\n"
    )


def _warnings(found) -> str:
    said = {
        "missing": "Not stored, so not in this answer",
        "stale": "Stale, made by other code than this; the command with --rerun recomputes it",
        "damaged": "Damaged, so not shown; the command with --rerun recomputes it",
    }
    out = ""
    for status, text in said.items():
        if cells := [cell.name for cell, is_ in found.cells.items() if is_ == status]:
            out += f'<p class="warn">{text}: <code>{_e(", ".join(cells))}</code></p>'
    return out


def _figure(found) -> str:
    if found.figure is None:
        return ""
    figure, title, caption, columns = _bare(found.figure)
    alt = f"{title}. {found.answer.sentence if found.answer else ''} {caption}"
    wide = f"min-width:{columns * COLUMN}px;" if columns > 1 else ""
    data = json.dumps(figure, sort_keys=True).replace("<", "\\u003c")
    place = (
        f'<div class="plot" role="img" aria-label="{_e(alt)}" style="{wide}min-height:{figure["layout"]["height"]}px">'
        "<p>The figure is drawn by plotly.min.js, which python -m studies.report writes beside this page.</p></div>"
    )
    return (
        f'<figure><div class="scroll" tabindex="0" role="group" aria-label="Figure: {_e(title)}">{place}'
        f'<script type="application/json">{data}</script></div>'
        f"<figcaption><b>{_e(title)}.</b> {_e(caption)}</figcaption></figure>"
    )


def _bare(figure) -> tuple[dict, str, str, int]:
    """The figure without title and caption, which the page shows as text; how many panels stand side by side."""
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
    starts = {axis["domain"][0] for key, axis in layout.items() if key.startswith("xaxis") and "domain" in axis}
    return given, title, caption, max(1, len(starts))


def _table(rows: Iterable[Mapping], label: str) -> str:
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f'<th scope="col">{_e(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_e(row.get(c, ''))}</td>" for c in columns) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{_e(label)}"><table class="numbers">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _numbers(rows: list[Mapping], question: str) -> str:
    if not rows:
        return ""
    return f"<details><summary>All numbers</summary>{_table(rows, f'Numbers: {question}')}</details>"


def _predictions(rows: list[Mapping]) -> str:
    if not rows:
        return "<p>There is no predictions.toml here.</p>"
    counts = ", ".join(f"{sum(r['verdict'] == kind for r in rows)} {kind}" for kind in ("hit", "miss", "open"))
    told = [{key: value for key, value in row.items() if key != "why"} for row in rows]
    why = "".join(f"<li>{_e(row['factor'])} {_e(row['levels'])}: {_e(row['why'])}</li>" for row in rows)
    return (
        f"<p>Written before the sweeps were run (predictions.toml, which states the rules): {counts}.</p>"
        f"{_table(told, 'Predictions')}<details><summary>Reasons given beforehand</summary><ul>{why}</ul></details>"
    )


def _provenance(found, root: Path) -> str:
    cells = "".join(_cell(cell, status, root) for cell, status in found.cells.items())
    return f"<details><summary>Provenance</summary>{cells}</details>" if cells else ""


def _cell(cell: Path, status: str, root: Path) -> str:
    place = cell.relative_to(root)
    name = f"<p><code>{_e(str(place))}</code>: {_e(status)}</p>"
    if status not in ("stored", "stale"):
        return name
    made = store.read_provenance(cell)
    git = made.get("git") or {}
    told = {
        "made by": " ".join(made["command"]),
        "created": made.get("created", ""),
        "commit": f"{git.get('commit', 'none')}{', changed since' if git.get('dirty') else ''}",
        "seconds": made.get("seconds", ""),
        "versions": ", ".join(f"{key} {value}" for key, value in made.get("versions", {}).items()),
        "machine": f"{made.get('device', '')}, {made.get('threads', '')} threads, {made.get('cpu', {}).get('model', '')}",
        "unit": made.get("unit", ""),
        "null": made.get("null", ""),
        "records": f"{made['records']['rows']} rows, sha256 {made['records']['sha256'][:16]}",
    }
    rows = "".join(f"<dt>{_e(key)}</dt><dd>{_e(value)}</dd>" for key, value in told.items() if value)
    links = ", ".join(
        f'<a href="{quote(str(place / file))}">{file}</a>' for file in (store.RECORDS, store.PROVENANCE)
    )
    return f"{name}<dl>{rows}<dt>files</dt><dd>{links}</dd></dl>"
