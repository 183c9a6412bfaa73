"""Table, figure and verdicts on predictions of `studies.mechanism`, from the records of its cells."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import mechsub as ms
from mechsub import lab
from mechsub.lab import predictions, verdicts

Rows = list[Mapping]
Scores = dict[int, float]  # member -> value

GAINS = {  # whose gain, from which networks to which, over which players
    "the student's gain": ("initial", "student", ("W1", "W2")),
    "the teacher's gain": ("initial", "teacher", ("W1", "W2", "digits")),
    "the gap to the teacher": ("student", "teacher", ("W1", "W2", "digits")),
}
SHARED = ("W1", "W2", "aux", "digits")
RANKS = {
    "gradient of h2": "grad of h2",
    "gradient of W1": "grad of W1",
    "displacement of W1": "change of W1",
    "displacement of h2 on noise": "change of h2",
}
BY = {"whole": "as a whole", "layer": "layer by layer", "neuron": "neuron by neuron"}


class Outcome(NamedTuple):
    """One line of the table. `p` is that of a paired difference."""

    name: str
    value: object
    null: object = ""
    p: float | None = None


def outcomes(records: Rows) -> Iterator[tuple[str, Outcome]]:
    """Part and outcome, in the order of the parts."""
    makers = {"freeze": _freeze, "reinit": _reinit, "layers": _layers, "gradient": _gradient, "ablation": _ablation}
    for part, make in makers.items():
        rows = [r for r in records if r["part"] == part]
        if rows:
            yield from ((part, outcome) for outcome in make(rows))


def _scores(rows: Rows, value: str = "accuracy", **where) -> Scores:
    found = {r["member"]: r[value] for r in rows if value in r and all(r.get(k) == v for k, v in where.items())}
    if not found:
        raise ValueError(f"no records of {where} hold {value}")
    return dict(sorted(found.items()))


def _mean(scores: Scores):
    return ms.stats.student_t(list(scores.values()))


def _above(name: str, a: Scores, b: Scores) -> Outcome:
    pair = ms.stats.paired_difference(list(a.values()), list(b.values()))
    return Outcome(name, pair.interval, "0", pair.p)


def _ratio(a: Scores, b: Scores):
    return ms.stats.ratio_of_means(list(a.values()), list(b.values()))


def _less(a: Scores, b: Scores) -> Scores:
    return {member: a[member] - b[member] for member in a}


# Outcomes of the parts.


def _freeze(rows: Rows) -> Iterator[Outcome]:
    arms = [arm for arm in dict.fromkeys(r["arm"] for r in rows) if arm not in ("initial", "cross")]
    learned = {arm: _scores(rows, arm=arm) for arm in arms}
    null, start = _scores(rows, arm="cross"), _scores(rows, "kl", arm="initial")
    for arm in arms:
        yield Outcome(f"accuracy, {arm} trained", _mean(learned[arm]), _mean(null))
        yield Outcome(f"divergence left, {arm} trained", _ratio(_scores(rows, "kl", arm=arm), start), "1")
    yield Outcome(
        "divergence of cross, of that at the student's start", _ratio(_scores(rows, "kl", arm="cross"), start), "1"
    )
    yield _above("W1+W2 trained less all trained", learned["W1+W2"], learned["W1+W2+aux"])
    for arm in ("W1", "W2"):
        yield _above(f"{arm} alone trained, above the null", learned[arm], null)
    yield _above("W1 alone less W2 alone", learned["W1"], learned["W2"])


def _reinit(rows: Rows) -> Iterator[Outcome]:
    by_set = {frozenset(r["shared"]) - {""}: r["arm"] for r in rows}
    learned = {shared: _scores(rows, arm=arm) for shared, arm in by_set.items()}
    null = learned[frozenset()]
    for shared in sorted(learned, key=lambda s: (-len(s), [part not in s for part in SHARED])):
        if shared:
            yield Outcome(f"accuracy, shared {_joined(shared)}", _mean(learned[shared]), _mean(null))
    everything = frozenset(SHARED)
    yield _above("all shared, above the null", learned[everything], null)
    for part in SHARED:
        yield _above(f"all but {part} shared, above the null", learned[everything - {part}], null)
    gain = _less(learned[everything], null)
    shares = {m: ms.stats.shapley({shared: scores[m] for shared, scores in learned.items()}) for m in null}
    for part in SHARED:
        yield Outcome(f"share of sharing: {part}", _ratio({m: shares[m][part] for m in shares}, gain))


def _joined(shared: frozenset) -> str:
    return "+".join(part for part in SHARED if part in shared)


def shares(rows: Rows, gain: str, arm: str = "student") -> dict[str, Scores]:
    """What every layer adds to a gain in accuracy, Shapley's share of every seed; and their sum, the "total"."""
    low, high, players = GAINS[gain]
    value: dict[int, dict[frozenset, float]] = {}
    for some in itertools.chain.from_iterable(itertools.combinations(players, n) for n in range(len(players) + 1)):
        layers = {player: high if player in some else low for player in players}
        # The student's digit rows are the initial ones.
        digits = "initial" if layers.get("digits", "student") == "student" else layers["digits"]
        for member, accuracy in _scores(
            rows, kind="hybrid", arm=arm, W1=layers["W1"], W2=layers["W2"], digits=digits
        ).items():
            value.setdefault(member, {})[frozenset(some)] = accuracy
    found = {member: ms.stats.shapley(sets) for member, sets in value.items()}
    out = {player: {m: found[m][player] for m in found} for player in players}
    return out | {"total": {m: sum(found[m].values()) for m in found}}


def _layers(rows: Rows) -> Iterator[Outcome]:
    yield from _hybrids(rows)
    yield from _along(rows)
    yield from _changes(rows)
    yield from _similar(rows)


def _hybrids(rows: Rows) -> Iterator[Outcome]:
    start = _scores(rows, kind="hybrid", arm="student", W1="initial", W2="initial", digits="initial")
    for r in rows:
        if r["kind"] == "hybrid" and r["arm"] == "student" and r["member"] == min(start):
            made = {layer: r[layer] for layer in ("W1", "W2", "digits")}
            yield Outcome(
                f"accuracy, W1 {made['W1']}, W2 {made['W2']}, digits {made['digits']}",
                _mean(_scores(rows, kind="hybrid", arm="student", **made)),
                _mean(start),
            )
    nulls = shares(rows, "the student's gain", "cross")
    for gain in GAINS:
        parts = shares(rows, gain)
        for player, share in parts.items():
            null = _mean(nulls[player]) if gain == "the student's gain" else ""
            yield Outcome(f"{gain}: {player}", _mean(share), null)
        for player in list(parts)[:-1]:
            yield Outcome(f"share of {gain}: {player}", _ratio(parts[player], parts["total"]))


def _along(rows: Rows) -> Iterator[Outcome]:
    start = _scores(rows, kind="hybrid", arm="student", W1="initial", W2="initial", digits="initial")
    whole = _scores(rows, kind="hybrid", arm="student", W1="student", W2="student", digits="initial")
    gain = _less(whole, start)
    for by, side in itertools.product(BY, ("along", "rest")):
        name = f"along the teacher's way, {BY[by]}" if side == "along" else f"the rest, {BY[by]}"
        where = {"kind": "along", "by": by, "side": side}
        own, null = ({**where, "direction": d} for d in ("teacher", "next teacher"))
        yield Outcome(
            f"{name}: share of the squared displacement",
            _mean(_scores(rows, "share", **own)),
            _mean(_scores(rows, "share", **null)),
        )
        yield Outcome(f"{name}: accuracy", _mean(_scores(rows, **own)), _mean(_scores(rows, **null)))
        share, other = (_ratio(_less(_scores(rows, **one), start), gain) for one in (own, null))
        yield Outcome(f"{name}: share of the gain", share, other)


def _changes(rows: Rows) -> Iterator[Outcome]:
    names = {"digit logits, W1 and W2": "digit logits"}
    for of in dict.fromkeys(r["of"] for r in rows if r["kind"] == "change"):
        pairs = [
            [_mean(_scores(rows, value, kind="change", arm=arm, of=of)) for arm in ("student", "cross")]
            for value in ("cosine", "share", "explained")
        ]
        name = names.get(of, of)
        yield Outcome(f"cosine of the changes of {name}", *pairs[0])
        yield Outcome(f"part of the teacher's way gone, {name}", *pairs[1])
        yield Outcome(f"variance of the teacher's change explained, {name}", *pairs[2])
    quantities = {
        "neurons that hold half of the change of the margin": "half",
        "share of neurons that raise the margin": "helping",
        "correlation over neurons of their part with the teacher's": "correlation",
        "change of the margin": "margin_change",
        "change of the margin, teacher through the initial head": "teacher_change",
    }
    for name, value in quantities.items():
        yield Outcome(name, *(_mean(_scores(rows, value, kind="neurons", arm=arm)) for arm in ("student", "cross")))


def _similar(rows: Rows) -> Iterator[Outcome]:
    cka = {
        (r["layer"], r["arm"]): _scores(rows, "cka", kind="similarity", layer=r["layer"], arm=r["arm"])
        for r in rows
        if r["kind"] == "similarity"
    }
    names = {"cross": "chance-level student", "initial": "untrained"}
    for (layer, arm), scores in sorted(cka.items()):
        null = _mean(cka[layer, "initial"])
        yield Outcome(f"CKA of layer {layer}, {names.get(arm, arm)}", _mean(scores), null)
        if layer == 2:
            accuracy = _scores(rows, kind="similarity", layer=layer, arm=arm)
            yield Outcome(f"accuracy, {names.get(arm, arm)}", _mean(accuracy), "0.1")
    lost = {arm: _less(cka[2, "student"], cka[2, f"without {arm}"]) for arm in ("readout", "random")}
    yield Outcome("CKA of layer 2 lost without the readout directions", _mean(lost["readout"]), _mean(lost["random"]))


def _gradient(rows: Rows) -> Iterator[Outcome]:
    names = {"student": "KL", "squared error": "squared error", "no gates": "no gates", "cross": "cross"}
    last = max(r["step"] for r in rows)
    for arm, said in names.items():
        rank = _averaged(rows, "rank", kind="rank", arm=arm, of="gradient of h2")
        yield Outcome(f"rank of the gradient of h2, {said}", _mean(rank))
    yield Outcome(
        "rank of the gradient of W1, no gates",
        _mean(_averaged(rows, "rank", kind="rank", arm="no gates", of="gradient of W1")),
    )
    # Where a network without gates has nearly met its teacher, rounding (fp32) adds a direction.
    start = _averaged(rows, "rank", kind="rank", arm="no gates", of="gradient of W1", step=0)
    yield Outcome("rank of the gradient of W1 at the start, no gates", _mean(start))
    for of in dict.fromkeys(r["of"] for r in rows if r["kind"] == "rank"):
        at = {"step": last} if of.startswith("displacement") else {}  # gradients: mean over the steps
        found = {arm: _averaged(rows, "effective", kind="rank", arm=arm, of=of, **at) for arm in names}
        null = _mean(found["no gates"])
        yield Outcome(f"effective rank of the {of}", _mean(found["student"]), null)
        if of.startswith("displacement of W"):
            yield Outcome(f"effective rank of the {of}, cross", _mean(found["cross"]), null)
            teacher = _scores(rows, "effective", kind="rank", arm="teacher", of=of)
            yield Outcome(f"effective rank of the {of}, teacher", _mean(teacher))
            yield _above(f"effective rank of the {of} less that without gates", found["student"], found["no gates"])
    yield from _cosines(rows)
    for arm, null in (("no gates", "no gates, cross"), ("squared error", "cross"), ("student", "cross")):
        scores, nulls = (_scores(rows, kind="accuracy", arm=a, step=last) for a in (arm, null))
        said = {"student": "with gates"}.get(arm, arm)
        yield Outcome(f"accuracy, {said}", _mean(scores), _mean(nulls))
        yield _above(
            {"no gates": "accuracy without gates, above its null"}.get(arm, f"{said}, above the null"), scores, nulls
        )


def _cosines(rows: Rows) -> Iterator[Outcome]:
    pairs = {
        "distillation and trait gradient": "with_trait",
        "distillation gradient and the teacher's way back": "with_teacher",
        "trait gradient and the teacher's way back": "trait_with_teacher",
    }
    for (said, value), of in itertools.product(pairs.items(), ("both", "W1", "W2")):
        where = "" if of == "both" else f", {of}"
        own, null = (_averaged(rows, value, kind="cosine", arm=arm, of=of) for arm in ("student", "cross"))
        yield Outcome(f"cosine of {said}{where}", _mean(own), _mean(null))
        if value == "with_trait" and of == "both":
            yield Outcome(f"cosine of {said}, cross", _mean(null), "0")


def _averaged(rows: Rows, value: str, **where) -> Scores:
    """Mean over the steps that were looked at, of every seed."""
    chosen = [r for r in rows if value in r and all(r.get(k) == v for k, v in where.items())]
    members = sorted({r["member"] for r in chosen})
    values = {m: [r[value] for r in chosen if r["member"] == m] for m in members}
    return {m: sum(some) / len(some) for m, some in values.items()}


def _ablation(rows: Rows) -> Iterator[Outcome]:
    start = {value: _scores(rows, value, arm="initial") for value in ("accuracy", "kl")}
    gain = _less(_scores(rows, arm="none"), start["accuracy"])
    for arm in [arm for arm in dict.fromkeys(r["arm"] for r in rows) if arm != "initial"]:
        said, scores = removed(arm), _scores(rows, arm=arm)
        yield Outcome(f"accuracy {said}", _mean(scores), _mean(start["accuracy"]))
        yield Outcome(f"divergence left {said}", _ratio(_scores(rows, "kl", arm=arm), start["kl"]), "1")
        recentred = {a: _scores(rows, "recentred", arm=a) for a in (arm, "initial", "none")}
        yield Outcome(f"recentred accuracy {said}", _mean(recentred[arm]), _mean(recentred["initial"]))
        logits = _scores(rows, "logit_cosine", arm=arm)
        yield Outcome(f"cosine of the changes of recentred digit logits {said}", _mean(logits), "0")
        cosine = _scores(rows, "cosine_with_teacher", arm=arm)
        yield Outcome(f"cosine of the displacement with the teacher's {said}", _mean(cosine), "0")
        yield Outcome(f"length of the displacement {said}", _mean(_scores(rows, "length", arm=arm)))
        if arm != "none":
            name = f"{said}: share of the gain"
            yield Outcome(name, _ratio(_less(scores, start["accuracy"]), gain), "1")
            parts = [_less(recentred[a], recentred["initial"]) for a in (arm, "none")]
            yield Outcome(f"{said}: share of the recentred gain", _ratio(*parts), "1")


def removed(arm: str) -> str:
    """An arm of the ablation in words."""
    if arm == "none":
        return "with nothing removed"
    of = {
        "trait, whole": "the trait gradient, whole",
        "trait, neuron": "the trait gradient, neuron by neuron",
        "teacher, whole": "the teacher's displacement, whole",
        "teacher, neuron": "the teacher's displacement, neuron by neuron",
        "inputs": "the teacher's input directions",
    }[arm.removesuffix(", control")]
    return f"{'control of' if arm.endswith(', control') else 'without'} {of}"


# Predictions.


def verdict(interval, at_least: float, at_most: float) -> str:
    return verdicts.side("within", interval, (at_least, at_most))[0]


def _judged(value, told: Mapping | None) -> dict:
    if told is None:
        return {}
    low, high = told.get("at_least", -float("inf")), told.get("at_most", float("inf"))
    words = [f"at least {told['at_least']:g}"] if "at_least" in told else []
    words += [f"at most {told['at_most']:g}"] if "at_most" in told else []
    return {"expected": ", ".join(words), "verdict": verdict(value, low, high)}


# Table and figure.


def table(records: Rows, Config) -> list[dict]:
    told = {p["outcome"]: p for p in predictions.told()["mechanism"]}
    out = []
    for label, group in groups(records, Config):
        found = list(outcomes(group))
        adjusted = _holm([outcome.p for _, outcome in found])
        for (part, outcome), p in zip(found, adjusted, strict=True):
            row = {} if label == "all" else {"cell": label}
            row |= {"part": part, "outcome": outcome.name, "value": outcome.value, "null": outcome.null, "p (Holm)": p}
            out.append(row | _judged(outcome.value, told.get(outcome.name)))
    return out


def groups(records: Rows, Config) -> list[tuple[str, Rows]]:
    """Cells that differ in nothing but their part belong together."""
    parts = [{**r, "part": "", "of_part": r["part"]} for r in records]
    return [(label, [{**r, "part": r["of_part"]} for r in rows]) for label, rows in lab.by_cell(parts, Config)]


def _holm(p: list[float | None]) -> list[str]:
    given = [value for value in p if value is not None]
    adjusted = iter(ms.stats.holm(given) if given else [])
    return ["" if value is None else f"{next(adjusted):.0e}" for value in p]


def plot(records: Rows, Config):
    label, rows = groups(records, Config)[0]
    makers: dict[str, Callable[[Rows], list]] = {
        "freeze": _freeze_panels,
        "reinit": _reinit_panels,
        "layers": _layers_panels,
        "gradient": _gradient_panels,
        "ablation": _ablation_panels,
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


def _bars(rows: Rows, arms: Mapping[str, str], x_title: str, null: float):
    return ms.kinds.interval_panel(
        {said: list(_scores(rows, arm=arm).values()) for arm, said in arms.items()}, x_title, null
    )


def _freeze_panels(rows: Rows) -> list:
    arms = {r["arm"]: r["arm"] for r in rows if r["arm"] != "initial"}
    return [("Which parts must move?", _bars(rows, arms, "accuracy of students that train these", 0.1))]


def _reinit_panels(rows: Rows) -> list:
    sets = {frozenset(r["shared"]) - {""}: r["arm"] for r in rows}
    order = sorted(sets, key=lambda s: (-len(s), [part not in s for part in SHARED]))
    arms = {sets[shared]: _joined(shared) or "nothing" for shared in order}
    return [("Which parts must be shared?", _bars(rows, arms, "accuracy of students that share these", 0.1))]


def _layers_panels(rows: Rows) -> list:
    parts = {gain: {p: _mean(s).mean for p, s in shares(rows, gain).items()} for gain in GAINS}
    stacked = [
        (gain, player, share / found["total"])
        for gain, found in parts.items()
        for player, share in found.items()
        if player != "total"
    ]
    along = {
        f"{side}, {by}": list(_scores(rows, kind="along", direction="teacher", by=by, side=side).values())
        for by in BY
        for side in ("along", "rest")
    }
    panel = ms.kinds.shares(stacked)
    return [
        ("What share does each layer carry?", ms.kinds.Panel(panel.traces, {"title_text": "Shapley's share"}, panel.y)),
        ("What lies along the teacher's way?", ms.kinds.interval_panel(along, "accuracy with this component", 0.1)),
    ]


def _gradient_panels(rows: Rows) -> list:
    lines = {
        f"{said}, {arm}": _by_step(rows, value, arm)
        for said, value in (("with the trait gradient", "with_trait"), ("with the teacher's way back", "with_teacher"))
        for arm in ("student", "cross")
    }
    last = {"step": max(r["step"] for r in rows)}
    ranks = {}
    for of, said in RANKS.items():
        at = last if of.startswith("displacement") else {}
        for arm, more in (("student", ""), ("no gates", ", no gates")):
            scores = _averaged(rows, "effective", kind="rank", arm=arm, of=of, **at)
            ranks[said + more] = list(scores.values())
    return [
        ("Cosine of the distillation gradient", ms.kinds.line_panel(lines, "training step", "cosine")),
        ("How many directions?", ms.kinds.interval_panel(ranks, "effective rank")),
    ]


def _by_step(rows: Rows, value: str, arm: str) -> dict[int, list[float]]:
    steps = sorted({r["step"] for r in rows if r["kind"] == "cosine"})
    return {s: list(_scores(rows, value, kind="cosine", arm=arm, of="both", step=s).values()) for s in steps}


def _ablation_panels(rows: Rows) -> list:
    arms = {r["arm"]: _short(r["arm"]) for r in rows if r["arm"] != "initial"}
    start = _scores(rows, "kl", arm="initial")
    left = {said: [kl / start[m] for m, kl in _scores(rows, "kl", arm=arm).items()] for arm, said in arms.items()}
    recentred = {said: list(_scores(rows, "recentred", arm=arm).values()) for arm, said in arms.items()}
    null = _mean(_scores(rows, "recentred", arm="initial")).mean
    return [
        ("Updates without a direction", _bars(rows, arms, "accuracy", _mean(_scores(rows, arm="initial")).mean)),
        ("And without the offset of every digit", ms.kinds.interval_panel(recentred, "recentred accuracy", null)),
        ("What is left to learn of the logits", ms.kinds.interval_panel(left, "share of the divergence", 1.0)),
    ]


def _short(arm: str) -> str:
    """An arm of the ablation as a label."""
    kept = {"none": "nothing removed", "inputs": "16 inputs", "inputs, control": "16 random inputs"}
    return kept.get(arm, arm.replace("neuron, control", "random"))
