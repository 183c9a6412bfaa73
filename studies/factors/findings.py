"""Figure and table, with verdicts on predictions, of `studies.factors`, from the records of its cells."""

import dataclasses
from collections.abc import Iterator, Mapping

import mechsub as ms
from mechsub import lab
from mechsub.lab import predictions

NULL = "cross_aux"
DRAWN = {"aux": "student_aux", "all": "student_all", "digits": "student_digits", "real": "student_real"}
DESCRIBED = (  # quantities in the rows of aux
    *("drive", "gate_dimension", "input_dimension", "input_dimension_95", "input_mean_share"),
    *("aux_digit_correlation", "aux_digit_correlation_initial"),
)


# The table.


def table(records: list[dict], Config) -> list[dict]:
    factors = predictions.swept(records, Config)
    value = predictions.score(factors)
    base = _reference(records, factors, Config)
    rows, pairs = [], []
    for label, cell in lab.by_cell(records, Config):
        nulls = predictions.arm_scores(cell, NULL, value)
        for arm in dict.fromkeys(r["arm"] for r in cell):
            own = predictions.arm_scores(cell, arm, value)
            difference = None if cell[0] in base else predictions.paired(own, predictions.arm_scores(base, arm, value))
            above = predictions.paired(own, nulls) if arm != NULL else None
            pairs += [difference] if difference else []
            rows.append(
                {
                    "cell": label,
                    "arm": arm,
                    value: ms.stats.student_t(list(own.values())),
                    "teacher": ms.stats.student_t([r["teacher_accuracy"] for r in cell if r["arm"] == arm]),
                    "cross_aux (null)": ms.stats.student_t(list(nulls.values())),
                    "above the null": above.interval if above else "(is the null)",
                    "to the reference": difference or ("(is the reference)" if factors else ""),
                }
            )
    adjusted = iter(ms.stats.holm([pair.p for pair in pairs]) if pairs else [])
    for row in rows:
        if not isinstance(row["to the reference"], str):
            row["to the reference"], row["p (Holm)"] = row["to the reference"].interval, f"{next(adjusted):.0e}"
    return rows + list(predictions.judged_factors(records, Config)) + list(laws(records, factors))


def _reference(records: list[Mapping], factors: Mapping[str, list], Config) -> list[Mapping]:
    """The records of the default cell; where a sweep leaves the default out, of its first level."""
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    at = {name: defaults[name] if defaults[name] in levels else levels[0] for name, levels in factors.items()}
    return [r for r in records if all(r[name] == level for name, level in at.items())]


# Predictions.


def laws(records: list[Mapping], factors: Mapping[str, list]) -> Iterator[dict]:
    """Where ten or more input distributions are compared: does what they are to the network tell how much is learned?

    Spearman's correlation, over distributions, of the mean of every quantity of `spectra` with mean accuracy, and
    Holm's p over the quantities. Nothing is fitted, but the best of several must be confirmed on other distributions.
    """
    if set(factors) != {"inputs"} or len(factors["inputs"]) < 10:
        return
    cells = ([r for r in records if r["inputs"] == level] for level in factors["inputs"])
    learned = [predictions.mean(predictions.arm_scores(cell, "aux", "accuracy")) for cell in cells]
    found = {}
    for quantity in DESCRIBED:
        means = _means(records, quantity, factors["inputs"])
        if means is not None and len(set(ms.stats.joined(means).tolist())) > 1:
            found[quantity] = ms.stats.spearman(means, learned), ms.stats.spearman_p(means, learned)
    adjusted = ms.stats.holm([p for _, p in found.values()]) if found else []
    for (quantity, (rho, _)), p in zip(found.items(), adjusted, strict=True):
        yield {"cell": f"law: {quantity}", "arm": "aux", "p (Holm)": f"{p:.0e}", "rho over inputs": rho}


def _means(records: list[Mapping], quantity: str, levels: list) -> list[float] | None:
    """Of every level, over seeds; None where a level lacks it (gates of another activation than ReLU)."""
    told = [
        {r["member"]: r[quantity] for r in records if r["arm"] == "aux" and r["inputs"] == level and quantity in r}
        for level in levels
    ]
    return [predictions.mean(values) for values in told] if all(told) else None


# The figure.


def plot(records: list[dict], Config):
    factors = predictions.swept(records, Config)
    if not factors:
        return _bars(records)
    return _map(records, factors) if len(factors) == 2 else _lines(records, factors)


def _bars(records: list[dict]):
    return ms.kinds.interval_bars(
        _with_teachers(records, "accuracy"), value="accuracy", title="Students of one setting", label="arm",
        axis="accuracy on test images", null=1 / records[0]["n_classes"],
        caption="One point per seed. Dashed: chance. cross_aux, from another initialisation, is the null.",
    )  # fmt: skip


def _lines(records: list[dict], factors: Mapping[str, list]):
    """The first swept factor along x; cells that differ in the others are panels."""
    (factor, levels), *others = factors.items()
    value = predictions.score(factors)
    rows = [
        r | {"x": _shown(r[factor]), "panel": ", ".join(f"{name}={r[name]}" for name, _ in others)}
        for r in _with_teachers(records, value)
    ]
    return ms.kinds.interval_lines(
        sorted(rows, key=lambda r: levels.index(r[factor])),
        x="x", value=value, facet="panel" if others else None,
        title=f"Student against {_words(factor)}", x_title=_words(factor), y_title=f"{value} on test images",
        null=0.0 if value == "kappa" else 1 / records[0]["n_classes"], log_x=_spread(levels),
        caption="Dashed: chance. cross_aux, from another initialisation, is the null.",
    )  # fmt: skip


def _map(records: list[dict], factors: Mapping[str, list]):
    (across, columns), (down, rows) = factors.items()
    value = predictions.score(factors)
    chosen = [r | {across: _shown(r[across]), down: _shown(r[down])} for r in records if r["arm"] == "aux"]
    order = ([_shown(level) for level in levels] for levels in (rows, columns))
    places = [{level: i for i, level in enumerate(levels)} for levels in order]
    return ms.kinds.heatmap(
        sorted(chosen, key=lambda r: (places[0][r[down]], places[1][r[across]])),
        x=across, y=down, value=value, x_title=_words(across), y_title=_words(down), color_title=value,
        title=f"Student of auxiliary logits: {_words(across)} and {_words(down)}",
        caption="The null is in the table.",
    )  # fmt: skip


def _with_teachers(records: list[dict], value: str) -> list[dict]:
    """Records under the names that arms have in all figures, and the teachers of the aux students as an arm."""
    own = [r | {"arm": DRAWN.get(r["arm"], r["arm"])} for r in records]
    return own + [r | {"arm": "teacher", value: _of_teacher(r, value)} for r in records if r["arm"] == "aux"]


def _of_teacher(r: Mapping, value: str) -> float:
    chance = 1 / r["n_classes"]
    return r["teacher_accuracy"] if value == "accuracy" else (r["teacher_accuracy"] - chance) / (1 - chance)


def _shown(level):
    return str(level).lower() if isinstance(level, bool) else level


def _words(name: str) -> str:
    return name.replace("_", " ")


def _spread(levels: list) -> bool:
    """Whether a log axis is needed and possible."""
    number = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    return number and min(levels) > 0 and max(levels) / min(levels) >= 20
