"""The figure of `studies.mechanism`, part by part."""

from collections.abc import Callable, Mapping

import mechsub as ms
from mechsub import lab
from studies.mechanism.findings import BY, GAINS, SHARED, WORDS, Rows, averaged, joined, known, scores_of, shares

RANKS = {
    "gradient of h2": "grad of h2",
    "gradient of W1": "grad of W1",
    "displacement of W1": "change of W1",
    "displacement of h2 on noise": "change of h2",
}


def plot(records: Rows):
    from studies.mechanism import Config, study

    label, rows = lab.by_cell(records, Config, study.together)[0]
    makers: dict[str, Callable[[Rows], list]] = {
        "freeze": _freeze_panels,
        "reinit": _reinit_panels,
        "layers": _layers_panels,
        "gradient": _gradient_panels,
        "ablation": _ablation_panels,
        "controls": _ablation_panels,
    }
    made = []
    for part, make in makers.items():
        own = [r for r in rows if r["part"] == part]
        made += make(own) if own else []
    n = len({r["member"] for r in rows})
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return ms.kinds.grid(
        [panel for _, panel in made],
        [title for title, _ in made],
        title="How auxiliary logits of noise teach digits, part by part" + more,
        caption=f"Points are seeds; means with 95% Student-t intervals over {n} seeds. Dashed: chance, or the mean of "
        "the null. All values, nulls and predictions are in the table.",
    )


def _bars(rows: Rows, arms: Mapping[str, str], title: str, whose: str, null: float | None = None) -> list:
    """A panel of every accuracy; without a null, that of the initial network."""
    made = []
    for score in reversed(known(rows)):
        values = {said: list(scores_of(rows, score, arm=arm).values()) for arm, said in arms.items()}
        dashed = _mean(scores_of(rows, score, arm="initial")) if null is None else null
        more = "" if score == "recentred" else ", raw"
        made.append((f"{title}{more}", ms.kinds.interval_panel(values, f"{WORDS[score]}accuracy{whose}", dashed)))
    return made


def _freeze_panels(rows: Rows) -> list:
    arms = {r["arm"]: r["arm"] for r in rows if r["arm"] != "initial"}
    return _bars(rows, arms, "Which parts must move?", " of students that train these", 0.1)


def _reinit_panels(rows: Rows) -> list:
    sets = {frozenset(r["shared"]) - {""}: r["arm"] for r in rows}
    order = sorted(sets, key=lambda s: (-len(s), [part not in s for part in SHARED]))
    arms = {sets[shared]: joined(shared) or "nothing" for shared in order}
    return _bars(rows, arms, "Which parts must be shared?", " of students that share these", 0.1)


def _layers_panels(rows: Rows) -> list:
    score = known(rows)[-1]
    parts = {gain: {p: _mean(s) for p, s in shares(rows, gain, score=score).items()} for gain in GAINS}
    stacked = [
        (gain, player, share / found["total"])
        for gain, found in parts.items()
        for player, share in found.items()
        if player != "total"
    ]
    along = {
        f"{side}, {by}": list(scores_of(rows, score, kind="along", direction="teacher", by=by, side=side).values())
        for by in BY
        for side in ("along", "rest")
    }
    panel = ms.kinds.shares(stacked)
    axis = {"title_text": f"Shapley's share of the {WORDS[score]}gain"}
    return [
        ("What share does each layer carry?", ms.kinds.Panel(panel.traces, axis, panel.y)),
        (
            "What lies along the teacher's displacement?",
            ms.kinds.interval_panel(along, f"{WORDS[score]}accuracy with this component", 0.1),
        ),
    ]


def _gradient_panels(rows: Rows) -> list:
    lines = {
        f"{said}, {arm}": _by_step(rows, value, arm)
        for said, value in (
            ("with the trait gradient", "with_trait"),
            ("with the teacher's displacement reversed", "with_teacher"),
        )
        for arm in ("student", "cross")
    }
    last = {"step": max(r["step"] for r in rows)}
    ranks = {}
    for of, said in RANKS.items():
        at = last if of.startswith("displacement") else {}
        for arm, more in (("student", ""), ("no gates", ", no gates")):
            scores = averaged(rows, "effective", kind="rank", arm=arm, of=of, **at)
            ranks[said + more] = list(scores.values())
    return [
        ("Cosine of the distillation gradient", ms.kinds.line_panel(lines, "training step", "cosine")),
        ("How many directions?", ms.kinds.interval_panel(ranks, "effective rank")),
    ]


def _by_step(rows: Rows, value: str, arm: str) -> dict[int, list[float]]:
    steps = sorted({r["step"] for r in rows if r["kind"] == "cosine"})
    return {s: list(scores_of(rows, value, kind="cosine", arm=arm, of="both", step=s).values()) for s in steps}


def _ablation_panels(rows: Rows) -> list:
    arms = {r["arm"]: _short(r["arm"]) for r in rows if r["arm"] != "initial"}
    start = scores_of(rows, "kl", arm="initial")
    left = {said: [kl / start[m] for m, kl in scores_of(rows, "kl", arm=arm).items()] for arm, said in arms.items()}
    return [
        *_bars(rows, arms, "Updates without a direction", ""),
        ("What is left to learn of the logits", ms.kinds.interval_panel(left, "share of the divergence", 1.0)),
    ]


def _short(arm: str) -> str:
    """An arm of the ablation as a label."""
    kept = {
        "none": "nothing removed",
        "inputs": "16 inputs",
        "inputs, control": "16 random inputs",
        "own inputs": "16 inputs of its own",
    }
    return kept.get(arm, arm.replace("neuron, control", "random"))


def _mean(scores: Mapping[int, float]) -> float:
    return ms.stats.student_t(list(scores.values())).mean
