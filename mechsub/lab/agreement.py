"""Predictions for many conditions against the results there; each is a mean over replicates."""

import statistics
from collections.abc import Mapping

import mechsub as ms
from mechsub.lab.findings import Finding, mean


def agreement(key: str, label: str, said: Mapping[str, float], true: Mapping[str, float]) -> list[Finding]:
    """Mean absolute error over conditions, beside the error of predicting the mean of the other conditions; bias; and
    from ten conditions on, rank correlation and the slope of results on predictions. LookupError for fewer than two."""
    _check(key, true, 2)
    total = sum(true.values())
    others = [abs((total - found) / (len(true) - 1) - found) for found in true.values()]
    out = [
        mean(
            f"{key}_error", f"{label}: mean absolute error", {c: abs(said[c] - true[c]) for c in true},
            null=ms.stats.student_t(others), null_label="the mean of the others", unit="conditions",
        ),
        mean(f"{key}_bias", f"{label}: bias", {c: said[c] - true[c] for c in true}, null=0.0, unit="conditions"),
    ]  # fmt: skip
    x, y = [said[c] for c in true], list(true.values())
    if len(true) < 10 or len(set(x)) == 1 or len(set(y)) == 1:
        return out
    rank = Finding(f"{key}_rank", f"{label}: rank correlation", ms.stats.spearman(x, y), 0.0, unit="conditions")
    return [
        *out,
        rank,
        Finding(f"{key}_slope", f"{label}: slope of found on said", _slope(x, y), 1.0, unit="conditions", n=len(x)),
    ]


def extremes(key: str, label: str, said: Mapping[str, float], true: Mapping[str, float]) -> list[Finding]:
    """The median of the absolute errors, and the largest, with its condition in the label."""
    errors = {condition: abs(said[condition] - true[condition]) for condition in true}
    worst = max(errors, key=lambda condition: errors[condition])
    middle = statistics.median(errors.values())
    return [
        Finding(f"{key}_median", f"{label}: median absolute error", middle, unit="conditions", n=len(errors)),
        Finding(f"{key}_largest", f"{label}: largest error: {worst}", errors[worst], unit="conditions", n=len(errors)),
    ]


def _check(key: str, true: Mapping, least: int) -> None:
    if len(true) < least:
        raise LookupError(f"{key!r} is about {len(true)} condition{'s' * (len(true) != 1)}; it needs {least}")


def line_error(key: str, label: str, quantity: Mapping[str, float], true: Mapping[str, float]) -> Finding:
    """Mean absolute error of a straight line on a quantity, fitted to all other conditions, of which two are needed."""
    _check(key, true, 3)
    left = {c: abs(_left_out(c, quantity, true) - true[c]) for c in true}
    return mean(f"{key}_error", f"{label}: mean absolute error, fitted to the others", left, unit="conditions")


def _left_out(condition: str, quantity: Mapping[str, float], true: Mapping[str, float]) -> float:
    others = [c for c in true if c != condition]
    x, y = [quantity[c] for c in others], [true[c] for c in others]
    centre = sum(x) / len(x)
    return sum(y) / len(y) + _slope(x, y) * (quantity[condition] - centre)


def _slope(x: list[float], y: list[float]) -> float:
    a, b = sum(x) / len(x), sum(y) / len(y)
    spread = sum((u - a) ** 2 for u in x)
    return sum((u - a) * (v - b) for u, v in zip(x, y, strict=True)) / spread if spread else 0.0
