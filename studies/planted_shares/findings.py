"""Findings and figure of `studies.planted_shares`, from the records of its cells."""

from collections.abc import Iterator

import mechsub as ms
from mechsub.lab.findings import Cell, Finding, cells, slug
from mechsub.lazy import go
from studies.planted_shares import KINDS, ROWS, Config

LEAST = 0.9  # coverage that is asked for
ALL = "all but none"  # models in which anything is planted


def findings(cell: list[dict]) -> Iterator[Finding]:
    for quantity in dict.fromkeys(row["quantity"] for row in cell):
        of = [row for row in cell if row["quantity"] == quantity]
        kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in of)]
        for kind in [ALL, "more than 0", *kinds] if len(kinds) > 1 else kinds:
            rows = [row for row in of if _is(row, kind)]
            if rows:
                yield from _recovered(rows, slug(f"{quantity} {kind}"), f"{quantity}; planted: {kind}")
    agreement = [row["agreement"] for row in cell if row["agreement"] is not None and row["kind"] == "both"]
    label = "agreement of two wordings, both planted"
    yield Finding("wordings/agreement", label, ms.stats.student_t(agreement), unit="planted models")


def _recovered(rows: list[dict], subject: str, label: str) -> Iterator[Finding]:
    covered = sum(row["low"] <= row["planted"] <= row["high"] for row in rows)
    widths = sorted(row["high"] - row["low"] for row in rows)
    defined = [row for row in rows if row["kind"] != "none"]
    own = [row["share"] - row["realised"] for row in defined if row["realised"] is not None]
    found = {"coverage": ms.stats.clopper_pearson(covered, len(rows))}
    if defined:
        found["bias"] = ms.stats.student_t([row["share"] - row["planted"] for row in defined])
    if own:
        found["from_these_words_own"] = ms.stats.student_t(own)
    for score, value in found.items():
        null, words = (LEAST, "asked for") if score == "coverage" else (0.0, "")
        yield Finding(f"{subject}/{score}", label, value, null, unit="planted models", null_label=words)
    yield Finding(f"{subject}/median_width", label, widths[len(widths) // 2])


def _is(row: dict, kind: str) -> bool:
    """Where nothing is planted there is no share to recover; where none of it is planted this way, the share is 0."""
    if kind in KINDS:
        return row["kind"] == kind
    return row["kind"] != "none" and (kind == ALL or row["planted"] > 0)


def sentence(cell: Cell) -> str:
    """What is to stand beside every real result of `contributions`."""
    coverage, bias = (cell.finding(f"{slug(f'{ROWS} {ALL}')}/{score}") for score in ("coverage", "bias"))
    covered = round(coverage.value.mean * coverage.n)
    said = "as asked" if coverage.value.mean >= LEAST else f"fewer than the {LEAST} that were asked for"
    return (
        f"Calibration: on {coverage.n} planted models, the 95% intervals for the share that passes through the loved "
        f"thing's rows cover the planted share in {covered}, {coverage.value}, {said}; the estimate is off "
        f"by {bias.value} on average."
    )


def plot(records: list[dict]):
    first = cells(records, Config, findings)[0]
    cell = first.rows
    panels = {}
    for quantity in (ROWS, "rows, animal to number", "the number, after the middle block"):
        rows = [row for row in cell if row["quantity"] == quantity]
        traces: list = [
            go.Scatter(
                x=[0, 1], y=[0, 1], mode="lines", line={"color": "gray", "dash": "dot"}, name="recovered = planted",
                showlegend=not panels,
            )
        ]  # fmt: skip
        for kind in (kind for kind in KINDS if any(row["kind"] == kind for row in rows)):
            some = [row for row in rows if row["kind"] == kind]
            # Where only one share can be planted, models are drawn beside one another.
            at = [
                row["planted"] + (0.008 * (row["model"] - (len(some) - 1) / 2) if kind != "both" else 0) for row in some
            ]
            traces.append(
                go.Scatter(
                    x=at, y=[row["share"] for row in some], mode="markers", name=kind, legendgroup=kind,
                    showlegend=not panels, marker={"color": ms.kinds.OKABE_ITO[KINDS.index(kind)]},
                    error_y={
                        "type": "data", "symmetric": False, "thickness": 1,
                        "array": [row["high"] - row["share"] for row in some],
                        "arrayminus": [row["share"] - row["low"] for row in some],
                    },
                )
            )  # fmt: skip
        panels[quantity] = ms.kinds.Panel(
            traces, {"title_text": "planted share"}, {"title_text": "recovered share", "range": [-0.6, 1.6]}
        )
    more = f" ({first.label}; other cells are in the table)" if first.label else ""
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Shares that were planted, and what contributions says of them{more}",
        caption=sentence(first) + " One point a model, with the interval that contributions reports for it. Of models "
        "with nothing planted the share is not defined; their intervals may leave the picture.",
    )
