"""Questions of `studies.report` about one factor of the toy at a time."""

import itertools
import re
from collections.abc import Callable, Mapping

from mechsub.lab import finder, predictions, verdicts
from mechsub.lab.cells import defaults_of
from mechsub.lab.findings import Finding, less
from studies.report.question import (
    A2,
    A2_MORE,
    CONFIRMED,
    JIANG,
    NO_CLAIM,
    OPEN,
    PARTLY,
    REFUTED,
    Answer,
    by_raw,
    question,
)  # fmt: skip

WORDS = {
    "d_model": "neurons of a hidden layer", "n_aux": "auxiliary logits", "n_layers": "hidden layers",
    "n_classes": "classes", "n_samples": "inputs", "lr": "learning rate", "signal": "share of image",
}  # fmt: skip


def sweep(factor: str, pinned: Mapping[str, str]) -> Callable[[list[Finding]], Answer]:
    """The auxiliary-only student at every stored level, and the verdict on the write-up's direction.

    Recentred, with raw accuracy beside it, and with what that alone would say where it says another thing. A direction
    is confirmed by its rule, which looks at the first and the last level, if no step goes the other way.
    """
    score, raw = ("recentred_kappa", "kappa") if factor == "n_classes" else ("recentred", "accuracy")

    def answer(findings: list[Finding]) -> Answer:
        levels, nulls, raw_levels = (
            {f.cell.partition("=")[2]: f for f in findings if f.key == key and f.cell}
            for key in (f"aux/{score}", f"cross_aux/{score}", f"aux/{raw}")
        )
        if len(levels) < 2:
            raise LookupError(f"fewer than two levels of {factor}")
        beside = {level: f"{finding.value.mean:.3f}" for level, finding in raw_levels.items()}
        shown = ", ".join(f"{f.value} at {level} (raw {beside[level]})" for level, f in levels.items())
        (verdict, other), (raw_verdict, _) = (_judged(findings, factor, pinned, side) for side in (score, raw))
        apart = "" if _short(levels) == _short(raw_levels) else f" By raw accuracy: {_lower(_short(raw_levels))}."
        apart += by_raw(verdict, raw_verdict)
        what = "kappa (0 at chance, 1 when all are right)" if factor == "n_classes" else "accuracy"
        by = WORDS.get(factor, factor.replace("_", " "))
        means = [null.value.mean for null in nulls.values()]
        return Answer(
            f"{_short(levels)}: recentred {what} by {by} is {shown}. Paired by seed: {_differences(levels)}; raw "
            f"{_differences(raw_levels)}.{_beside_best(levels)}{other}{apart}{_margin(factor, pinned)}",
            f"another initialisation: {min(means):.3f} to {max(means):.3f}",
            verdict,
        )

    return answer


def _judged(findings: list[Finding], factor: str, pinned: Mapping[str, str], score: str) -> tuple[str, str]:
    """The verdict on the write-up's direction by this score, and a sentence on the steps that go the other way."""
    levels, nulls = (
        {f.cell.partition("=")[2]: f for f in findings if f.key == f"{arm}/{score}" and f.cell}
        for arm in ("aux", "cross_aux")
    )
    other = brief = rule = ""
    for entry in _entries(factor, pinned):
        named = [str(level) for level in entry.levels if str(level) in levels] or list(levels)
        if entry.author == "brief":
            rule = entry.rule
            brief = verdicts.trend(entry.rule, *([side[level] for level in named] for side in (levels, nulls)))[0]
        turns = verdicts.turns({level: levels[level] for level in named}) if _are_numbers(levels) else ""
        other = f" Not in one direction: the other way goes {turns}." if turns else ""
    verdict = {"hit": CONFIRMED, "miss": REFUTED}.get(brief, OPEN if brief else NO_CLAIM)
    if verdict == CONFIRMED and not other and rule in ("increases", "decreases"):
        other = _flat(levels)
    elif verdict == CONFIRMED and other:
        verdict = PARTLY
    return verdict, other


def _flat(levels: Mapping[str, Finding]) -> str:
    """A sentence on the steps that show no direction, where the ends of the range do."""
    steps = {f"{a} to {b}": less(levels[b], levels[a]).value for a, b in itertools.pairwise(levels)}
    flat = [f"{step} ({change})" for step, change in steps.items() if change.low <= 0 <= change.high]
    return f" The ends of the range decide: nothing is shown from {' or from '.join(flat)}." if flat else ""


def _margin(factor: str, pinned: Mapping[str, str]) -> str:
    """What a claim of no effect means by none; a question with other options pinned has no claim."""
    if pinned:
        return ""
    margins = {entry.margin for entry in _entries(factor, pinned) if entry.author == "brief" and entry.rule == "none"}
    return "".join(f" About the same means a difference within {margin:g}." for margin in sorted(margins))


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _short(levels: Mapping[str, Finding]) -> str:
    """Of numbers, the last level beside the first; of words, the best of them beside the others."""
    (first, a), *_, (last, b) = levels.items()
    if _are_numbers(levels) or len(levels) == 2:
        return _word(b, a, last, first)
    best, others = _best(levels)
    return f"Highest with {best}" + (", not surely" if others else "")


def _best(levels: Mapping[str, Finding]) -> tuple[str, list[str]]:
    """The highest level, and those that are not told apart from it."""
    best = max(levels, key=lambda level: levels[level].value.mean)
    return best, [level for level in levels if level != best and less(levels[best], levels[level]).value.low <= 0]


def _beside_best(levels: Mapping[str, Finding]) -> str:
    """A sentence on the words that are not told apart from the best of more than two."""
    if _are_numbers(levels) or len(levels) == 2:
        return ""
    best, others = _best(levels)
    return f" Not told apart from {best}: {' and '.join(others)}." if others else ""


def _word(own: Finding, other: Finding, level: str, beside: str) -> str:
    difference = less(own, other).value
    if difference.low <= 0 <= difference.high:
        return f"No difference shown, {beside} to {level}"
    return f"{'Higher' if difference.low > 0 else 'Lower'} at {level} than at {beside}"


def _differences(levels: Mapping[str, Finding]) -> str:
    """The last level less the first where levels are numbers; every other level less the first where they are words."""
    (first, own), *others = levels.items()
    shown = others[-1:] if _are_numbers(levels) else others
    return "; ".join(f"{level} less {first} {less(finding, own).value}" for level, finding in shown)


def _are_numbers(levels: Mapping[str, Finding]) -> bool:
    return all(re.fullmatch(r"[0-9.e-]+", level) for level in levels)


def _entries(factor: str, pinned: Mapping[str, str]) -> list[verdicts.Entry]:
    """What was expected of this factor where the other options are these, or at their default."""
    study = finder.find_study("factors")
    assert study is not None
    usual = {**defaults_of(study.Config), **pinned}
    return [
        entry
        for entry in predictions.entries()
        if entry.study == "factors" and entry.over == factor
        if all(str(usual[name]) == str(value) for name, value in entry.where.items())
    ]


# Name, question, flags (the last option is the factor that is swept), published claim.
FACTORS = (
    ("width", "Does a wider network learn less?", "--d-model 64 256 512", f"Decreases ({JIANG})."),
    ("auxiliary-logits", "Do more auxiliary logits teach more?", "--n-aux 2 3 10 30 100", f"Increases ({JIANG})."),
    ("depth", "Does depth matter?", "--n-layers 1 2 3", f"About the same ({JIANG})."),
    ("fashion", "Does it work on Fashion-MNIST?", "--dataset mnist fashion_mnist", f"It still works ({JIANG})."),
    ("classes", "Do more classes lower it?", "--n-classes 2 3 5 10", "Decreases (write-up, item 5 and experiment 2)."),
    (
        "signal", "Does image signal in the inputs help?", "--signal 0 0.5 0.75 1",
        "Predicted to increase it (write-up, item 6); its experiment 3 found a decrease.",
    ),
    ("signal-matched", "And at mean image 0 and equal variance?", "--signal-moments matched --signal 0 0.5 0.75 1", ""),
    (
        "target-noise", "Does noise on the teacher's logits lower it?", "--target-noise 0 0.1 1",
        "Decreases (write-up, item 7).",
    ),
    ("samples", "Do more samples raise it?", "--n-samples 6000 20000 60000", "Increases (write-up, item 8)."),
    (
        "perturbation", "How much may the shared start be perturbed?", "--perturbation 0 0.03 0.1 0.3 1",
        "Decreases (write-up, item 9 and experiment 1).",
    ),
)  # fmt: skip
MORE = (
    ("lr", "Does the student's learning rate matter?", "--lr 1e-4 3e-4 1e-3 3e-3"),
    ("epochs", "Does the student's number of epochs matter?", "--epochs 1 5 20"),
    ("batch-size", "Does the student's batch size matter?", "--batch-size 256 1024 4096"),
    ("optimizer", "Does the student's optimiser matter?", "--optimizer adam sgd sign_sgd"),
    ("weight-decay", "Does the student's weight decay matter?", "--weight-decay 0 0.001"),
    ("temperature", "Does the temperature matter?", "--temperature 1 4"),
    ("loss", "Does the student's loss matter?", "--loss kl mse hard"),
    ("schedule", "Does the student's schedule matter?", "--schedule constant cosine"),
    ("fresh", "Does it matter whether the student sees fresh inputs every epoch?", "--fresh false true"),
    ("precision", "Does the precision matter?", "--precision fp32 bf16"),
    ("teacher-epochs", "Does a longer teacher teach more?", "--teacher-epochs 1 5 20"),
    ("init", "Does the kind of initialisation matter?", "--init lecun torch he"),
    ("activation", "Does the activation matter?", "--activation relu gelu tanh identity"),
    (
        "perturbed-where", "Where does a perturbation of the start hurt?",
        "--perturbation 0.3 --perturb-where all hidden head",
    ),
    (
        "perturbed-direction", "Does a perturbation hurt less across the teacher's gradient?",
        "--perturbation 0.3 --perturb-direction random orthogonal",
    ),
)  # fmt: skip


def _ask(topic: str, name: str, text: str, flags: str, claim: str = "") -> None:
    *others, (factor, *_) = (part.replace("-", "_").split() for part in flags.split("--")[1:])
    answer = sweep(factor, dict(others))
    question(topic, text, "factors", flags, name=name, claim=claim, sweep=factor)(answer)


for entry in FACTORS:
    _ask(A2, *entry)
for more in MORE:
    _ask(A2_MORE, *more)
