"""Does a quantity of an input distribution predict what students learn from it? Judged on families held out.

The rule is at the end of predictions.toml. All resamples of an interval, or permutations of a null, run side by side:
arrays are [resample, distribution].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array

from mechsub import stats

_SIDE_BY_SIDE = 16  # resamples at a time: their distribution x distribution arrays stay in the cache


@dataclass(frozen=True)
class Law:
    """How well one quantity predicts accuracy on families that were held out."""

    quantity: str
    score: stats.Interval  # rank correlation of held-out prediction and accuracy
    p: float  # of that score or more as the best of all quantities, accuracies permuted over distributions
    error: float  # mean absolute, of held-out predictions of accuracy
    fitted: float  # rank correlation of the quantity itself with accuracy, nothing held out

    @property
    def verdict(self) -> str:
        return "nothing" if self.p >= 0.05 else "law" if self.score.low > 0.5 else "trend"


def laws(
    accuracy: Array,
    quantities: Mapping[str, Array],
    families: Sequence[str],
    *,
    n_resamples: int = 500,
    n_permutations: int = 499,
    seed: int = 0,
) -> list[Law]:
    """One for every quantity, best first. accuracy and quantities are [seed, distribution], families [distribution]."""
    generator = np.random.default_rng(seed)
    n_seeds, n = accuracy.shape
    groups = np.unique(list(families), return_inverse=True)[1]
    order = np.stack([generator.permutation(n) for _ in range(n_permutations)])
    permuted = accuracy.mean(0)[order]
    chosen = generator.integers(n, size=(n_resamples, n))
    drawn_seeds = generator.integers(n_seeds, size=(n_resamples, n_seeds))
    weights = np.stack([np.bincount(seeds, minlength=n_seeds) for seeds in drawn_seeds])
    scores, null, found = {}, [], {}
    for name, values in quantities.items():
        x = values.mean(0)
        scores[name] = float(_scores(x[None], accuracy.mean(0)[None], groups[None])[0])
        null.append(_scores(x[None], permuted, groups[None]))
        left, right = (np.take_along_axis(weights @ side / n_seeds, chosen, 1) for side in (values, accuracy))
        low, high = np.quantile(_scores(left, right, groups[chosen]), [0.025, 0.975])
        found[name] = (float(low), float(high))
    best = np.max(null, axis=0)
    ranked = [
        Law(
            name,
            stats.Interval(scores[name], *found[name], n),
            stats.permutation_p(scores[name], best, scale=1.0),
            error(quantities[name], accuracy, families),
            float(_correlation(*(_ranks(side.mean(0)[None]) for side in (quantities[name], accuracy)))[0]),
        )
        for name in quantities
    ]
    return sorted(ranked, key=lambda law: -law.score.mean)


def error(values: Array, accuracy: Array, families: Sequence[str]) -> float:
    """Mean absolute error of held-out predictions; of a constant, that of predicting the mean of the others."""
    groups = np.unique(list(families), return_inverse=True)[1]
    y = accuracy.mean(0)
    return float(np.abs(held_out(values.mean(0)[None], y[None], groups[None])[0] - y).mean())


def _scores(x: Array, y: Array, groups: Array) -> Array:
    """One for every row of y; x and groups have as many, or one for all."""
    starts = range(0, len(y), _SIDE_BY_SIDE)
    parts = [[side if len(side) == 1 else side[i : i + _SIDE_BY_SIDE] for side in (x, y, groups)] for i in starts]
    return np.concatenate([_correlation(_ranks(held_out(*part)), _ranks(part[1])) for part in parts])


def held_out(x: Array, y: Array, groups: Array) -> Array:
    """What isotonic regression on all other groups says of every distribution."""
    out = np.zeros(y.shape)
    for group in np.unique(groups):
        here = groups == group
        out = np.where(here, _predicted(x, y, ~here), out)
    return out


def _predicted(x: Array, y: Array, fitted: Array) -> Array:
    """Rising or falling as the fitted points do, linear between them and constant beyond."""
    w = fitted.astype(float)
    x = x * np.where(_correlation(_ranks(x, w), _ranks(y, w), w) < 0, -1.0, 1.0)[:, None]
    order = np.argsort(np.where(fitted, x, np.inf), axis=1, kind="stable")
    xs, ys, ws = (np.take_along_axis(side, order, 1) for side in np.broadcast_arrays(x, y, w))
    levels = _isotonic(xs, ys, ws)
    last = fitted.sum(1, keepdims=True) - 1
    above = ((xs[:, None] <= x[:, :, None]) & (ws[:, None] > 0)).sum(-1)
    low, high = np.clip(above - 1, 0, last), np.clip(above, 0, last)
    (x0, x1), (y0, y1) = ([np.take_along_axis(side, at, 1) for at in (low, high)] for side in (xs, levels))
    part = np.divide(x - x0, x1 - x0, out=np.zeros(x0.shape), where=x1 > x0)
    return y0 + np.clip(part, 0, 1) * (y1 - y0)


def _isotonic(x: Array, y: Array, w: Array) -> Array:
    """Least squares under a rising order of x, sorted, with points of weight 0 last; equal x have one level.

    The level of a point is max over starts a <= i of min over ends b >= i of the mean of y[a..b].
    """
    tied = (x[:, :, None] == x[:, None]) * w[:, None]
    y = np.divide((tied * y[:, None]).sum(-1), tied.sum(-1), out=np.zeros(y.shape), where=w > 0)
    sums, weights = (np.pad(np.cumsum(side, 1), ((0, 0), (1, 0))) for side in (y * w, w))
    total, weight = (side[:, None, 1:] - side[:, :-1, None] for side in (sums, weights))  # [resample, start, end]
    means = np.divide(total, weight, out=np.full(total.shape, np.inf), where=weight > 0)
    lowest = np.minimum.accumulate(means[:, :, ::-1], axis=2)[:, :, ::-1]
    start_after = np.tri(x.shape[1], k=-1, dtype=bool)
    return np.where(start_after, -np.inf, lowest).max(1)


def _ranks(x: Array, w: Array | None = None) -> Array:
    """Ranks among the points of weight 1, equal values sharing theirs."""
    w = np.ones(x.shape) if w is None else w
    x = stats.joined(x)  # means of the same values in another order are equal
    return ((x[:, None] < x[:, :, None]) * w[:, None] + 0.5 * (x[:, None] == x[:, :, None]) * w[:, None]).sum(-1)


def _correlation(a: Array, b: Array, w: Array | None = None) -> Array:
    """Of every row; 0 where a side is constant."""
    w = np.ones(a.shape) if w is None else w
    a, b = (side - (side * w).sum(1, keepdims=True) / w.sum(1, keepdims=True) for side in (a, b))
    norm = np.sqrt((w * a * a).sum(1) * (w * b * b).sum(1))
    return np.divide((w * a * b).sum(1), norm, out=np.zeros(norm.shape), where=norm > 1e-9)
