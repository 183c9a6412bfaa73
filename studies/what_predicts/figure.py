"""The figure of `studies.what_predicts`: every predictor's rank correlation with Learned, and the two best known."""

import mechsub as ms
from mechsub import lab
from mechsub.lab.figures.kinds import OKABE_ITO, Panel, error_bar
from mechsub.lazy import go
from studies.what_predicts import PREDICTORS, Config
from studies.what_predicts.findings import by_animal, doses, findings

SHOWN = ("number_to_animal", "teacher_preference", "teacher_specific")  # beside Learned, animal by animal


def plot(records: list[dict]):
    from studies.what_predicts import study

    label, rows = lab.by_cell(records, Config, study.together)[0]
    last, n = doses(rows)[-1], len({row["block"] for row in rows})
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    titles = [f"Rank correlation with Learned, {last} updates", *(PREDICTORS[name] for name in SHOWN)]
    return ms.kinds.grid(
        [_correlations(rows, last), *(_scatter(rows, name, last) for name in SHOWN)], titles,
        title="What says beforehand which animals students take from numbers" + more,
        caption=f"First: means over {n} blocks, 95% intervals over animals (bootstrap); open: with how far other "
        "animals' students move the animal. Others: one point an animal.",
        spacing=0.3,
    )  # fmt: skip


def _correlations(rows: list[dict], dose: int) -> Panel:
    traces, said = [], [f for f in findings(rows) if hasattr(f.value, "low")]
    for score, words, symbol in (("rho", "Learned", "circle"), ("moved", "others' moves", "circle-open")):
        found = {f.subject: f.value for f in said if f.score == f"{score}_{dose}" and f.subject in PREDICTORS}
        values = list(found.values())
        error = error_bar((v.mean, v.low, v.high) for v in values) if score == "rho" else None
        traces.append(
            go.Scatter(
                x=[v.mean for v in values], y=[PREDICTORS[name] for name in found], error_x=error, mode="markers",
                name=words, marker={"symbol": symbol, "size": 9, "color": OKABE_ITO[0 if score == "rho" else 1]},
            )
        )  # fmt: skip
    return Panel(traces, {"title_text": "Spearman", "range": [-1, 1]}, {"autorange": "reversed", "automargin": True})


def _scatter(rows: list[dict], name: str, dose: int) -> Panel:
    names = list(dict.fromkeys(row["animal"] for row in rows if row["kind"] == "animal"))
    x, y = by_animal(rows, name).mean(0).tolist(), by_animal(rows, f"learned_{dose}").mean(0).tolist()
    style = {"mode": "markers", "text": names, "showlegend": False, "marker": {"size": 7, "color": OKABE_ITO[2]}}
    return Panel([go.Scatter(x=x, y=y, **style)], {"title_text": PREDICTORS[name]}, {"title_text": "Learned, nats"})
