"""What `studies.mechanism` says of its cells, which are the parts of one."""

import itertools
from collections.abc import Iterator

import mechsub as ms
from mechsub.lab.findings import Finding, also, holm, less, mean

Rows = list[dict]
Scores = dict[int, float]  # member -> value

GAINS = {  # whose gain, from which networks to which, over which players
    "the student's gain": ("initial", "student", ("W1", "W2")),
    "the teacher's gain": ("initial", "teacher", ("W1", "W2", "digits")),
    "the gap to the teacher": ("student", "teacher", ("W1", "W2", "digits")),
}
SHARED = ("W1", "W2", "aux", "digits")
WORDS = {"accuracy": "", "recentred": "recentred "}  # before "accuracy" and "gain"
BY = {"whole": "as a whole", "layer": "layer by layer", "neuron": "neuron by neuron"}
REMOVED = {
    "none": "nothing removed",
    "trait, whole": "the trait gradient, whole",
    "trait, neuron": "the trait gradient, neuron by neuron",
    "teacher, whole": "the teacher's displacement, whole",
    "teacher, neuron": "the teacher's displacement, neuron by neuron",
    "inputs": "the teacher's input directions",
    "fixed direction": "as much along one random direction",
    "own rest": "the rest of its own displacement, neuron by neuron",
    "next teacher": "the next seed's teacher's displacement, neuron by neuron",
    "own inputs": "its own input directions beside the teacher's",
}


def findings(cell: Rows) -> list[Finding]:
    """Of the parts that are there, in their order; p is adjusted over all of them."""
    makers = {
        "freeze": _freeze, "reinit": _reinit, "layers": _layers, "gradient": _gradient, "ablation": _ablation,
        "controls": _controls,
    }  # fmt: skip
    parts = {part: [row for row in cell if row["part"] == part] for part in makers}
    return holm(found for part, make in makers.items() if parts[part] for found in make(parts[part]))


def scores_of(rows: Rows, value: str = "accuracy", **where) -> Scores:
    """Member -> value, of the rows that have these."""
    found = {r["member"]: r[value] for r in rows if value in r and all(r.get(k) == v for k, v in where.items())}
    if not found:
        raise ValueError(f"no records of {where} hold {value}")
    return dict(sorted(found.items()))


def _said(key: str, label: str, scores: Scores, null: Scores | float | None = None) -> Finding:
    """A mean over seeds, with its null."""
    beside = ms.stats.student_t(list(null.values())) if isinstance(null, dict) else null
    return mean(_key(key), label, scores, unit="seeds", null=beside)


def _above(key: str, label: str, a: Scores, b: Scores) -> Finding:
    """A difference, paired by seed, under the key `a-b/score`."""
    subjects, score = key.split("/")
    own, other = subjects.split("-")
    return less(_said(f"{own}/{score}", "", a), _said(f"{other}/{score}", "", b), label=label)


def _share(key: str, label: str, a: Scores, b: Scores, null: object = None) -> Finding:
    """A ratio of means over seeds, which has no value of each seed."""
    return Finding(_key(key), label, _ratio(a, b), null, unit="seeds")


def _ratio(a: Scores, b: Scores):
    return ms.stats.ratio_of_means(list(a.values()), list(b.values()))


def _key(text: str) -> str:
    return text.replace(", ", "_").replace(" ", "_")


def _less(a: Scores, b: Scores) -> Scores:
    return {member: a[member] - b[member] for member in a}


def known(rows: Rows) -> list[str]:
    """The accuracies that are stored; raw alone by version 1."""
    return [score for score in WORDS if any(score in row for row in rows)]


# Which parts must move, and which must be shared.


def _freeze(rows: Rows) -> Iterator[Finding]:
    arms = [arm for arm in dict.fromkeys(r["arm"] for r in rows) if arm not in ("initial", "cross")]
    start = scores_of(rows, "kl", arm="initial")
    for arm in arms:
        left = scores_of(rows, "kl", arm=arm)
        yield _share(f"{arm} trained/divergence_left", f"divergence left, {arm} trained", left, start, 1)
    label = "divergence of cross, of that at the student's start"
    yield _share("cross/divergence_left", label, scores_of(rows, "kl", arm="cross"), start, 1)
    for score in known(rows):
        yield from _trained_alone(score, {arm: scores_of(rows, score, arm=arm) for arm in (*arms, "cross")})


def _trained_alone(score: str, learned: dict[str, Scores]) -> Iterator[Finding]:
    word, null = WORDS[score], learned["cross"]
    for arm in learned:
        if arm != "cross":
            yield _said(f"{arm} trained/{score}", f"{word}accuracy, {arm} trained", learned[arm], null)
    both, every = "W1+W2_trained", "W1+W2+aux_trained"
    label = f"{word}W1+W2 trained less all trained"
    yield _above(f"{both}-{every}/{score}", label, learned["W1+W2"], learned["W1+W2+aux"])
    for arm in ("W1", "W2"):
        yield _above(f"{arm}_trained-cross/{score}", f"{word}{arm} alone trained, above the null", learned[arm], null)
    yield _above(f"W1_trained-W2_trained/{score}", f"{word}W1 alone less W2 alone", learned["W1"], learned["W2"])


def _reinit(rows: Rows) -> Iterator[Finding]:
    by_set = {frozenset(r["shared"]) - {""}: r["arm"] for r in rows}
    for score in known(rows):
        yield from _shared(score, {shared: scores_of(rows, score, arm=arm) for shared, arm in by_set.items()})


def _shared(score: str, learned: dict[frozenset, Scores]) -> Iterator[Finding]:
    word, null = WORDS[score], learned[frozenset()]
    for shared in sorted(learned, key=lambda s: (-len(s), [part not in s for part in SHARED])):
        if shared:
            name = joined(shared)
            yield _said(f"{name} shared/{score}", f"{word}accuracy, shared {name}", learned[shared], null)
    everything = frozenset(SHARED)
    yield _above(f"all_shared-nothing/{score}", f"{word}all shared, above the null", learned[everything], null)
    for part in SHARED:
        key, label = f"all_but_{part}_shared-nothing/{score}", f"{word}all but {part} shared, above the null"
        yield _above(key, label, learned[everything - {part}], null)
    gain = _less(learned[everything], null)
    parts = {m: ms.stats.shapley({shared: scores[m] for shared, scores in learned.items()}) for m in null}
    for part in SHARED:
        own = {m: parts[m][part] for m in parts}
        label = f"{word}share of sharing: {part}"
        yield _share(f"{part}/{also(score, 'share_of_sharing')}", label, own, gain)


def joined(shared: frozenset) -> str:
    return "+".join(part for part in SHARED if part in shared)


# What a trained student is made of.


def shares(rows: Rows, gain: str, arm: str = "student", score: str = "accuracy") -> dict[str, Scores]:
    """What every layer adds to a gain in accuracy, Shapley's share of every seed; and their sum, the "total"."""
    low, high, players = GAINS[gain]
    value: dict[int, dict[frozenset, float]] = {}
    for some in itertools.chain.from_iterable(itertools.combinations(players, n) for n in range(len(players) + 1)):
        layers = {player: high if player in some else low for player in players}
        # The student's digit rows are the initial ones.
        digits = "initial" if layers.get("digits", "student") == "student" else layers["digits"]
        where = {"kind": "hybrid", "arm": arm, "W1": layers["W1"], "W2": layers["W2"], "digits": digits}
        for member, accuracy in scores_of(rows, score, **where).items():
            value.setdefault(member, {})[frozenset(some)] = accuracy
    found = {member: ms.stats.shapley(sets) for member, sets in value.items()}
    out = {player: {m: found[m][player] for m in found} for player in players}
    return out | {"total": {m: sum(found[m].values()) for m in found}}


def _layers(rows: Rows) -> Iterator[Finding]:
    yield from _hybrids(rows)
    yield from _along(rows)
    yield from _changes(rows)
    yield from _similar(rows)


def _hybrids(rows: Rows) -> Iterator[Finding]:
    for score in known(rows):
        yield from _made_of(rows, score)
        yield from _gains(rows, score)


def _made_of(rows: Rows, score: str) -> Iterator[Finding]:
    start = scores_of(rows, score, kind="hybrid", arm="student", W1="initial", W2="initial", digits="initial")
    for r in rows:
        if r["kind"] == "hybrid" and r["arm"] == "student" and r["member"] == min(start):
            made = {layer: r[layer] for layer in ("W1", "W2", "digits")}
            own = scores_of(rows, score, kind="hybrid", arm="student", **made)
            label = f"{WORDS[score]}accuracy, W1 {made['W1']}, W2 {made['W2']}, digits {made['digits']}"
            yield _said(f"W1={made['W1']},W2={made['W2']},digits={made['digits']}/{score}", label, own, start)


def _gains(rows: Rows, score: str) -> Iterator[Finding]:
    nulls = shares(rows, "the student's gain", "cross", score)
    for gain in GAINS:
        parts, subject = shares(rows, gain, score=score), gain.removeprefix("the ").replace("'s", "")
        said = f"{gain}, recentred" if score == "recentred" else gain
        for player, share in parts.items():
            null = nulls[player] if gain == "the student's gain" else None
            yield _said(f"{subject}/{also(score, player)}", f"{said}: {player}", share, null)
        for player in list(parts)[:-1]:
            label = f"share of {said}: {player}"
            yield _share(f"{subject}/{also(score, f'share_of_{player}')}", label, parts[player], parts["total"])


def _along(rows: Rows) -> Iterator[Finding]:
    for by, side in itertools.product(BY, ("along", "rest")):
        name = f"along the teacher's displacement, {BY[by]}" if side == "along" else f"the rest, {BY[by]}"
        share, other = (scores_of(rows, "share", **one) for one in _directions(by, side))
        yield _said(f"{side} {by}/share", f"{name}: share of the squared displacement", share, other)
        for score in known(rows):
            yield from _gained(rows, score, f"{side} {by}", name, _directions(by, side))


def _directions(by: str, side: str) -> list[dict]:
    return [{"kind": "along", "by": by, "side": side, "direction": d} for d in ("teacher", "next teacher")]


def _gained(rows: Rows, score: str, subject: str, name: str, directions: list[dict]) -> Iterator[Finding]:
    initial, student = (
        scores_of(rows, score, kind="hybrid", arm="student", W1=layers, W2=layers, digits="initial")
        for layers in ("initial", "student")
    )
    gain, word = _less(student, initial), WORDS[score]
    learned, beside = (scores_of(rows, score, **one) for one in directions)
    yield _said(f"{subject}/{score}", f"{name}: {word}accuracy", learned, beside)
    gains = _less(learned, initial), gain, _ratio(_less(beside, initial), gain)
    yield _share(f"{subject}/share_of_{word.replace(' ', '_')}gain", f"{name}: share of the {word}gain", *gains)


def _changes(rows: Rows) -> Iterator[Finding]:
    for of in dict.fromkeys(r["of"] for r in rows if r["kind"] == "change"):
        name = {"digit logits, W1 and W2": "digit logits"}.get(of, of)
        for value, label in (
            ("cosine", f"cosine of the changes of {name}"),
            ("share", f"part of the teacher's displacement gone, {name}"),
            ("explained", f"variance of the teacher's change explained, {name}"),
        ):
            pair = (scores_of(rows, value, kind="change", arm=arm, of=of) for arm in ("student", "cross"))
            yield _said(f"{name}/{value}", label, *pair)
    quantities = {
        "half": "neurons that hold half of the change of the margin",
        "helping": "share of neurons that raise the margin",
        "correlation": "correlation over neurons of their part with the teacher's",
        "margin_change": "change of the margin",
        "teacher_change": "change of the margin, teacher through the initial head",
    }
    for value, label in quantities.items():
        pair = (scores_of(rows, value, kind="neurons", arm=arm) for arm in ("student", "cross"))
        yield _said(f"neurons/{value}", label, *pair)


def _similar(rows: Rows) -> Iterator[Finding]:
    cka = {
        (r["layer"], r["arm"]): scores_of(rows, "cka", kind="similarity", layer=r["layer"], arm=r["arm"])
        for r in rows
        if r["kind"] == "similarity"
    }
    names = {"cross": "chance-level student", "initial": "untrained"}
    for (layer, arm), scores in sorted(cka.items()):
        said = names.get(arm, arm)
        yield _said(f"{arm}/cka_{layer}", f"CKA of layer {layer}, {said}", scores, cka[layer, "initial"])
        if layer == 2:
            for score in known(rows):
                own = scores_of(rows, score, kind="similarity", layer=layer, arm=arm)
                yield _said(f"{arm}/{score}_by_layer_2", f"{WORDS[score]}accuracy, {said}", own, 0.1)
    lost = (_less(cka[2, "student"], cka[2, f"without {arm}"]) for arm in ("readout", "random"))
    yield _said("readout/cka_lost", "CKA of layer 2 lost without the readout directions", *lost)


# Gradients on the way.


def _gradient(rows: Rows) -> Iterator[Finding]:
    names = {"student": "KL", "squared error": "squared error", "no gates": "no gates", "cross": "cross"}
    last = max(r["step"] for r in rows)
    for arm, said in names.items():
        rank = averaged(rows, "rank", kind="rank", arm=arm, of="gradient of h2")
        yield _said(f"{arm}/rank_of_gradient_of_h2", f"rank of the gradient of h2, {said}", rank)
    w1 = {"kind": "rank", "arm": "no gates", "of": "gradient of W1"}
    label, rank = "rank of the gradient of W1, no gates (2, and what fp32 rounds)", averaged(rows, "rank", **w1)
    yield _said("no gates/rank_of_gradient_of_W1", label, rank)
    # Where a network without gates has nearly met its teacher, rounding (fp32) adds a direction.
    label, rank = "rank of the gradient of W1 at the start, no gates", averaged(rows, "rank", **w1, step=0)
    yield _said("no gates/first_rank_of_gradient_of_W1", label, rank)
    for of in dict.fromkeys(r["of"] for r in rows if r["kind"] == "rank"):
        at = {"step": last} if of.startswith("displacement") else {}  # gradients: mean over the steps
        found = {arm: averaged(rows, "effective", kind="rank", arm=arm, of=of, **at) for arm in names}
        null, score, label = found["no gates"], f"effective_rank_of_{of}", f"effective rank of the {of}"
        yield _said(f"student/{score}", label, found["student"], null)
        if of.startswith("displacement of W"):
            yield _said(f"cross/{score}", f"{label}, cross", found["cross"], null)
            teacher = scores_of(rows, "effective", kind="rank", arm="teacher", of=of)
            yield _said(f"teacher/{score}", f"{label}, teacher", teacher)
            yield _above(f"student-no gates/{score}", f"{label} less that without gates", found["student"], null)
    yield from _cosines(rows)
    for arm, other, said, above in (
        ("no gates", "no gates, cross", "no gates", "accuracy without gates, above its null"),
        ("squared error", "cross", "squared error", "squared error, above the null"),
        ("student", "cross", "with gates", "with gates, above the null"),
    ):
        for score in known(rows):
            scores, nulls = (scores_of(rows, score, kind="accuracy", arm=a, step=last) for a in (arm, other))
            yield _said(f"{arm}/{score}", f"{WORDS[score]}accuracy, {said}", scores, nulls)
            yield _above(f"{arm}-{other}/{score}", f"{WORDS[score]}{above}", scores, nulls)


def _cosines(rows: Rows) -> Iterator[Finding]:
    pairs = {
        "with_trait": "distillation and trait gradient",
        "with_teacher": "distillation gradient and the teacher's displacement reversed",
        "trait_with_teacher": "trait gradient and the teacher's displacement reversed",
    }
    for (value, said), of in itertools.product(pairs.items(), ("both", "W1", "W2")):
        where, more = ("", "") if of == "both" else (f", {of}", f"_{of}")
        own, null = (averaged(rows, value, kind="cosine", arm=arm, of=of) for arm in ("student", "cross"))
        yield _said(f"student/cosine_{value}{more}", f"cosine of {said}{where}", own, null)
        if value == "with_trait" and of == "both":
            yield _said(f"cross/cosine_{value}", f"cosine of {said}, cross", null, 0)


def averaged(rows: Rows, value: str, **where) -> Scores:
    """Mean over the steps that were looked at, of every seed."""
    chosen = [r for r in rows if value in r and all(r.get(k) == v for k, v in where.items())]
    members = sorted({r["member"] for r in chosen})
    values = {m: [r[value] for r in chosen if r["member"] == m] for m in members}
    return {m: sum(some) / len(some) for m, some in values.items()}


# Updates without a direction.


def _controls(rows: Rows) -> Iterator[Finding]:
    yield from _ablation(rows, "controlled")
    for arm in dict.fromkeys(r["arm"] for r in rows if "taken" in r):
        for value, label in (("taken", "share of all squares taken out"), ("was_there", "of what was there")):
            key = f"controlled {arm}/{value}"
            yield _said(key, f"{removed(arm)}: {label}", scores_of(rows, value, arm=arm))


def _ablation(rows: Rows, word: str = "removed") -> Iterator[Finding]:
    start = {value: scores_of(rows, value, arm="initial") for value in ("accuracy", "kl", "recentred")}
    gains = {value: _less(scores_of(rows, value, arm="none"), start[value]) for value in ("accuracy", "recentred")}
    for arm in [arm for arm in dict.fromkeys(r["arm"] for r in rows) if arm != "initial"]:
        said, own, key = removed(arm), {v: scores_of(rows, v, arm=arm) for v in start}, f"{word} {arm}"
        yield _said(f"{key}/accuracy", f"accuracy {said}", own["accuracy"], start["accuracy"])
        yield _share(f"{key}/divergence_left", f"divergence left {said}", own["kl"], start["kl"], 1)
        yield _said(f"{key}/recentred", f"recentred accuracy {said}", own["recentred"], start["recentred"])
        for value, label, null in (
            ("logit_cosine", "cosine of the changes of recentred digit logits", 0),
            ("cosine_with_teacher", "cosine of the displacement with the teacher's", 0),
            ("length", "length of the displacement", None),
        ):
            yield _said(f"{key}/{value}", f"{label} {said}", scores_of(rows, value, arm=arm), null)
        if arm != "none":
            for value, label in (("accuracy", "gain"), ("recentred", "recentred gain")):
                share = _less(own[value], start[value]), gains[value]
                yield _share(_key(f"{key}/share_of_{label}"), f"{said}: share of the {label}", *share, 1)


def removed(arm: str) -> str:
    """An arm of the ablation in words."""
    how = "with" if arm == "none" else "control of" if arm.endswith(", control") else "without"
    return f"{how} {REMOVED[arm.removesuffix(', control')]}"
