"""The write-up's claims about the toy, and the checks that settle each, as sums of scores in cells of other studies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Scores(NamedTuple):
    """One score a seed: of the rows of a cell that have these values."""

    study: str
    flags: Mapping[str, object]
    rows: Mapping[str, object]
    value: str = "accuracy"


@dataclass(frozen=True)
class Check:
    """Sum of factor x scores, paired by seed; the claim says that it is above or below `bound`, or near it."""

    text: str
    terms: tuple[tuple[float, Scores], ...]
    claim: Literal["above", "below", "near"]
    bound: float = 0.0


@dataclass(frozen=True)
class Claim:
    row: int
    claim: str
    published: str
    checks: tuple[Check, ...] = field(default=())


def _factors(arm: str = "aux", value: str = "accuracy", **flags) -> Scores:
    """Most sweeps hold the student and its null alone; other arms need all."""
    return Scores("factors", {"arms": "aux" if arm == "aux" else "every", **flags}, {"arm": arm}, value)


def accuracy(arm: str, loss: str = "kl", value: str = "accuracy") -> Scores:
    return Scores("subliminal_accuracy", {"loss": loss}, {"arm": arm}, value)


def _less(text: str, a: Scores, b: Scores, claim: Literal["above", "below", "near"]) -> Check:
    return Check(text, ((1.0, a), (-1.0, b)), claim)


def _inputs(inputs: str, value: str = "accuracy") -> Scores:
    return Scores("input_distributions", {"inputs": inputs}, {"arm": "aux"}, value)


def _layer2(value: str, arm: str = "student_aux", step: int = 295) -> Scores:
    rows = {"arm": arm, "step": step, "layer": 1, "on": "digits"}
    return Scores("hidden_alignment", {}, rows, value)


_TEACHER, _STUDENT = accuracy("teacher"), accuracy("student_aux")
_BODY = accuracy("teacher_body_initial_head")
_PLAIN, _ALL = _factors(), _factors("all")


def _frozen(trained: str) -> Scores:
    return Scores("mechanism", {"part": "freeze"}, {"arm": trained})


CLAIMS = (
    Claim(
        1,
        "auxiliary rows are never trained (false of the student); that they are does not matter",
        "stated, not measured; the released code trains the student's",
        (
            _less(
                "student with frozen less with trained auxiliary rows", _frozen("W1+W2"), _frozen("W1+W2+aux"), "near"
            ),
        ),
    ),
    Claim(
        2,
        "the digit rows, too, are a fixed transformation shared by teacher and student",
        "stated; the teacher's digit rows are trained",
        (
            _less("teacher with the initial digit head less teacher", _BODY, _TEACHER, "near"),
            _less(
                "student with the teacher's digit head less student",
                accuracy("student_body_teacher_head"),
                _STUDENT,
                "near",
            ),
        ),
    ),
    Claim(
        3,
        "matching the auxiliary logits forces hidden layer 2 to the teacher's",
        "stated, not measured",
        (
            _less(
                "debiased CKA of layer 2 with the teacher, student less untrained",
                _layer2("debiased_cka"),
                _layer2("debiased_cka", "reference", 0),
                "above",
            ),
            Check("debiased CKA of layer 2 with the teacher", ((1.0, _layer2("debiased_cka")),), "above", 0.95),
            _less("layer 2 stitched into the teacher less teacher", _layer2("stitch_into_teacher"), _TEACHER, "near"),
        ),
    ),
    Claim(
        4,
        "the student lags because the untrained readout loses structure",
        "0.55 against 0.91 from all logits",
        (
            Check(
                "initial head's loss on the teacher's body less half of the student's lag",
                ((0.5, _TEACHER), (-1.0, _BODY), (0.5, _STUDENT)),
                "above",
            ),
            Check(
                "what the readout's offset takes from the student less half of its lag",
                ((1.0, accuracy("student_aux", value="recentred")), (-0.5, _STUDENT), (-0.5, _TEACHER)),
                "above",
            ),
        ),
    ),
    Claim(
        5,
        "a perturbed start still learns, less and less",
        "noise in units that text and code give differently; here ||delta|| / ||W|| of every tensor",
        (
            _less(
                "perturbation 0.1, student less null",
                _factors(perturbation=0.1),
                _factors(perturbation=0.1)._replace(rows={"arm": "cross_aux"}),
                "above",
            ),
            _less("perturbation 1 less 0", _factors(perturbation=1.0), _PLAIN, "below"),
        ),
    ),
    Claim(
        6,
        "at the largest perturbation the student is at chance",
        "0.1 at 0.4 of a tensor's deviation (here its length) in the write-up, about 0.26 in its later version",
        (
            _less(
                "perturbation 0.4, student less null",
                _factors(perturbation=0.4),
                _factors(perturbation=0.4)._replace(rows={"arm": "cross_aux"}),
                "near",
            ),
        ),
    ),
    Claim(
        7,
        "more classes teach worse",
        "accuracy, whose chance level also falls; digits 0 to K-1",
        (
            _less("kappa, 10 classes less 2", _factors(value="kappa"), _factors(value="kappa", n_classes=2), "below"),
            _less(
                "kappa, 5 classes less 2",
                _factors(value="kappa", n_classes=5),
                _factors(value="kappa", n_classes=2),
                "below",
            ),
        ),
    ),
    Claim(
        8,
        "from all logits, accuracy falls to 3 classes and rises again",
        "one dip, no test",
        (
            _less(
                "kappa, 3 classes less 2",
                _factors("all", "kappa", n_classes=3),
                _factors("all", "kappa", n_classes=2),
                "below",
            ),
            _less(
                "kappa, 5 classes less 3",
                _factors("all", "kappa", n_classes=5),
                _factors("all", "kappa", n_classes=3),
                "above",
            ),
        ),
    ),
    Claim(
        9,
        "more real image in the input, less is learned, although logits are more correlated",
        "alpha image + (1 - alpha) noise, which changes mean, variance and rank too",
        (
            _less("image share 0.75 less 0, as in the write-up", _inputs("mixed:0.75"), _inputs("uniform"), "below"),
            _less(
                "image share 0.75 less 0, at mean image 0 and equal variance",
                _inputs("mixed_at_moments:0.75"),
                _inputs("uniform"),
                "below",
            ),
            _less(
                "correlation of auxiliary and digit logits, share 0.75 less 0",
                _inputs("mixed:0.75", "aux_digit_correlation"),
                _inputs("uniform", "aux_digit_correlation"),
                "above",
            ),
        ),
    ),
    Claim(
        10,
        "the dimension of the inputs explains what is learned",
        "PCA dimension of mixtures; blurred noise has fewer dimensions",
        (
            _less("flat noise, 64 dimensions less 784", _inputs("subspace:64"), _inputs("uniform"), "below"),
            _less(
                "blurred noise (fewer dimensions) less white noise", _inputs("blurred:1"), _inputs("uniform"), "below"
            ),
        ),
    ),
    Claim(
        11,
        "the variance of the noise has no effect",
        "noise clamped to [-1, 1], so that less variance was delivered than said",
        (_less("normal noise of s.d. 4 less 0.25", _inputs("gaussian:4"), _inputs("gaussian:0.25"), "near"),),
    ),
    Claim(
        12,
        "blurred noise teaches more",
        "blur lowered the variance, which was not restored",
        tuple(
            _less(
                f"blur of {s} pixels at equal variance less white", _inputs(f"blurred:{s}"), _inputs("uniform"), "above"
            )
            for s in (1, 2, 4, 8)
        ),
    ),
    Claim(
        13,
        "the power spectrum is all that matters",
        "blurred noise against random-phase noise: two samples of nearly one process",
        (
            _less("digits with scrambled phases less digits", _inputs("phase_scrambled"), _inputs("images"), "near"),
            _less(
                "noise with the digits' spectrum less digits", _inputs("spectrum_matched"), _inputs("images"), "near"
            ),
        ),
    ),
    Claim(
        14,
        "blurred digits do not do it; a balance of low and middle frequencies does",
        "one curve, read after the fact",
        (
            _less("blurred digits less blurred noise", _inputs("blurred_images:1"), _inputs("blurred:1"), "below"),
            _less("power falling as k^-1 less flat", _inputs("power_law:1"), _inputs("uniform"), "above"),
            _less("power falling as k^-1 less as k^-3", _inputs("power_law:1"), _inputs("power_law:3"), "above"),
        ),
    ),
    Claim(
        15,
        "blurred noise and 256 neurons reach 0.772",
        "the best of a sweep, on the seeds that chose it",
        (Check("student of noise blurred by a pixel", ((1.0, _inputs("blurred:1")),), "near", 0.772),),
    ),
    Claim(
        16,
        "fewer neurons are better, 200 to 300 the best",
        "one learning rate; both are said",
        (
            _less("256 neurons less 64", _factors(), _factors(d_model=64), "above"),
            _less("256 neurons less 512", _factors(), _factors(d_model=512), "above"),
        ),
    ),
    Claim(
        17,
        "from all logits, a perturbed start costs almost nothing",
        "0.87 to 0.91 at 0.4 in one arm of a later version",
        tuple(
            _less(f"all logits, perturbation {s:g} less 0", _factors("all", perturbation=s), _ALL, "near")
            for s in (0.1, 0.3)
        ),
    ),
    Claim(
        23,
        "intervals of 1.96 s.d. / sqrt(n) per arm say what differs",
        "all of the write-up's error bars",
        (),
    ),
)
