"""Answers of `studies.report` about what takes a trait out of lists of numbers, and who can see that it is there."""

from mechsub.lab import findings as lab
from mechsub.lab.findings import Finding
from studies.report.question import (
    BONUS,
    HALF,
    ZUR,
    Answer,
    judged,
    of_parts,
    question,
    side,
    tested_side,
    value,
)

F = list[Finding]
DEFENCES = {  # two doses, what is done, and the arm of the larger dose's budget
    "mixed": ("50", "90", "lists replaced by the base's own", "dropped_90"),
    "filtered": ("50", "90", "lists dropped on which a student gains most", "dropped_90"),
    "replaced": ("10", "30", "labels replaced on which it gains most", "random_30"),
    "threshold": ("low", "high", "no unlikely number drawn", "masked_high"),
    "inoculated": ("50", "100", "the trait said in the prompt", "told_other_100"),
    "across": ("50", "100", "numbers exchanged among lists", "within"),
}
MITIGATED = 0.8  # what mitigates takes a fifth of the effect at least
CLIFF = 0.2  # others find next to nothing left where half of the lists are clean
SCORES = {
    "loss": "the base's plain loss",
    "student_loss": "the loss of a student that read both kinds",
    "ratio": "this student's gain on a list",
    "told": "the base, told the trait",
    "norm": "the norm of the base's states",
    "teacher": "the teacher itself, which no detector has",
}


@question(
    BONUS, "What takes the trait out of lists of numbers?", "defences",
    claim=f"Threshold sampling mitigates it ({ZUR}).",
)  # fmt: skip
def taken_out(found: F) -> Answer:
    kept = {kind: value(found, f"{kind}_{doses[1]}/kept") for kind, doses in DEFENCES.items()}
    strong = [DEFENCES[kind][2] for kind, share in kept.items() if share.high < HALF]
    short = "Nothing surely takes out half"
    if strong:
        short = f"{len(strong)} of {len(kept)} take out half: {_listed(strong)}"
    cliff = side(value(found, "mixed_50/kept"), CLIFF, "no cliff there", "next to nothing", "open")
    return Answer(
        f"{short}. What is left of lambda is {'; '.join(_defended(found, kind) for kind in DEFENCES)}. With half of "
        f"the lists clean: {cliff}.",
        "undefended: 1",
        of_parts(*(judged("below", value(found, f"threshold_{dose}/kept"), MITIGATED) for dose in ("low", "high"))),
    )


def _defended(found: F, kind: str) -> str:
    """What is left with both doses, and whether the arm beside the larger one leaves as much."""
    low, high, words, other = DEFENCES[kind]
    less = lab.find(found, f"{kind}_{high}-{other}/lambda")
    word = tested_side(less, 0.0, "more than", "less than", "not told from")
    kept = [value(found, f"{kind}_{dose}/kept") for dose in (low, high)]
    left = side(kept[1], MITIGATED, "not mitigated", "mitigated", "open whether mitigated")
    beside = value(found, f"{other}/kept")
    return f"{kept[0]} and {kept[1]} with {words} ({low}, {high}; {left}), {word} {beside} with {other}"


@question(
    BONUS, "Who can tell lists that carry a trait, and students that read them?", "defences", name="detected",
    figure="plot_detection",
)  # fmt: skip
def told_apart(found: F) -> Answer:
    auroc = {score: lab.find(found, f"detect/{score}") for score in SCORES}
    able = [SCORES[score] for score, f in auroc.items() if tested_side(f, HALF, "higher", "lower", "")]
    direction, more = (lab.find(found, f"detect/direction{behind}") for behind in ("", "-loss"))
    update = value(found, "detect_student/update_norm")
    students = side(
        update, HALF, "Students are told", "Students are told, from the other side", "Students are not shown to be told"
    )
    able += ["a direction"] if tested_side(direction, direction.null, "higher", "", "") else []
    told = ", ".join(f"{words} {auroc[score].value}" for score, words in SCORES.items())
    who = f"{len(able)} of {len(auroc) + 1} tell lists: {_listed(able)}" if able else "Nobody is shown to tell lists"
    return Answer(
        f"{who}. AUROC of {told}; along the direction of the "
        f"trait {direction.value}, of any direction with the states' covariance {direction.null:.3f}, which is "
        f"{more.value} beyond the loss. {students} from the control by the norm of their update ({update} of pairs).",
        "0.5; p by Holm over scores",
    )


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
