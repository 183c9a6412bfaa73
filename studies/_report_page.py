"""The page of `studies.report` as HTML. All text is escaped here, whether it comes from code, records or provenance."""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from mechsub.lab import recheck, store, study
from mechsub.lab.figures import colors
from studies._report_question import NO_CLAIM
from studies._report_style import SCRIPT, STYLE

CLASSES = {"confirmed": "good", "hit": "good", "refuted": "bad", "miss": "bad", "partly": "part"}
COLUMN = 300  # pixels that a panel needs; narrower pages scroll within the figure


def page(findings: list, predictions: list[Mapping], root: Path) -> str:
    topics = list(dict.fromkeys(f.question.topic for f in findings))
    grouped = {topic: [f for f in findings if f.question.topic == topic] for topic in topics}
    sections = "".join(_section(topic, group, root) for topic, group in grouped.items())
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
<p>{_counted(findings)} Sentences and verdicts are made from the stored cells by
<code>python -m studies.report</code>; nobody typed a number. Brackets are 95% intervals. The null is what the number
would be without the effect. A verdict is on the published claim, in this set-up; where nothing
was claimed there is none.</p>
</header>
<nav aria-label="Questions">{"".join(_contents(topic, group) for topic, group in grouped.items())}</nav>
<main id="answers">{sections}
<section aria-labelledby="predictions"><h2 id="predictions">Predictions</h2>{_predictions(predictions)}</section>
<section aria-labelledby="rechecks"><h2 id="rechecks">Made again</h2>{_rechecks(root)}</section></main>
<script defer src="data:text/javascript;base64,{_script()}"></script>
</body>
</html>
"""


def _rechecks(root: Path) -> str:
    """What the ledger of rechecks says of the store as it is."""
    try:
        result = recheck.result(root)
    except ValueError as error:
        return f"<p>{_e(str(error))}</p>"
    if result is None:
        return "<p>No stored cell was made again yet: <code>python -m mechsub recheck</code>.</p>"
    rows = "".join(
        f"<li>{_e(line['study'])} {_e(line['cell'])}: {_e(json.dumps(line['apart']))}</li>" for line in result.differing
    )
    return f"<p>{_e(str(result))}.</p><ul class='small'>{rows}</ul><p><code>python -m mechsub recheck</code></p>"


def _script() -> str:
    """A deferred script runs after plotly's only if it has a source; this one is within the page."""
    pattern = "|".join(map(re.escape, colors.DARK))
    told = f"const DARK = {json.dumps(colors.DARK)}, PATTERN = new RegExp({json.dumps(pattern)}, 'g');"
    return base64.b64encode((told + SCRIPT).encode()).decode()


def _e(value) -> str:
    return html.escape(study._cell_text(value))


def _badge(verdict: str) -> str:
    if verdict == NO_CLAIM:
        return ""
    return f'<span class="verdict {CLASSES.get(verdict, "open")}">{_e(verdict)}</span>'


def _counted(findings: list) -> str:
    answered = [f.verdict for f in findings if f.answer]
    said = ", ".join(f"{n} {word}" for word in ("confirmed", "partly", "refuted") if (n := answered.count(word)))
    return f"{len(answered)} of {len(findings)} questions are answered; of the published claims, {_e(said or 'none')}."


def _contents(topic: str, findings: list) -> str:
    rows = "".join(
        f'<li><a href="#{_e(f.question.name)}">{_e(f.question.question)}</a>{_badge(f.verdict)}</li>'
        for f in findings
        if f.answer
    )
    waiting = sum(f.answer is None for f in findings)
    rows += f'<li class="soft"><a href="#{_waiting(topic)}">not answered yet: {waiting}</a></li>' if waiting else ""
    return f"<h2>{_e(topic)}</h2><ul>{rows}</ul>"


def _waiting(topic: str) -> str:
    """The anchor of what is not answered yet."""
    return f"waiting-{''.join(c if c.isalnum() else '-' for c in topic.lower())}"


def _section(topic: str, findings: list, root: Path) -> str:
    first: dict[int, str] = {}
    articles = "".join(_article(f, first, root) for f in findings if f.answer)
    waiting = "".join(
        f"<li>{_e(f.question.question)} {_claim(f)}<br>{_e(f.why_not)}{_warnings(f)} <code>{_e(f.command)}</code></li>"
        for f in findings
        if not f.answer
    )
    if waiting:
        waiting = f'<h3 id="{_waiting(topic)}">Not answered yet</h3><ul class="waiting small">{waiting}</ul>'
    return f"<section><h2>{_e(topic)}</h2>{articles}{waiting}</section>\n"


def _article(f, first: dict[int, str], root: Path) -> str:
    """`first`: which question of the section showed a figure, or the cells of a command, before."""
    name, answer = f.question.name, f.answer
    shown = _table(answer.shown, f.question.question, "") if answer.shown else ""
    drawn, earlier = first.setdefault(id(f.figure), name) == name, first.setdefault(id(f.found), name)
    rest = f"{_figure(f) if drawn else ''}<pre><code>{_e(f.command)}</code></pre>"
    if earlier == name:
        rest += f"{_numbers(f)}{_provenance(f, root)}"
    else:
        what = "Numbers and provenance" if drawn else "Figure, numbers and provenance"
        rest += f'<p class="small"><a href="#{_e(earlier)}">{what} of this command</a></p>'
    return (
        f'<article id="{_e(name)}"><div class="head"><h3>{_e(f.question.question)}</h3>{_badge(f.verdict)}</div>'
        f'<p class="answer">{_e(answer.sentence)}</p><p class="small"><b>Null:</b> {_e(answer.null)}.</p>'
        f"{_claim(f)}{_warnings(f)}{shown}{rest}</article>\n"
    )


def _claim(f) -> str:
    return f'<p class="soft small"><b>Claim:</b> {_e(f.question.claim)}</p>' if f.question.claim else ""


def _warnings(f) -> str:
    said = {
        "missing": "Not stored, so not in this answer",
        "stale": "Stale, made by other code than this; the command with --rerun recomputes it",
        "damaged": "Damaged, so not shown; the command with --rerun recomputes it",
    }
    if f.answer is None:
        del said["missing"]  # which is what `why_not` says
    out = ""
    for status, text in said.items():
        if cells := [cell.name for cell, is_ in f.found.cells.items() if is_ == status]:
            out += f'<p class="warn small">{text}: <code>{_e(", ".join(cells))}</code></p>'
    return out


def _figure(f) -> str:
    figure, title, caption, columns = _bare(f.figure)
    wide = f"min-width:{columns * COLUMN}px;" if columns > 1 else ""
    data = json.dumps(figure, sort_keys=True).replace("<", "\\u003c")
    place = (
        f'<div class="plot" role="img" aria-label="{_e(f"{title}. {f.answer.sentence} {caption}")}" '
        f'style="{wide}min-height:{figure["layout"]["height"]}px">'
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


def _table(rows: Iterable[Mapping], label: str, style: str = "numbers") -> str:
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f'<th scope="col">{_e(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_e(row.get(c, ''))}</td>" for c in columns) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{_e(label)}"><table class="{style}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _numbers(f) -> str:
    return f"<details><summary>All numbers</summary>{_table(f.found.rows, f'Numbers: {f.question.question}')}</details>"


def _predictions(rows: list[Mapping]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    said = ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
    misses = [row for row in rows if row["verdict"] == "miss"]
    told = [{key: value for key, value in row.items() if key != "why"} for row in rows]
    return (
        f"<p>Written before the sweeps were run (<code>studies/predictions.toml</code> states the rules): {said}. "
        "A rule for a direction looks at the first and the last level; a step that goes the other way is said beside "
        f"what was found. Missed were:</p>{_table(misses, 'Missed predictions', '')}"
        f"<details><summary>All {len(rows)} predictions</summary>{_table(told, 'Predictions')}</details>"
    )


def _provenance(f, root: Path) -> str:
    cells = "".join(_cell(cell, status, root) for cell, status in f.found.cells.items())
    return f"<details><summary>Provenance</summary>{cells}</details>" if cells else ""


def _cell(cell: Path, status: str, root: Path) -> str:
    place = cell.relative_to(root)
    name = f"<p><code>{_e(str(place))}</code>: {_e(status)}</p>"
    if status not in ("stored", "stale"):
        return name
    rows = "".join(f"<dt>{_e(key)}</dt><dd>{_e(value)}</dd>" for key, value in _told(cell).items() if value)
    links = ", ".join(f'<a href="{quote(str(place / file))}">{file}</a>' for file in (store.RECORDS, store.PROVENANCE))
    return f"{name}<dl>{rows}<dt>files</dt><dd>{links}</dd></dl>"


def _told(cell: Path) -> dict:
    made = store.read_provenance(cell) or {}
    git = made.get("git") or {}
    return {
        "made by": " ".join(made["command"]),
        "created": made.get("created", ""),
        "commit": f"{git.get('commit', 'none')}{', changed since' if git.get('dirty') else ''}",
        "seconds": made.get("seconds", ""),
        "versions": ", ".join(f"{key} {value}" for key, value in made.get("versions", {}).items()),
        "machine": f"{made.get('device')}, {made.get('threads')} threads, {(made.get('cpu') or {}).get('model')}",
        "unit": made.get("unit", ""),
        "null": made.get("null", ""),
        "records": f"{made['records']['rows']} rows, sha256 {made['records']['sha256'][:16]}",
    }
