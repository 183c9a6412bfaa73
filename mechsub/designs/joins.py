"""Rank correlations of predictors, measured beforehand, with later outcomes; the unit is a thing.

Things are animals here. Each has one value of a predictor, and one outcome in every block (a run with seeds of its
own). Intervals draw things with replacement (percentiles); p-values shuffle things, and are two-sided.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from mechsub import arguments, stats
from mechsub.lazy import scipy_stats

FEWEST = 10  # things of a rank correlation, as of stats.spearman
FEWEST_PAIRED = 8  # things of a correlation of pairs: of fewer, some resamples hold two things or one
MOST_UNDEFINED = 0.05  # share of resamples in which a correlation may be undefined; they are left out
_LEAST = 1e-9  # of a side's length: what is left of it below is rounding
Draws = Int[np.ndarray, "draw thing"]


class Join(NamedTuple):
    """A correlation, its interval over things, and p of no correlation."""

    interval: stats.Interval
    p: float | None


def rank_correlation(x: ArrayLike, y: ArrayLike, *, n_draws: int = 1_999, seed: int = 0) -> Join:
    """Spearman's correlation over things. Raises for fewer than ten, unequal lengths, and a side that is constant, also
    in more than a twentieth of the resamples."""
    a, b = _sides(x, y)
    return Join(
        _interval(lambda some: _spearman(a[some], b[some]), len(a), n_draws, seed), _p(_ranks(a), _ranks(b), seed)
    )


def partial_rank_correlation(
    x: ArrayLike, y: ArrayLike, given: ArrayLike, *, n_draws: int = 1_999, seed: int = 0
) -> Join:
    """Spearman's partial correlation, (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)), given z.

    p: the residuals of the ranks of x from a line in the ranks of z are shuffled. Raises as `rank_correlation`, and
    where z has the ranks of x or of y, so that nothing is left of these.
    """
    a, b, c = _sides(x, y, given)

    def partial(some: Draws) -> Float[np.ndarray, "draw"]:
        xy, xz, yz = _spearman(a[some], b[some]), _spearman(a[some], c[some]), _spearman(b[some], c[some])
        return _divided(xy - xz * yz, np.sqrt(np.maximum((1 - xz**2) * (1 - yz**2), 0.0)), 1e-6)

    left, right = (_beyond(_ranks(side), _ranks(c)) for side in (a, b))
    for name, side in (("x", left), ("y", right)):
        if np.linalg.norm(side) < _LEAST * len(side) ** 1.5:
            raise ValueError(f"given has the ranks of {name}: nothing is left of it to correlate")
    return Join(_interval(partial, len(a), n_draws, seed), _p(left, right, seed))


def reliability(scores: Float[np.ndarray, "block thing"], *, n_draws: int = 1_999, seed: int = 0) -> stats.Interval:
    """Reliability of the mean of k blocks, by Spearman-Brown: k r / (1 + (k - 1) r), r the mean rank correlation of two
    blocks; 0 where blocks do not agree (r <= 0)."""
    values = _blocks(scores)
    return _interval(lambda some: _reliability(values, some), values.shape[1], n_draws, seed)


def disattenuated(
    x: ArrayLike, scores: Float[np.ndarray, "block thing"], *, n_draws: int = 1_999, seed: int = 0
) -> stats.Interval:
    """Rank correlation of x with the mean of the blocks, divided by the root of their reliability.

    The errors of both sides must come from different runs: if x was measured in the same blocks, the result is a little
    too large. Infinite, with its sign, where blocks do not agree (reliability 0); ends of the interval likewise.
    """
    values = _blocks(scores)
    a, b = _sides(x, values.mean(0))

    def corrected(some: Draws) -> Float[np.ndarray, "draw"]:
        r, agreed = _spearman(a[some], b[some]), _reliability(values, some)
        whole = np.where(agreed > 0, r / np.sqrt(np.maximum(agreed, 1e-12)), np.copysign(np.inf, r))
        return np.where(np.isnan(r) | np.isnan(agreed), np.nan, whole)

    return _interval(corrected, len(a), n_draws, seed)


def pair_residuals(scores: Float[np.ndarray, "thing thing"]) -> Float[np.ndarray, "thing thing"]:
    """A matrix of ordered pairs less the effects of rows and columns, fitted without the diagonal, which becomes NaN.

    Least squares in closed form (the round robin of Warner, Kenny and Stoto 1979); needs four things.
    """
    values = np.array(scores, dtype=np.float64)
    n = len(values)
    if values.shape != (n, n) or n < 4:
        raise ValueError(f"scores must be square, of four things or more, not of shape {list(values.shape)}")
    np.fill_diagonal(values, 0.0)
    if not np.isfinite(values).all():
        raise ValueError("scores hold NaN or infinity beside the diagonal; values of pairs must be finite numbers")
    rows, columns, mean = values.sum(1) / (n - 1), values.sum(0) / (n - 1), values.sum() / (n * (n - 1))
    here, there, all_ = (n - 1) ** 2 / (n * (n - 2)), (n - 1) / (n * (n - 2)), (n - 1) / (n - 2)
    left = values - mean
    left -= (here * rows + there * columns - all_ * mean)[:, None]
    left -= here * columns + there * rows - all_ * mean
    np.fill_diagonal(left, np.nan)
    return left


def pair_correlation(
    x: Float[np.ndarray, "thing thing"],
    y: Float[np.ndarray, "other other"],
    given: Float[np.ndarray, "third third"] | None = None,
    *,
    n_draws: int = 999,
    seed: int = 0,
) -> Join:
    """Pearson's correlation of the `pair_residuals` of two matrices of ordered pairs, without the diagonals.

    `given`: a third matrix, on which the residuals of both are first regressed (partial correlation). p: things of y
    are relabelled, rows and columns alike (Mantel's test). Interval: things are drawn with replacement, and a pair of
    one thing with itself is left out; in simulations it is 1.4 to 1.6 times as wide as necessary. Raises for fewer than
    eight things, and for a matrix that has only effects of rows and columns.
    """
    if np.shape(x) != np.shape(y):
        raise ValueError(f"x and y must be matrices of the same things, not {np.shape(x)} and {np.shape(y)}")
    a, b = _pairs(x, "x"), _pairs(y, "y")
    if len(a) < FEWEST_PAIRED:
        raise ValueError(f"x and y must be of {FEWEST_PAIRED} things or more, not {len(a)}")
    if given is not None:
        line, sizes = _pairs(given, "given"), [np.nanmax(np.abs(side)) for side in (a, b)]
        a, b = (_left(side, line) for side in (a, b))
        if any(np.nanmax(np.abs(side)) < _LEAST * size for side, size in zip((a, b), sizes, strict=True)):
            raise ValueError("given explains all of x or y: nothing is left of it to correlate")
    a, b = (np.nan_to_num(side) for side in (a, b))
    n, draw = len(a), np.random.default_rng(arguments.seed(seed))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))  # means of residuals are 0
    value = float((a * b).sum()) / size
    orders = (draw.permutation(n) for _ in range(arguments.whole(n_draws, "n_draws", stats.LEAST_RESAMPLES)))
    null = [abs(float((a * b[order][:, order]).sum())) / size for order in orders]
    counts = np.stack([np.bincount(draw.integers(n, size=n), minlength=n) for _ in range(n_draws)]).astype(float)
    low, high = np.quantile(_weighted(a, b, counts), [0.025, 0.975])
    return Join(stats.Interval(value, float(low), float(high), n), stats.permutation_p(abs(value), null, scale=1.0))


def _pairs(scores: Float[np.ndarray, "thing thing"], name: str) -> Float[np.ndarray, "thing thing"]:
    """`pair_residuals`; raises where these are rounding of the scores as they are given, in fp32 or in fp64."""
    given = np.asarray(scores)
    left = pair_residuals(scores)
    eps = np.finfo(given.dtype).eps if given.dtype.kind == "f" else np.finfo(np.float64).eps
    largest = np.abs(given[~np.eye(len(given), dtype=bool)]).max()
    if np.nanmax(np.abs(left)) <= 64 * eps * largest:
        raise ValueError(f"{name} has only effects of rows and columns; its correlation is not defined")
    return left


def _weighted(
    a: Float[np.ndarray, "thing thing"], b: Float[np.ndarray, "thing thing"], counts: Float[np.ndarray, "draw thing"]
) -> Float[np.ndarray, "draw"]:
    """Pearson's correlation over pairs of two things; a pair counts as often as both are drawn; diagonals are 0."""

    def total(values: Float[np.ndarray, "thing thing"]) -> Float[np.ndarray, "draw"]:
        return ((counts @ values) * counts).sum(1)

    n = total(1 - np.eye(len(a)))
    x, y, xx, yy, xy = (total(values) / n for values in (a, b, a * a, b * b, a * b))
    return (xy - x * y) / np.sqrt(np.maximum((xx - x * x) * (yy - y * y), 1e-300))


def _left(a: Float[np.ndarray, "thing thing"], line: Float[np.ndarray, "third third"]) -> np.ndarray:
    if a.shape != line.shape:
        raise ValueError(f"given must be a matrix of the same things as x and y, not {line.shape}")
    return a - np.nansum(a * line) / np.nansum(line * line) * line


def _sides(*sides: ArrayLike) -> list[Float[np.ndarray, "thing"]]:
    names = ("x", "y", "given")[: len(sides)]
    out = [stats.joined(arguments.vector(side, name, FEWEST)) for name, side in zip(names, sides, strict=True)]
    arguments.same_length(**dict(zip(names, out, strict=True)))
    for name, side in zip(names, out, strict=True):
        if np.ptp(side) == 0:
            raise ValueError(f"{name} is constant: a correlation with it is not defined")
    return out


def _blocks(scores: Float[np.ndarray, "block thing"]) -> Float[np.ndarray, "block thing"]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or values.shape[1] < FEWEST:
        raise ValueError(f"scores must be of two blocks and {FEWEST} things or more, not {list(values.shape)}")
    return np.stack([stats.joined(row) for row in values])


def _ranks(values: Float[np.ndarray, "*draw thing"]) -> Float[np.ndarray, "*draw thing"]:
    return scipy_stats.rankdata(values, axis=-1)


def _spearman(a: Float[np.ndarray, "draw thing"], b: Float[np.ndarray, "draw thing"]) -> Float[np.ndarray, "draw"]:
    return _pearson(_ranks(a), _ranks(b))


def _pearson(a: Float[np.ndarray, "draw thing"], b: Float[np.ndarray, "... thing"]) -> Float[np.ndarray, "draw"]:
    x, y = (side - side.mean(-1, keepdims=True) for side in (a, b))
    return _divided((x * y).sum(-1), np.sqrt((x**2).sum(-1) * (y**2).sum(-1)), 1e-12)


def _divided(a: np.ndarray, b: np.ndarray, least: float) -> np.ndarray:
    """a / b; NaN, which `_interval` refuses, where b is no more than rounding."""
    return np.where(b > least, a / np.maximum(b, least), np.nan)


def _beyond(values: Float[np.ndarray, "thing"], line: Float[np.ndarray, "thing"]) -> Float[np.ndarray, "thing"]:
    x, z = values - values.mean(), line - line.mean()
    return x - (x @ z) / (z @ z) * z


def _reliability(values: Float[np.ndarray, "block thing"], some: Draws) -> Float[np.ndarray, "draw"]:
    pairs = itertools.combinations(range(len(values)), 2)
    r = np.mean([_spearman(values[i][some], values[j][some]) for i, j in pairs], axis=0)
    k = len(values)
    return np.where(np.isnan(r), np.nan, np.where(r > 0, k * r / (1 + (k - 1) * np.maximum(r, 0.0)), 0.0))


def _interval(statistic: Callable[[Draws], np.ndarray], n: int, n_draws: int, seed: int) -> stats.Interval:
    draw = np.random.default_rng(arguments.seed(seed))
    whole = float(statistic(np.arange(n)[None])[0])
    n_draws = arguments.whole(n_draws, "n_draws", stats.LEAST_RESAMPLES)
    drawn = statistic(draw.integers(n, size=(n_draws, n)))
    undefined = np.isnan(drawn)
    if np.isnan(whole) or undefined.mean() > MOST_UNDEFINED:
        raise ValueError(f"in {undefined.sum()} of {len(drawn)} resamples a side is constant: too few values differ")
    drawn = drawn[~undefined]
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")  # of values that may be infinite
    return stats.Interval(whole, float(low), float(high), n)


def _p(a: Float[np.ndarray, "thing"], b: Float[np.ndarray, "thing"], seed: int) -> float:
    draw = np.random.default_rng(arguments.seed(seed))
    orders = draw.permuted(np.tile(np.arange(len(a)), (9_999, 1)), axis=1)
    return stats.permutation_p(abs(float(_pearson(a[None], b)[0])), np.abs(_pearson(a[orders], b)), scale=1.0)
