"""Figures of `studies.unembed_projection`, from the records of cells that differ in their metric only."""

import mechsub as ms
from mechsub import lab
from mechsub.lazy import go
from studies.unembed_projection import Config, study
from studies.unembed_projection.findings import ARMS, DIRECTIONS, of, shares, shown, units


def plot(records: list[dict]):
    label, rows = lab.by_cell(records, Config, together=study.together)[0]
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return (_toy_plot if rows[0]["model"] == "toy" else _language_plot)(rows, more)


def _language_plot(cell: list[dict], more: str):
    panels = {title: _bars(cell, direction) for direction, title in DIRECTIONS.items()}
    if of(cell, "layer"):
        panels["Steering: after which block"] = _curves(cell)
    if of(cell, "share"):
        panels["dla: share of the interaction animal to number"] = _share_bars(cell)
    first = of(cell, "summary", rows="all", unit=units(cell)[0])[0]
    what = "multisets of tokens of" if first["unit"] == "multiset" else ""
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Metrics against the entanglement of {cell[0]['model']}, {cell[0]['family']}{more}",
        caption=f"Partial Spearman correlation over {first['n_partners']} {what} {cell[0]['family']}, mean over "
        f"{first['n_animals']} animals, 95% crossed bootstrap intervals. Null: the metric of other animals (grey). "
        "Band: other wordings of the prompt, the noise ceiling (on fewer partners or animals). dla: total is the "
        "outcome itself, a check; steering, all layers: a late state under a number holds the outcome.",
    )


def _bars(cell: list[dict], direction: str):
    """Matched and mismatched partial correlation of every metric, and the ceiling as a band."""
    unit = units(cell)[0]
    rows, traces = of(cell, "summary", direction=direction, unit=unit, rows="all"), []
    names = [ms.kinds.plain(shown(row)) for row in rows]
    for row in of(cell, "ceiling", direction=direction, unit=unit)[:1]:
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
        listed = {"name": name, "legendgroup": name, "showlegend": direction == "number_to_animal"}
        marker = {"color": color, "size": 11}
        traces.append(go.Scatter(x=values, y=names, error_x=bars, mode="markers", marker=marker, **listed))
    order = {"type": "category", "categoryorder": "array", "categoryarray": names, "autorange": "reversed"}
    return ms.kinds.Panel(traces, {"title_text": "partial Spearman correlation"}, order)


def _curves(cell: list[dict]):
    rows = []
    for direction, title in DIRECTIONS.items():
        for row in of(cell, "layer", direction=direction):
            place = {"x": row["layer"] + 1, "low": row["low"], "high": row["high"]}
            rows.append({"arm": title, "value": row["partial_difference"], **place})
    return ms.kinds.band_panel(
        rows, "after block", "partial Spearman, matched - other", colors={"matched": ms.kinds.OKABE_ITO[0]}
    )


def _share_bars(cell: list[dict]):
    found = {finding.label.rpartition(": ")[2]: finding.value for finding in shares(cell) if finding.p is None}
    bars = ms.kinds.error_bar((i.mean, i.low, i.high) for i in found.values())
    values = {"x": [i.mean for i in found.values()], "y": list(found), "orientation": "h", "error_x": bars}
    trace = go.Bar(**values, marker={"color": ms.kinds.OKABE_ITO[0]}, showlegend=False)
    return ms.kinds.Panel(
        [trace],
        {"title_text": "share (other: along other animals' directions, the null)"},
        {"autorange": "reversed", "type": "category"},
    )


def _toy_plot(cell: list[dict], more: str):
    rows = []
    for row in of(cell, "seed"):
        place = {"facet": f"{shown(row)}: rank correlation with recall"}
        rows.append({**place, "label": ARMS[row["arm"]], "arm": row["arm"], "value": row["spearman"]})
        if row["arm"] == "student_aux":
            rows.append(
                {**place, "label": "W_U of other seeds (null)", "arm": "reference", "value": row["spearman_mismatched"]}
            )
    for row in of(cell, "share"):
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
