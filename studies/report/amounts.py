"""Answers of `studies.report` about how much the toy's students learn, from conditions taken together."""

from mechsub.lab import findings as lab
from mechsub.lab.findings import Finding
from mechsub.stats import Interval
from studies.report.question import A3, HALF, LITTLE, Answer, question, side, value


def _error(findings: list[Finding], key: str) -> Finding:
    return lab.find(findings, f"{key}_error")


@question(A3, "What drives how much a student learns?", "teacher_line")
def amount(findings: list[Finding]) -> Answer:
    point, raw = _error(findings, "point/recentred"), _error(findings, "point/raw")
    rank, noise = value(findings, "point/recentred_rank"), value(findings, "noise/recentred_error")
    one, worst = value(findings, "one/recentred_error"), lab.find(findings, "point/recentred_largest")
    part = side(point.value, point.null, "Not", "In part", "Not surely")  # errors: below the null's is better
    short = "Mostly" if point.value.high < HALF * point.null.low else part
    return Answer(
        f"{short} progress along teachers' lines: how far each hidden layer gets along its teacher's displacement. "
        f"Over {point.n} conditions (inputs, widths, depths, logits, losses, initialisations, optimisers, rates, "
        "batches, steps) the point of the "
        f"teacher's line with the student's one share a layer misses the student's recentred accuracy by {point.value} "
        f"(rank correlation {rank}), with noise as long as the rest of the student's way by {noise}, with one share "
        f"for all layers by {one}. The largest error is {worst.value:.3f} "
        f"({worst.label.rpartition(': ')[2]}). Raw accuracy, in which an untrained head's offset is, it misses by "
        f"{raw.value}.",
        f"the mean of the other conditions misses it by {point.null}",
    )


@question(A3, "Can that be predicted before a student is trained?", "first_principles", "--part train")
def predicted(findings: list[Finding]) -> Answer:
    own, raw = _error(findings, "midpoint/recentred"), _error(findings, "midpoint/raw")
    new = _error(findings, "midpoint/recentred_new")
    plain, rank = (value(findings, f"midpoint/recentred{more}") for more in ("_no_mean_images_error", "_rank"))
    others = {
        words: value(findings, f"{arm}/recentred_error")
        for arm, words in (("again", "linearised a second time"), ("start", "linearised at the start"),
                           ("line", "the teacher's line at the predicted shares"))
    }  # fmt: skip
    told = ", ".join(f"{words} {error}" for words, error in others.items())
    median, largest = (value(findings, f"midpoint/recentred_new_{what}") for what in ("median", "largest"))
    return Answer(
        f"With a mean error of {new.value.mean:.2f}: over the {new.n} conditions that nobody had trained before, the "
        f"linearised student, nothing fitted, misses recentred accuracy by {new.value} (median {median:.3f}, largest "
        f"{largest:.3f}); over all {own.n}, of which the others had been trained, by {own.value}, without images that "
        f"have their mean by {plain} (rank correlation {rank}); raw accuracy by {raw.value}. Other predictions, over "
        f"all: {told}.",
        f"the mean of the other conditions: {own.null}; straight line on the cosine of the least-squares move, fitted "
        f"to the others: {value(findings, 'least_squares_cosine/recentred_error')}",
    )


BAR = 0.05  # error of recentred accuracy that a prediction may have


@question(A3, "How often must the problem be linearised anew?", "first_principles",
          "--part train two_stages four_stages --condition design fresh")  # fmt: skip
def stages(findings: list[Finding]) -> Answer:
    arms = {"once": "midpoint", "twice": "two_stages", "four times": "four_stages"}
    design, fresh = (
        {words: _error(findings, f"{arm}/recentred{of}") for words, arm in arms.items()} for of in ("", "_fresh")
    )
    enough = [words for words in arms if max(design[words].value.high, fresh[words].value.high) < BAR]
    more = all(error.value.low > BAR for some in (design, fresh) for error in some.values())
    first = (
        f"{enough[0].capitalize()}, for errors below {BAR}"
        if enough
        else "More than four times"
        if more
        else "Open whether four times are enough"
    )
    told, drawn = (", ".join(f"{words} {error.value}" for words, error in some.items()) for some in (design, fresh))
    known, new = (some["four times"] for some in (design, fresh))
    again = [value(findings, f"four_stages_again/recentred{of}_error") for of in ("", "_fresh")]
    plain = [value(findings, f"four_stages/recentred{of}_no_mean_images_error") for of in ("", "_fresh")]
    return Answer(
        f"{first}: over the {known.n} conditions of the design, whose students were known when stages were made up, "
        f"the linearised student misses recentred accuracy by these mean errors: linearised {told}. Over {new.n} that "
        f"were drawn by a seed and predicted before training: {drawn}. Without images that have their mean, four times "
        f"{plain[0]} and {plain[1]}. Linearised once more halfway through each of the four stages, {again[0]} and "
        f"{again[1]}.",
        f"the mean of the other conditions: {known.null} and {new.null}",
    )


@question(A3, "Do poor inputs teach less, or only more slowly?", "learning_curves")
def slower(findings: list[Finding]) -> Answer:
    closed = {f.subject: f.value for f in findings if f.key.endswith("/made_up") and not f.cell}
    if not closed:
        raise LookupError("no distribution is behind uniform noise at 295 steps")
    slow, poor = ({name: v for name, v in closed.items() if half(v)} for half in (_above_half, _below_half))
    told = [
        f"{words} for {', '.join(f'{name} {v}' for name, v in some.items())}"
        for words, some in (("more than half is gone", slow), ("less than half", poor))
        if some
    ]
    ranks = [f.value for f in findings if f.key.endswith("/recentred_rank")]
    order = f" Both lengths order distributions by a rank correlation of {ranks[0]}." if ranks else ""
    word = "Both" if slow and poor else "More slowly" if slow else "Less" if poor else "Not told apart"
    return Answer(
        f"{word}: of the gap to uniform noise at 295 steps, after 13 times as many, {'; '.join(told) or 'neither'}."
        f"{order}",
        "share of the gap that is gone: 0",
    )


def _above_half(share) -> bool:
    return share.low > HALF


def _below_half(share) -> bool:
    return share.high < HALF


@question(A3, "Do controls that take out what is there lower it too?", "mechanism", "--part controls --n-seeds 10")
def controls(findings: list[Finding]) -> Answer:
    arms = {
        "teacher_neuron": "its teacher's displacement",
        "own_rest": "the rest of its own way",
        "next_teacher": "the next seed's teacher's displacement",
        "fixed_direction": "one fixed random direction",
        "teacher_neuron_control": "the published control, new at each step",
    }
    told = [
        f"{words} {value(findings, f'controlled_{arm}/share_of_recentred_gain')}, which holds "
        f"{value(findings, f'controlled_{arm}/was_there').mean:.3f} of the squares of its updates"
        for arm, words in arms.items()
    ]
    left = [value(findings, f"controlled_{arm}/share_of_recentred_gain") for arm in list(arms)[1:]]
    return Answer(
        f"{_lowered(left)}. Share of the recentred gain that is left without {told[0]}; without {'; '.join(told[1:])}.",
        "nothing taken out: 1",
    )


def _lowered(left: list[Interval]) -> str:
    """How far controls lower a gain of which these shares are left."""
    if all(share.low > 1 - LITTLE for share in left):
        return "Hardly"
    if all(share.high < HALF for share in left):
        return "Yes"
    return "Some do" if any(share.high < 1 - LITTLE for share in left) else "Not told"
