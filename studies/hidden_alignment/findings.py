"""Findings, table and figure of `studies.hidden_alignment`, from the records of its cells."""

from collections.abc import Iterator

import mechsub as ms
from mechsub import lab
from mechsub.lab.findings import Finding, all_findings, cells, holm, mean, rows
from mechsub.measures import distances
from studies.hidden_alignment import MAIN, Config, language_findings

FEWEST = 10  # seeds that a rank correlation is of


def findings(cell: list[dict], metric: tuple[str, ...] = MAIN) -> list[Finding]:
    """Of these metrics; p is by Holm over them."""
    return list((_of_toy if cell[0]["model"] == "toy" else language_findings.findings)(cell, metric))


def table(records: list[dict], metric: tuple[str, ...] = MAIN) -> list[dict]:
    return rows(all_findings(cells(records, Config, lambda cell: findings(cell, metric))))


def _of_toy(cell: list[dict], metric: tuple[str, ...]) -> Iterator[Finding]:
    shown = _shown(cell, metric)
    ranks, plain = (iter(holm(_rank(cell, *place, score) for place in shown)) for score in ("accuracy", "recentred"))
    for name, on, layer in shown:
        final = max(r["step"] for r in cell)
        found = _values(cell, name, on, layer)
        trained = {arm: pairs for (arm, step), pairs in found.items() if step == final}
        arms = {"reference": found[place]} if (place := ("reference", 0)) in found else {}
        subject, label = _named(name, on, layer)
        for arm, pairs in (arms | trained).items():
            yield mean(f"{subject}/{arm}", label, dict(enumerate(value for value, _ in pairs)), unit="seeds")
        yield next(ranks)
        yield next(plain)
        if len(trained["student_aux"]) >= FEWEST:
            yield Finding(
                f"{subject}/rho_over_all_students", label, _pooled(name, list(trained.values())), unit="seeds"
            )


def _named(name: str, on: str, layer: int) -> tuple[str, str]:
    return f"{name}_{on}_layer_{layer + 1}", f"{name} on {on}, layer {layer + 1}"


def _rank(cell: list[dict], name: str, on: str, layer: int, score: str) -> Finding:
    """Rank correlation over seeds of how alike a metric finds two networks with accuracy, raw or recentred."""
    found = _values(cell, name, on, layer, score)
    alike, right = _alike(name, found["student_aux", max(r["step"] for r in cell)])
    subject, label = _named(name, on, layer)
    key = f"{subject}/rho_over_seeds{'' if score == 'accuracy' else f'_{score}'}"
    if len(right) < FEWEST:
        return Finding(key, label, "-")
    value, p = ms.stats.spearman(alike, right), ms.stats.spearman_p(alike, right)
    return Finding(key, label, value, 0.0, p, "seeds")


def _alike(name: str, pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    values, right = zip(*pairs, strict=True)
    return [distances.sign(name) * value for value in values], list(right)


def _pooled(name: str, arms: list[list[tuple[float, float]]]):
    """The same over the students of all arms; those of one seed are drawn together."""
    seeds = [seed for arm in arms for seed in range(len(arm))]
    return ms.stats.clustered_spearman(*_alike(name, [pair for arm in arms for pair in arm]), seeds)


def _values(
    cell: list[dict], name: str, on: str, layer: int, score: str = "accuracy"
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """(arm, step) -> the seeds' pairs of metric and score."""
    out: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for r in cell:
        if name in r and (r["on"], r["layer"]) == (on, layer):
            out.setdefault((r["arm"], r["step"]), []).append((r[name], r[score]))
    return out


def _shown(cell: list[dict], metric: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """(metric, what it was measured on, layer) in the order asked for."""
    places = sorted({(r["on"], r["layer"]) for r in cell})
    return [
        (n, on, layer)
        for n in metric
        for on, layer in places
        if any(n in r and (r["on"], r["layer"]) == (on, layer) for r in cell)
    ]


def plot(records: list[dict], metric: tuple[str, ...] = MAIN):
    named = lab.by_cell(records, Config)
    label, first = named[0]
    if first[0]["model"] == "toy":
        return _toy_plot([(label, cell) for label, cell in named if cell[0]["model"] == "toy"], metric)
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return language_findings.plot(first, metric, more)


def _toy_plot(cells: list[tuple[str, list[dict]]], metric: tuple[str, ...]):
    rows = []
    for label, cell in cells:
        last = max(r["step"] for r in cell)
        for layer, name, on in _panels(cell, metric):
            facet = f"{name.replace('_', ' ')}, layer {layer + 1}, {on}" + (f" ({label})" if len(cells) > 1 else "")
            for (arm, step), pairs in _values(cell, name, on, layer).items():
                for line, at in _drawn(arm, step, cell, last):
                    rows += [{"facet": facet, "arm": line, "step": at, "value": value} for value, _ in pairs]
    return ms.kinds.interval_lines(
        rows,
        x="step",
        value="value",
        facet="facet",
        title="Hidden layers of the student against its teacher's, through distillation",
        x_title="training step",
        y_title="similarity, or accuracy when stitched",
        caption="Nulls: the untrained reference (level line) and the students of another initialisation (cross).",
    )


def _drawn(arm: str, step: int, cell: list[dict], last: int) -> list[tuple[str, int]]:
    """Lines and steps that a value is drawn at: a reference is a level line, and the start of its students."""
    if not arm.endswith("reference"):
        return [(arm, step)]
    prefix = "cross_" if arm.startswith("cross") else "student_"
    starts = sorted({(r["arm"], 0) for r in cell if r["arm"].startswith(prefix) and r["step"]})
    return [(arm, 0), (arm, last), *starts]


def _panels(cell: list[dict], metric: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """(layer, metric, on), layer by layer; the default figure leaves noise inputs to the table."""
    shown = [(layer, name, on) for name, on, layer in _shown(cell, metric) if on != "noise" or metric != MAIN]
    return sorted(shown, key=lambda panel: panel[0])
