"""Tables and figures of `studies.unembed_projection`, from the records of cells that differ in their metric only."""

from collections.abc import Iterator

import mechsub as ms

DIRECTIONS = {"number_to_animal": "number to animal", "animal_to_number": "animal to number"}
# Checks, nulls, and steering where a state under a number already holds the outcome.
NOT_RANKED = ("total", "common", "rest", "scale", "normaliser", "other", "all layers")
ARMS = {"student_aux": "student", "cross_aux": "cross-initialisation student (null)"}


def table(cells: list[dict]) -> Iterator[dict]:
    yield from _toy_table(cells) if cells[0]["model"] == "toy" else _language_table(cells)


def plot(cells: list[dict], more: str):
    return (_toy_plot if cells[0]["model"] == "toy" else _language_plot)(cells, more)


def _of(cells: list[dict], kind: str, **keys) -> list[dict]:
    return [row for row in cells if all(row.get(key) == value for key, value in {"kind": kind, **keys}.items())]


def _language_table(cells: list[dict]) -> Iterator[dict]:
    for direction, title in DIRECTIONS.items():
        for unit in _units(cells):
            rows = _of(cells, "summary", direction=direction, unit=unit, rows="all")
            ranked = [row for row in rows if row["part"] not in NOT_RANKED]
            places = _ranked(ranked) if unit == _units(cells)[0] else {}
            for row in rows:
                key = {"direction": title, "unit": unit, "metric": row["shown"]}
                yield {**key, **_columns(row), **_share_of_ceiling(cells, row), **places.get(row["shown"], {})}
            for row in _of(cells, "ceiling", direction=direction, unit=unit)[:1]:
                yield {"direction": title, "unit": unit, "metric": "ceiling: other wordings", **_columns(row)}
    yield from _share_table(cells)
    yield from _verdict(cells)


def _units(cells: list[dict]) -> list[str]:
    """multiset, where strings share tokens, then string; metrics compete over the first."""
    found = {row["unit"] for row in _of(cells, "summary")}
    return [unit for unit in ("multiset", "string") if unit in found]


def _ranked(rows: list[dict]) -> dict[str, dict]:
    """Holm's p over the metrics, of the larger of both p, and which wins by the rule of the study's docstring."""
    if not rows:
        return {}
    best = max(rows, key=lambda row: row["partial_difference"])
    out = {}
    for row, p in zip(rows, ms.stats.holm([max(row["p"], row["p_animals"]) for row in rows]), strict=True):
        out[row["shown"]] = {"p (Holm)": p}
        if row is best and len(rows) > 1:
            out[row["shown"]]["rule"] = "winner" if p < 0.05 else "highest, not significant"  # type: ignore[assignment]
        elif row["partial_difference"] > best["partial_difference_low"]:
            out[row["shown"]]["rule"] = "within the winner's interval"  # type: ignore[assignment]
    return out


def _share_of_ceiling(cells: list[dict], row: dict) -> dict:
    """Matched - mismatched of a metric over that of other wordings, both on the rows that these were run on."""
    same = {key: row[key] for key in ("direction", "unit", "shown")}
    found = _of(cells, "summary", rows="ceiling's", **same)
    return {"r / ceiling's r": _interval(found[0], "of_ceiling")} if found else {}


def _verdict(cells: list[dict]) -> Iterator[dict]:
    """By the rule of the study's docstring, of what writing the animal's own direction predicts, animal to number."""
    keys = {"rows": "ceiling's", "direction": "animal_to_number", "unit": _units(cells)[0]}
    found = {part: _of(cells, "summary", part=part, **keys) for part in ("concept", "other")}
    if not all(found.values()):
        return
    own, other = found["concept"][0], found["other"][0]
    squared = [max(0.0, own[f"of_ceiling{end}"]) ** 2 for end in ("", "_low", "_high")]
    rule = _ruling(squared[0])
    if len({_ruling(value) for value in squared}) > 1:
        rule += " (the interval reaches another verdict)"
    if own["of_ceiling"] <= other["of_ceiling"]:
        rule += "; no more than other animals' directions"
    key = {"direction": DIRECTIONS["animal_to_number"], "unit": own["unit"], "metric": "geometry, by dla: concept"}
    yield {**key, "explained / ceiling's": ms.stats.Interval(*squared, own["n_animals"]), "rule": rule}  # type: ignore[call-arg]


def _ruling(explained: float) -> str:
    return "refuted" if explained < 0.1 else "partial" if explained < 0.5 else "half or more"


def _columns(row: dict) -> dict:
    return {
        "Spearman": _interval(row, "spearman"),
        "other animals": row["spearman_mismatched"],
        "partial": _interval(row, "partial"),
        "partial, matched - other": _interval(row, "partial_difference"),
        "p": row["p"],
        "p (animals)": row["p_animals"],
    }


def _interval(row: dict, name: str):
    return ms.stats.Interval(row[name], row[f"{name}_low"], row[f"{name}_high"], row["n_animals"])


def _share_table(cells: list[dict]) -> Iterator[dict]:
    shares = {shown: [r["share"] for r in _of(cells, "share", shown=shown)] for shown in _shown(cells, "share")}
    for shown, values in shares.items():
        yield {"direction": "share of the interaction", "metric": shown, "share": ms.stats.student_t(values)}
    if {"dla: concept", "dla: other"} <= set(shares):
        pair = ms.stats.paired_difference(shares["dla: concept"], shares["dla: other"])
        row = {"direction": "share of the interaction", "metric": "dla: concept - other animals' directions"}
        yield {**row, "share": pair.interval, "p": pair.p}


def _shown(cells: list[dict], kind: str) -> list[str]:
    return list(dict.fromkeys(row["shown"] for row in _of(cells, kind)))


def _language_plot(cells: list[dict], more: str):
    panels = {title: _bars(cells, direction) for direction, title in DIRECTIONS.items()}
    if _of(cells, "layer"):
        panels["Steering: after which block"] = _curves(cells)
    if _of(cells, "share"):
        panels["dla: share of the interaction animal to number"] = _share_bars(cells)
    first = _of(cells, "summary", rows="all", unit=_units(cells)[0])[0]
    what = "multisets of tokens of" if first["unit"] == "multiset" else ""
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Metrics against the entanglement of {cells[0]['model']}, {cells[0]['family']}{more}",
        caption=f"Partial Spearman correlation over {first['n_partners']} {what} {cells[0]['family']}, mean over "
        f"{first['n_animals']} animals, 95% crossed bootstrap intervals. Null: the metric of other animals (grey). "
        "Band: other wordings of the prompt, the noise ceiling (on fewer partners or animals). dla: total is the "
        "outcome itself, a check; steering, all layers: a late state under a number holds the outcome.",
    )


def _bars(cells: list[dict], direction: str):
    """Matched and mismatched partial correlation of every metric, and the ceiling as a band."""
    import plotly.graph_objects as go

    unit = _units(cells)[0]
    rows, traces = _of(cells, "summary", direction=direction, unit=unit, rows="all"), []
    names = [ms.kinds.plain(row["shown"]) for row in rows]
    for row in _of(cells, "ceiling", direction=direction, unit=unit)[:1]:
        low, high = row["partial_low"], row["partial_high"]
        area = {"x": [low, high, high, low], "y": [names[0], names[0], names[-1], names[-1]]}
        style = {"fill": "toself", "mode": "lines", "line": {"width": 6, "color": "rgba(148,148,148,0.3)"}}
        traces.append(go.Scatter(**area, **style, hoverinfo="skip", name="ceiling", showlegend=False))
    for name, key, color in (
        ("matched", "partial", ms.kinds.OKABE_ITO[0]),
        ("other animals", "partial_mismatched", ms.kinds.GREY),
    ):
        values = [row[key] for row in rows]
        bars = ms.kinds.error_bar(
            ((row[key], row[f"{key}_low"], row[f"{key}_high"]) for row in rows), thickness=3, width=6
        )
        shown = {"name": name, "legendgroup": name, "showlegend": direction == "number_to_animal"}
        marker = {"color": color, "size": 11}
        traces.append(go.Scatter(x=values, y=names, error_x=bars, mode="markers", marker=marker, **shown))
    order = {"type": "category", "categoryorder": "array", "categoryarray": names, "autorange": "reversed"}
    return ms.kinds.Panel(traces, {"title_text": "partial Spearman correlation"}, order)


def _curves(cells: list[dict]):
    rows = []
    for direction, title in DIRECTIONS.items():
        for row in _of(cells, "layer", direction=direction):
            place = {"x": row["layer"] + 1, "low": row["low"], "high": row["high"]}
            rows.append({"arm": title, "value": row["partial_difference"], **place})
    return ms.kinds.band_panel(
        rows, "after block", "partial Spearman, matched - other", colors={"matched": ms.kinds.OKABE_ITO[0]}
    )


def _share_bars(cells: list[dict]):
    import plotly.graph_objects as go

    parts = list(dict.fromkeys(row["part"] for row in _of(cells, "share")))
    found = [ms.stats.student_t([row["share"] for row in _of(cells, "share", part=part)]) for part in parts]
    bars = ms.kinds.error_bar((i.mean, i.low, i.high) for i in found)
    values = {"x": [i.mean for i in found], "y": parts, "orientation": "h", "error_x": bars}
    trace = go.Bar(**values, marker={"color": ms.kinds.OKABE_ITO[0]}, showlegend=False)
    return ms.kinds.Panel(
        [trace],
        {"title_text": "share (other: along other animals' directions, the null)"},
        {"autorange": "reversed", "type": "category"},
    )


# The toy.


def _toy_table(cells: list[dict]) -> Iterator[dict]:
    for arm, title in ARMS.items():
        for summary in _of(cells, "summary", arm=arm):
            rows = _of(cells, "seed", arm=arm, shown=summary["shown"])
            own, others = ([row[key] for row in rows] for key in ("spearman", "spearman_mismatched"))
            yield {
                "quantity": f"{summary['shown']}: rank correlation with recall",
                "arm": title,
                "value": ms.stats.student_t(own),
                "null": ms.stats.student_t(others),
                "difference": ms.stats.paired_difference(own, others).interval,
                "p": summary["p"],
            }
    for arm, title in ARMS.items():
        rows = _of(cells, "share", arm=arm)
        for name, text in (("share", "share of the change"), ("share_varying", "share of what varies over images")):
            if rows:
                own, others = ([row[key] for row in rows] for key in (name, f"{name}_random"))
                pair = ms.stats.paired_difference(own, others)
                values = {
                    "value": ms.stats.student_t(own),
                    "null": ms.stats.student_t(others),
                    "difference": pair.interval,
                }
                yield {"quantity": f"dla: {text} through the auxiliary span", "arm": title, **values, "p": pair.p}
        for name in ("start", "student", "span", "rest", "random_span") if rows else ():
            value = ms.stats.student_t([row[f"accuracy_{name}"] for row in rows])
            yield {"quantity": f"dla: accuracy, {_ACCURACY[name]}", "arm": title, "value": value}


_ACCURACY = {
    "start": "start",
    "student": "whole change",
    "span": "only the part through the auxiliary span",
    "rest": "only the rest",
    "random_span": "only the part through a random span",
}


def _toy_plot(cells: list[dict], more: str):
    rows = []
    for row in _of(cells, "seed"):
        place = {"facet": f"{row['shown']}: rank correlation with recall"}
        rows.append({**place, "label": ARMS[row["arm"]], "arm": row["arm"], "value": row["spearman"]})
        if row["arm"] == "student_aux":
            rows.append(
                {**place, "label": "W_U of other seeds (null)", "arm": "reference", "value": row["spearman_mismatched"]}
            )
    for row in _of(cells, "share"):
        place = {"facet": "dla: share through the auxiliary span"}
        rows.append({**place, "label": ARMS[row["arm"]], "arm": row["arm"], "value": row["share"]})
        if row["arm"] == "student_aux":
            rows.append({**place, "label": "random spans (null)", "arm": "reference", "value": row["share_random"]})
    return ms.kinds.interval_bars(
        rows,
        value="value",
        label="label",
        facet="facet",
        title=f"Do directions of W_U say which digits the student learns?{more}",
        axis="rank correlation, or share",
        caption="One point per seed. Scores are those of the W_U that the student starts from.",
        null=0,
    )
