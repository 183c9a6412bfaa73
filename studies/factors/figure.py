"""The figure of `studies.factors`: students of one setting, against a factor, or over two of them."""

from collections.abc import Mapping

import mechsub as ms
from mechsub.lab.findings import Cell, cells, points
from studies.factors import ARMS, Config
from studies.factors.findings import KAPPAS, findings, scores_of, swept

SAID = {"recentred": "recentred accuracy", "recentred_kappa": "recentred kappa"}
SAID_OF = {
    "teacher": "teacher",
    "aux": "student of auxiliary logits",
    "cross_aux": "student of another start (null)",
    "all": "student of all logits",
    "digits": "student of digit logits",
    "real": "student of auxiliary logits, on training images",
}
WORDS = {  # of factors whose names are no words
    "d_model": "neurons of a hidden layer",
    "n_layers": "hidden layers",
    "n_aux": "auxiliary logits",
    "n_classes": "classes",
    "init": "initialisation",
    "signal": "share of image in the inputs",
    "n_samples": "inputs",
    "target_noise": "noise on the teacher's logits, standard deviation",
    "perturb_where": "what of the start is perturbed",
    "perturb_direction": "direction of the perturbation",
    "lr": "learning rate",
    "batch_size": "inputs a step",
    "optimizer": "optimiser",
}
DRAWN = {"aux": "student_aux", "all": "student_all", "digits": "student_digits", "real": "student_real"}


def plot(records: list[dict]):
    found = cells(records, Config, findings)
    factors = swept(found)
    drawn = _drawn(found, scores_of(factors)[0])
    if not factors:
        return _bars(drawn)
    return _map(drawn, factors) if len(factors) == 2 else _lines(drawn, factors)


def _drawn(found: list[Cell], score: str) -> list[dict]:
    """A row for every student and teacher, under the names that arms have in all figures."""
    return [
        {**cell.options, **point, "arm": DRAWN.get(point["arm"], point["arm"]), "said": SAID_OF[point["arm"]]}
        for cell in found
        for point in points(cell.findings, score)
        if point["arm"] in (*ARMS, "teacher")
    ]


def _bars(drawn: list[dict]):
    return ms.kinds.interval_bars(
        drawn, value="recentred", title="Students of one setting", label="said",
        axis="recentred accuracy on test images", null=1 / drawn[0]["n_classes"],
        caption="One point per seed. Dashed: chance.",
    )  # fmt: skip


def _lines(drawn: list[dict], factors: Mapping[str, list]):
    """The first swept factor along x; cells that differ in the others are panels."""
    (factor, levels), *others = factors.items()
    value = scores_of(factors)[0]
    rows = [r | {"x": _shown(r[factor]), "panel": ", ".join(f"{name}={r[name]}" for name, _ in others)} for r in drawn]
    return ms.kinds.interval_lines(
        sorted(rows, key=lambda r: levels.index(r[factor])),
        x="x", value=value, arm="said", facet="panel" if others else None,
        title=f"Student against {_words(factor)}", x_title=_words(factor), y_title=f"{SAID[value]} on test images",
        null=0.0 if value in KAPPAS else 1 / drawn[0]["n_classes"], log_x=_spread(levels),
        caption="Dashed: chance.",
    )  # fmt: skip


def _map(drawn: list[dict], factors: Mapping[str, list]):
    (across, columns), (down, rows) = factors.items()
    value = scores_of(factors)[0]
    chosen = [r | {across: _shown(r[across]), down: _shown(r[down])} for r in drawn if r["arm"] == DRAWN["aux"]]
    order = ([_shown(level) for level in levels] for levels in (rows, columns))
    places = [{level: i for i, level in enumerate(levels)} for levels in order]
    return ms.kinds.heatmap(
        sorted(chosen, key=lambda r: (places[0][r[down]], places[1][r[across]])),
        x=across, y=down, value=value, x_title=_words(across), y_title=_words(down), color_title=SAID[value],
        title=f"Student of auxiliary logits: {_words(across)} and {_words(down)}",
        caption="The null is in the table.",
    )  # fmt: skip


def _shown(level):
    return str(level).lower() if isinstance(level, bool) else level


def _words(name: str) -> str:
    return WORDS.get(name, name.replace("_", " "))


def _spread(levels: list) -> bool:
    """Whether a log axis is needed and possible."""
    number = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    return number and min(levels) > 0 and max(levels) / min(levels) >= 20
