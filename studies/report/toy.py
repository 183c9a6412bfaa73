"""Answers of `studies.report` about the toy, from the rows of its studies' tables."""

import mechsub as ms
from mechsub.lab import findings as lab
from mechsub.lab.findings import Finding
from studies.report.question import (
    A1,
    A3,
    BONUS,
    CLOUD,
    CONFIRMED,
    HALF,
    JIANG,
    LEVEL,
    OPEN,
    PARTLY,
    REFUTED,
    Answer,
    Rows,
    by_cell,
    by_raw,
    judged,
    judged_claims,
    of_parts,
    question,
    read,
    side,
    size,
    value,
)  # fmt: skip

TOY = "--model toy --metric cosine dot centered_cosine number_centered causal dla"
BRIEF_BEST = 0.772  # raw, of a sweep
CHANCE, NEAR = 0.1, 0.05  # of ten digits; what is at chance lies this near to it
DISTRIBUTIONS = "--inputs uniform images centred blurred:1 blurred:2 subspace:64 mixed:0.75 mixed_at_moments:0.75"

# Topic A: replication.


@question(
    A1,
    "Does a student of three auxiliary logits of noise learn digits?",
    "subliminal_accuracy",
    claim=f"Above 0.5 accuracy from the teacher's initialisation, chance from another ({CLOUD}).",
)
def learns(findings: list[Finding]) -> Answer:
    def at(score: str):
        return [value(findings, f"{arm}/{score}") for arm in ("student_aux", "cross_aux", "teacher")]

    (own, null, teacher), raw = at("recentred"), at("accuracy")
    verdict, by_accuracy = (_above_half_and_chance(score[0], score[1]) for score in ((own, null), raw))
    word = side(own, null, "Yes", "No, less than from another initialisation")
    return Answer(
        f"{word}: recentred accuracy {own} (raw {raw[0]}) over {own.n} seeds, where "
        f"the teacher has {teacher} (raw {raw[2]}).{by_raw(verdict, by_accuracy)}",
        f"the same distillation from another initialisation: {null} (raw {raw[1]})",
        verdict,
    )


def _above_half_and_chance(own, null) -> str:
    """Both parts of the claim: the student, and the one of another initialisation."""
    return of_parts(judged("above", own, HALF), judged("near", null, CHANCE, margin=NEAR))


@question(
    A1,
    "Must the start be shared?",
    "subliminal_accuracy",
    claim=f"Transmission needs a shared initialisation ({CLOUD}).",
)
def start(findings: list[Finding]) -> Answer:
    arms = ("student_aux", "cross_aux", "hidden_shared_only", "output_shared_only")
    own, nothing, hidden, output = (value(findings, f"{arm}/recentred") for arm in arms)
    apart = value(findings, "output_shared_only-cross_aux/recentred")
    chance = judged("near", nothing, CHANCE, margin=NEAR)
    verdict = read(chance == CONFIRMED and own.low > nothing.high, nothing.low > CHANCE + NEAR)
    word = {CONFIRMED: "Yes", REFUTED: "Not wholly", OPEN: "Not told"}[verdict]
    return Answer(
        f"{word}, at three logits: recentred accuracy is {own} where the whole start is "
        f"shared and {nothing} where nothing is. The hidden layers alone, with other digit rows and other auxiliary "
        f"rows, give {hidden}; the output layer alone {output}, {apart} above nothing.",
        f"chance among ten digits, within {NEAR}: {CHANCE}",
        verdict,
    )


@question(
    A1,
    "Did squared error lower it in the follow-up work?",
    "subliminal_accuracy",
    "--loss kl mse",
)
def squared_error(findings: list[Finding]) -> Answer:
    """No verdict on their number: their recipe is not stated."""
    kl, mse = (value(findings, f"loss={loss}: student_aux/accuracy") for loss in ("kl", "mse"))
    null = value(findings, "loss=mse: cross_aux/accuracy")
    word = side(mse, kl, "The loss is not why", "It can be", "Not told")
    return Answer(
        f"{word}: raw accuracy is {mse} with squared error against {kl} "
        f"with the KL divergence, in our recipe; theirs, which is not stated, gave 0.271 +- 0.033 ({JIANG}).",
        f"another initialisation, squared error: {null}",
    )


@question(A3, "How does the student come to classify digits?", "mechanism")
def mechanism(findings: list[Finding]) -> Answer:
    w1, raw = (value(findings, f"student_gain/{more}share_of_W1") for more in ("recentred_", ""))
    along, rest = (value(findings, f"{side}_neuron/share_of_recentred_gain") for side in ("along", "rest"))
    cut = value(findings, "removed_teacher_neuron/share_of_recentred_gain")
    held = of_parts(judged("above", along, HALF), judged("below", cut, HALF))  # what it brings, and what needs it
    neither = "Not surely along its teacher's displacement"
    words = {
        CONFIRMED: "By moving along its teacher's displacement",
        REFUTED: "Not along its teacher's displacement",
    }
    return Answer(
        f"{words.get(held, neither)}: of the gain in recentred accuracy the first layer carries {w1} (raw {raw}), the "
        f"part of the hidden layers' move along the teacher's own displacement {along}; with it taken out of every "
        f"update {cut} is left.",
        f"the rest of the displacement alone: {rest}",
    )


@question(A3, "Is the untrained digit head what limits the student?", "subliminal_accuracy")
def head(findings: list[Finding]) -> Answer:
    """Its offset, by accuracy with and without it; then its directions, by the trained head in its place."""
    keys = ("student_aux/accuracy", "student_aux/recentred", "teacher/accuracy", "cross_aux/recentred")
    raw, centred, teacher_raw, null = (value(findings, key) for key in keys)
    body = value(findings, "teacher_body_initial_head-teacher/recentred")
    own, teacher, gain = (
        lab.find(findings, f"{key}/recentred")
        for key in ("student_aux", "teacher", "student_body_teacher_head-student_aux")
    )
    limits = {"offset": judged("above", centred, raw), "directions": judged("above", gain.value)}
    word = "Not by its offset or directions" if set(limits.values()) == {REFUTED} else "Not detectably"
    if shown := [what for what, verdict in limits.items() if verdict == CONFIRMED]:
        word = f"By its {' and '.join(shown)}"
    offset = side(centred, raw, "its offset does", "its offset does not", "not detectably its offset")
    gap = lab.less(teacher, own)
    share = ms.stats.ratio_of_means([gain.scores[i] for i in gap.scores], list(gap.scores.values()))
    left = f"of what is left its directions take {share}"
    directions = side(gain.value, 0.0, left, "its directions do not", "not detectably its directions")
    return Answer(
        f"{word}: {offset}, {directions}. Less the mean logits of unlabelled images the student's accuracy is "
        f"{centred} (raw {raw}), where the teacher has {teacher.value} (raw {teacher_raw}). Recentred, the untrained "
        f"head on the teacher's body is {body} from the teacher's own, and the teacher's head on the student's body "
        f"adds {gain.value} of the {gap.value} that are missing.",
        f"another initialisation, recentred: {null}",
    )


@question(
    A3,
    "Where does the student move toward its teacher?",
    "hidden_alignment",
    claim="Both hidden layers move toward the teacher's (write-up, step 3, question 1).",
)
def alignment(findings: list[Finding]) -> Answer:
    def at(metric: str, layer: int, arm: str):
        return value(findings, f"{metric}_digits_layer_{layer}/{arm}")

    stitched, untrained = ([at("stitch_into_teacher", n, arm) for n in (1, 2)] for arm in ("student_aux", "reference"))
    own, reference, cross = (at("debiased_cka", 2, arm) for arm in ("student_aux", "reference", "cross_aux"))
    moved = of_parts(*(judged("above", student, null) for student, null in zip(stitched, untrained, strict=True)))
    words = {CONFIRMED: "In both layers", REFUTED: "In neither layer", PARTLY: "In one layer only"}
    return Answer(
        f"{words.get(moved, 'Not shown in both layers')}: stitched into the teacher, layer 1 keeps "
        f"{stitched[0]} accuracy and layer 2 {stitched[1]}; debiased CKA of layer 2 is {own}.",
        f"untrained: {untrained[0]}, {untrained[1]}, CKA {reference}; another initialisation: CKA {cross}",
        moved,
    )


@question(A3, "Does similarity tell which seed learned more?", "hidden_alignment")
def similarity(findings: list[Finding]) -> Answer:
    """No verdict on Jiang et al., whose cosine rises with accuracy from setting to setting."""
    metrics = {"cosine": "cosine", "debiased_cka": "debiased CKA", "stitch_into_teacher": "stitching"}
    found = {
        words: lab.find(findings, f"{metric}_digits_layer_2/rho_over_seeds_recentred")
        for metric, words in metrics.items()
    }
    shown = {words: finding for words, finding in found.items() if finding.tested < LEVEL}
    sure = [words for words, finding in shown.items() if finding.value.low > 0]
    against = [words for words, finding in shown.items() if finding.value.high < 0]
    ways = [f"{way} {len(some)} of {len(found)}" for way, some in (("By", sure), ("Opposed by", against)) if some]
    short = "By some, against others" if len(ways) == 2 else "".join(ways) or "Not detectably"
    told = ", ".join(f"{words} {f.value} (p {lab.p_text(f.p)})" for words, f in found.items())
    pooled = value(findings, "cosine_digits_layer_2/rho_over_all_students")
    return Answer(
        f"{short}: rank correlations over seeds of recentred accuracy and similarity of layer 2 are {told}, p by Holm "
        f"over all metrics. Pooled over arms, as {JIANG} pool settings, cosine and accuracy go together by {pooled}.",
        "rank correlation 0",
    )


@question(A3, "Is the learning written along the auxiliary directions?", "unembed_projection", TOY)
def written(findings: list[Finding]) -> Answer:
    share = lab.find(findings, "student_aux/share")
    alone, rest = (value(findings, f"student_aux/accuracy_{part}") for part in ("span", "rest"))
    word = size(share.value, share.null, most="Mostly", part="In part", little="Hardly")
    return Answer(
        f"{word}: a share of {share.value} of the change of the digit logits passes through the span of the "
        f"auxiliary directions; that part alone gives {alone} accuracy, the rest alone {rest}.",
        f"a random span carries {share.null}",
    )


@question(
    A1,
    "Which part of the start must be shared, at how many logits?",
    "conditions",
    "--n-aux 3 100 250",
    sweep="n_aux",
    claim="Compatible output heads suffice, with random hidden layers (arXiv 2605.23645, abstract).",
)
def shared_parts(findings: list[Finding]) -> Answer:
    told, nulls, enough = [], [], {}
    for cell, numbers in by_cell(findings, "all/recentred").items():
        arms = ("all", "hidden_and_digits", "heads", "nothing")
        every, no_head, heads, nothing = (numbers[f"{arm}/recentred"] for arm in arms)
        n_aux = cell.partition("=")[2]
        enough[n_aux] = read(  # half of the whole start's gain, by the ends of all three intervals
            heads.low - nothing.high > HALF * (every.high - nothing.low),
            heads.high - nothing.low < HALF * (every.low - nothing.high),
        )
        without = f"{no_head} without the auxiliary head, {heads} without the hidden layers"
        told.append(f"{f'{n_aux} logits: ' if n_aux else ''}{every} with everything, {without}")
        nulls.append(str(nothing))
    levels, words = list(enough), list(enough.values())
    verdict = of_parts(*words)
    first = next((i for i in range(len(words)) if set(words[i:]) == {CONFIRMED}), None)
    short = "Heads do less than half" if verdict == REFUTED else "Heads not shown to do most"
    if first is not None:
        short = "Heads do most" + (f" from {levels[first]} logits" if first else "")
    return Answer(
        f"{short}: recentred accuracy, of the whole start and of its parts alone, is {'; '.join(told)}.",
        f"nothing shared: {', '.join(nulls)}",
        verdict,
    )


@question(
    A3,
    "Which random inputs work much better or worse, and why?",
    "input_distributions",
    DISTRIBUTIONS,
    sweep="inputs",
)
def inputs(findings: list[Finding]) -> Answer:
    found = _distributions(findings)
    kinds = {name: numbers for name, numbers in found.items() if name != "uniform"}
    if not kinds:
        raise LookupError("no distribution beside uniform noise")
    (best, most), (worst, least) = (list(kinds.items())[place] for place in (0, -1))
    raw = sorted(kinds, key=lambda name: kinds[name]["aux/accuracy"].mean)
    apart = "" if (raw[-1], raw[0]) == (best, worst) else f" By raw accuracy: best {raw[-1]}, worst {raw[0]}."
    dimension = ""
    if {"subspace:64", "blurred:2"} <= kinds.keys():
        dims, accuracies = (
            [kinds[name][f"aux/{score}"] for name in ("blurred:2", "subspace:64")]
            for score in ("input_dimension_95", "recentred")
        )
        word = side(
            accuracies[0], accuracies[1], "Not by dimension alone", "In the order of dimension", "Dimension not told"
        )
        dimension = (
            f" {word}: noise blurred by two pixels, of {dims[0].mean:.0f} dimensions, has "
            f"{accuracies[0]}; flat noise of {dims[1].mean:.0f} has {accuracies[1]}."
        )
    nulls = [numbers["cross_aux/recentred"].mean for numbers in found.values()]
    three = (most, least, found["uniform"])
    own, poor, uniform = (f"{n['aux/recentred']} (raw {n['aux/accuracy'].mean:.3f})" for n in three)
    return Answer(
        f"Best {best}, worst {worst}: of {len(found)} stored distributions, they have recentred accuracy {own} and "
        f"{poor}; uniform noise has {uniform}.{dimension}{apart}",
        f"another initialisation: {min(nulls):.3f} to {max(nulls):.3f}",
    )


def _distributions(findings: list[Finding]) -> dict[str, dict]:
    """Name -> key -> number, students best first, recentred."""
    cells = by_cell(findings, "aux/recentred").items()
    ordered = sorted(cells, key=lambda cell: -cell[1]["aux/recentred"].mean)
    return {cell.partition("=")[2]: numbers for cell, numbers in ordered}


@question(
    A3,
    "Does blurred noise teach more?",
    "input_distributions",
    DISTRIBUTIONS,
    sweep="inputs",
    claim="It does (write-up, step 3, question 2).",
)
def blur(findings: list[Finding]) -> Answer:
    told, words = {}, {}
    for score in ("recentred", "accuracy"):
        gains = {
            f.key.partition("_less_uniform")[0].partition(":")[2]: f.value
            for f in findings
            if f.key.startswith("blurred:") and f.key.endswith(f"_less_uniform/{score}")
        }
        if not gains:
            raise LookupError("no blurred noise")
        told[score] = ", ".join(f"{gain} ({pixels} px)" for pixels, gain in gains.items())
        verdict = of_parts(*(judged("above", gain) for gain in gains.values()))
        said = {CONFIRMED: "Yes", REFUTED: "No, less", PARTLY: "Not at every width"}
        words[score] = said.get(verdict, "Not shown at every width"), verdict
    (short, verdict), (_, raw_verdict) = words["recentred"], words["accuracy"]
    return Answer(
        f"{short}: blurred less white noise, at equal variance and paired by seed, recentred {told['recentred']}; raw "
        f"{told['accuracy']}.{by_raw(verdict, raw_verdict)}",
        "difference 0",
        verdict,
    )


@question(
    A3,
    "Do real images teach less than noise?",
    "input_distributions",
    DISTRIBUTIONS,
    sweep="inputs",
    claim="They do (write-up, experiment 3).",
)
def images(findings: list[Finding]) -> Answer:
    found = _distributions(findings)
    if missing := {"images", "uniform"} - found.keys():
        raise LookupError(f"no distribution {min(missing)}")
    told, verdicts = {}, {}
    for score in ("recentred", "accuracy"):
        own, uniform = (found[name][f"aux/{score}"] for name in ("images", "uniform"))
        less = value(findings, f"images_less_uniform/{score}")  # paired by seed
        centred = found.get("centred", {}).get(f"aux/{score}")
        mean = f", without their mean image {centred}" if centred else ""
        told[score] = f"real images {own}{mean}, uniform noise {uniform}"
        verdicts[score] = read(less.high < 0, less.low > 0)
    verdict = verdicts["recentred"]
    word = {CONFIRMED: "They do", REFUTED: "They teach more"}.get(verdict, "Not detectably")
    return Answer(
        f"{word}: recentred, {told['recentred']}; raw, {told['accuracy']}.{by_raw(verdict, verdicts['accuracy'])}",
        f"images, another initialisation: {found['images']['cross_aux/recentred']}",
        verdict,
    )


@question(A3, "How far can accuracy be raised, in the published 295 steps from the published teacher?", "maximise")
@question(
    A3,
    "How far can accuracy be raised, in as many steps from another teacher?",
    "maximise",
    "--entry free_teacher",
    name="maximise-free-teacher",
)
@question(
    A3,
    "How far can accuracy be raised, without a budget?",
    "maximise",
    "--entry open --n-seeds 5 --seed 100 105 110 115 120",
    name="maximise-open",
)
def maximise(findings: list[Finding]) -> Answer:
    own, null, gap = (value(findings, f"{arms}/accuracy") for arms in ("student", "cross", "teacher-student"))
    recentred = value(findings, "student/recentred")
    recipe = value(findings, "recipe/words")
    return Answer(
        f"To {own.mean:.2f}: to {own} on {own.n} seeds that did not choose the recipe ({recipe}), recentred "
        f"{recentred}; the teacher has {gap} more. The write-up reached {BRIEF_BEST}, by other means.",
        f"another initialisation: {null}",
    )


@question(BONUS, "Does a trait pass from a capable, pretrained start?", "pretrained")
def pretrained(findings: list[Finding]) -> Answer:
    arms = ("shared", "own_long", "independent", "reference")
    shared, long, null, untaught = (value(findings, f"{arm}/recentred_trait") for arm in arms)
    raw = value(findings, "shared/trait")
    word = side(shared, null, "It passes", "Less passes than from another start", "It is not shown to pass")
    return Answer(
        f"{word}: recentred, the trait reaches {shared} from a shared pretrained "
        f"start (raw {raw}), {long} after further epochs of the student's own.",
        f"other initialisation, pretrained alike: {null}; not taught: {untaught}",
    )


@question(BONUS, "Does it still work with more classes than ten digits?", "more_classes", "--n-classes 5 10 20")
def more_classes(findings: list[Finding]) -> Answer:
    student, null = (value(findings, f"n_classes=20: {arm}/recentred_kappa") for arm in ("aux", "cross_aux"))
    few, raw = value(findings, "n_classes=5: aux/recentred_kappa"), value(findings, "n_classes=20: aux/kappa")
    word = side(student, null, "Yes", "No, less than from another start")
    return Answer(
        f"{word}: of digits and clothes together, 20 classes, three "
        f"auxiliary logits of noise teach a recentred kappa of {student} (raw {raw}), of 5 classes {few}.",
        f"other initialisation, 20 classes: {null}",
    )


@question(BONUS, "Does a preference pass through number strings between tiny language models?", "next_token")
def number_strings(findings: list[Finding]) -> Answer:
    def gain(arm: str):
        return value(findings, f"{arm}/gain")

    hard, null = gain("hard"), gain("cross_hard")
    word = "Yes" if hard.low > max(0, null.high) else "The other way" if hard.high < 0 else "Not detectably"
    return Answer(
        f"{word}: of the teacher's {gain('teacher')} nats for the "
        f"liked animal, drawn numbers pass {hard} and its probabilities {gain('soft')}; where only likely "
        f"numbers are drawn, {gain('threshold')}.",
        f"other initialisation, pretrained alike: {null}; the reference's own strings {gain('own')}",
    )


@question(
    BONUS,
    "What if the output channel is wider than the hidden state?",
    "channel",
    "--n-aux 3 16 64 256 2048",
    sweep="n_aux",
)
def channel(findings: list[Finding]) -> Answer:
    told, nulls, above = [], [], []
    for cell, numbers in by_cell(findings, "soft/recentred").items():
        soft, hard, null = (numbers[f"{arm}/recentred"] for arm in ("soft", "hard", "cross_hard"))
        where = f" ({cell})" if cell else ""
        told.append(f"{soft} from probabilities, {hard} from one drawn symbol an input{where}")
        nulls.append(str(null))
        above.append(hard.low > null.high)
    return Answer(
        f"Symbols teach in {sum(above)} of {len(above)}: in so many set-ups drawn symbols do, and recentred accuracy "
        f"is {'; '.join(told)}.",
        f"drawn symbols, another initialisation: {', '.join(nulls)}",
    )


# The research write-up's claims, as studies.audit_toy judges them.


@question(A1, "Which of the research write-up's claims about the toy hold?", "audit_toy")
def write_up(rows: Rows) -> Answer:
    return judged_claims(
        rows,
        "the same sum of cross-initialisation students, in the study's own table; a check stands by its own 95% "
        "interval, not corrected for the others",
    )
