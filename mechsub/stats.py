"""Intervals, paired differences, permutation p-values and corrections for families of tests."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mechsub import arguments
from mechsub.lazy import scipy_special, scipy_stats

LEAST_RESAMPLES = 100  # of a bootstrap interval; at 95% two or three of them lie beyond each end
_ROUNDING = 1e-10  # of the largest value: far above the rounding of fp64 sums, far below what data differ by


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits, from n replicates."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        """To three decimals; to more where these would hide that the interval excludes 0, or that it is not 0."""
        mean, low, high = (format(number, self._digits()) for number in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"

    def _digits(self) -> str:
        """The format of its numbers: the fewest decimals that hide nothing; from the tenth decimal on, powers of 10."""
        near = self.low if self.low > 0 else self.high  # the limit next to 0, of an interval that excludes it
        shown = (near,) if self.low > 0 or self.high < 0 else (self.mean, self.low, self.high) if self.mean else ()
        formats = (f".{decimals}f" for decimals in range(3, 10))
        return next((each for each in formats if not shown or any(float(format(x, each)) for x in shown)), ".2e")

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """In IPython and notebooks, also within lists and dicts."""
        printer.text(f"{self} ({100 * self.level:g}%, n = {self.n})")


@dataclass(frozen=True)
class Paired:
    """A paired difference: its Student-t interval and the two-sided p-value of no difference."""

    interval: Interval
    p: float

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.pretty(self.interval)
        printer.text(f", p = {self.p:.3g}")


def student_t(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean and Student-t interval, mean +- t_{n-1} s / sqrt(n), s with n - 1. Raises for n < 2, for NaN, and for
    a table of values, because its axes may not be replicates."""
    x = arguments.vector(values, "values", 2)
    arguments.share(level, "level")
    half = float(scipy_special.stdtrit(len(x) - 1, (1 + level) / 2)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half, len(x), level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Paired:
    """Mean of a_i - b_i with its Student-t interval and p-value; a and b are in the same order of replicates."""
    x, y = arguments.vector(a, "a", 2), arguments.vector(b, "b", 2)
    arguments.same_length(a=x, b=y)
    d = x - y
    interval = student_t(d, level)
    size = _rounding(a, b, units=4)  # of single values as they were given, in fp32 or in fp64
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    if np.ptp(d) <= size:  # all differences are equal: what is left is the test of signs
        return Paired(interval, 1.0 if abs(d[0]) <= size else 2.0 ** (1 - len(d)))
    p = float(2 * scipy_special.stdtr(len(d) - 1, -abs(float(d.mean())) / error))
    return Paired(interval, p)


def independent_difference(a: Interval, b: Interval) -> Interval:
    """a - b of two independent estimates, from their intervals: with l and u their limits, the lower limit is
    a - b - sqrt((a - l_a)^2 + (u_b - b)^2), the upper one a - b + sqrt((u_a - a)^2 + (b - l_b)^2).

    n is the smaller of both. Raises for intervals of different levels. Source: the method of variance estimates
    recovery (Zou and Donner, Statistics in Medicine 27, 2008).
    """
    for name, side in (("a", a), ("b", b)):
        arguments.instance(side, Interval, name)
    if a.level != b.level:
        raise ValueError(f"a and b must have one level, not {a.level:g} and {b.level:g}")
    mean = a.mean - b.mean
    low = mean - math.hypot(a.mean - a.low, b.high - b.mean)
    return Interval(mean, low, mean + math.hypot(a.high - a.mean, b.mean - b.low), min(a.n, b.n), a.level)


def ratio_of_means(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """mean a / mean b over the same replicates, with the Student-t interval of its linearisation (a - r b) / mean b.

    Use it where the mean of b is far from 0, compared with its own error.
    """
    x, y = arguments.vector(a, "a", 2), arguments.vector(b, "b", 2)
    arguments.same_length(a=x, b=y)
    if abs(y.mean()) <= _rounding(b):
        raise ValueError("b has a mean of 0: a ratio to it is not defined")
    ratio = float(x.mean() / y.mean())
    spread = student_t((x - ratio * y) / y.mean(), level)
    return Interval(ratio, ratio + spread.low, ratio + spread.high, len(x), level)


def sign_flip_p(differences: ArrayLike, *, n_flips: int = 9_999, seed: int = 0) -> float:
    """Two-sided p of a zero-centred symmetric null by random sign flips of the differences, (k + 1) / (B + 1)."""
    d = arguments.vector(differences, "differences", 2)
    n_flips = arguments.whole(n_flips, "n_flips", 1)
    seed = arguments.seed(seed)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_flips, len(d)))
    return permutation_p(abs(float(d.mean())), np.abs((signs * d).mean(1)), scale=float(np.abs(d).mean()))


def permutation_p(observed: float, null: ArrayLike, *, scale: float = 0.0) -> float:
    """One-sided p-value of `observed` against draws from the null: (k + 1) / (B + 1), never 0.

    k counts draws that are at least `observed`, and those that differ from it by rounding (`as_large`).
    """
    draws = arguments.vector(null, "null")
    observed = float(arguments.number(observed, "observed"))
    size = _tie(null, observed, float(arguments.number(scale, "scale", "a number of at least 0", least=0)))
    return float((1 + np.sum(draws >= observed - size)) / (1 + len(draws)))


def as_large(null, observed: float, *, scale: float = 0.0):
    """Where draws of a null are at least `observed`; an array or a tensor, as `null` is.

    Equal values that are computed in another order differ by rounding: such values tie, and a tie counts. `scale` is
    the largest size of the statistic (1 for a correlation), needed where all values are mere rounding.
    """
    if not arguments.is_array(null):
        arguments.refuse("null", "an array or tensor of numbers", null)
    _finite(null, "null")
    observed = float(arguments.number(observed, "observed"))
    scale = float(arguments.number(scale, "scale", "a number of at least 0", least=0))
    return null >= observed - _tie(null, observed, scale)


def _tie(null, observed: float, scale: float) -> float:
    """How far below `observed` a draw ties with it. The median draw has a say in that, and one large draw has none."""
    draws = _plain(null)
    middle = np.median(np.abs(draws)) if draws.size else 0.0
    return _relative(draws) * max(abs(observed), scale, float(middle))


def _rounding(*values, units: int = 100) -> float:
    """The largest difference of equal values: 1e-10 of the largest, or units of the last place of fp32 and less."""
    arrays = [_plain(value) for value in values]
    return _relative(*arrays, units=units) * max(float(np.abs(a).max(initial=0)) for a in arrays)


def _relative(*arrays: np.ndarray, units: int = 100) -> float:
    coarse = [units * float(np.finfo(a.dtype).eps) for a in arrays if a.dtype.kind == "f" and a.dtype.itemsize < 8]
    return max([_ROUNDING, *coarse])


def _plain(value) -> np.ndarray:
    """An array of the value's own precision, which numpy has of all but bfloat16."""
    if arguments.is_tensor(value):
        value = value.detach().cpu()
        value = value.float() if value.dtype.is_floating_point and value.itemsize < 4 else value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float16 else array  # its ties are those of the fp32 sums


def _finite(value, name: str) -> np.ndarray:
    """Numbers of any shape."""
    try:
        x = _plain(value)
    except (ValueError, TypeError, RuntimeError):
        arguments.refuse(name, "an array of numbers", value)
    if x.dtype.kind not in "biuf":
        arguments.refuse(name, "an array of numbers", value)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinity; values must be finite numbers")
    return x


def joined(values: ArrayLike) -> np.ndarray:
    """The values in fp64, with values that differ by rounding made equal, for ranks.

    Rounding is a difference of 1e-10 of the values themselves, so that small values beside large ones keep their order,
    or of 1e-15 of the largest value.
    """
    x = np.asarray(_finite(values, "values"), dtype=np.float64)
    order = np.argsort(x, axis=None, kind="stable")
    flat = x.ravel()[order]
    size = np.abs(flat)
    apart = np.diff(flat) > _ROUNDING * np.maximum(size[1:], size[:-1]) + 1e-15 * size.max(initial=0)
    group = np.concatenate([[0], np.cumsum(apart)])[: len(flat)]
    out = np.empty_like(flat)
    out[order] = flat[np.searchsorted(group, group)]
    return out.reshape(x.shape)


def bootstrap(
    values: ArrayLike,
    statistic: Callable = np.mean,
    *,
    n_resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap; for n >= 25 only (at n = 5 its 95% intervals cover 84%: use student_t).

    Raises for fewer than 100 resamples, and for a statistic that is not finite, also in a resample.
    """
    from scipy.stats import bootstrap as scipy_bootstrap

    x = arguments.vector(values, "values", 25)
    arguments.function(statistic, "statistic")
    n_resamples = arguments.whole(n_resamples, "n_resamples", LEAST_RESAMPLES)
    arguments.share(level, "level")
    seed = arguments.seed(seed)
    rng = np.random.default_rng(seed)
    value = float(statistic(x))
    if not math.isfinite(value):
        raise ValueError(f"the statistic of the values is {value}; it must be a finite number")
    done = scipy_bootstrap(
        (x,), statistic, n_resamples=n_resamples, confidence_level=level, method="percentile", rng=rng
    )
    if undefined := int((~np.isfinite(done.bootstrap_distribution)).sum()):
        raise ValueError(f"in {undefined} of {n_resamples} resamples the statistic is not finite: no interval of it")
    found = done.confidence_interval
    return Interval(value, float(found.low), float(found.high), len(x), level)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion k / n."""
    n = arguments.whole(n, "n", 1)
    k = arguments.whole(k, "k", 0, n)
    tail = (1 - arguments.share(level, "level")) / 2
    low = 0.0 if k == 0 else float(scipy_stats.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(scipy_stats.beta.ppf(1 - tail, k + 1, n - k))
    return Interval(k / n, low, high, n, level)


def spearman(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval:
    """Spearman's rank correlation with its Fisher-z interval, variance (1 + r^2 / 2) / (n - 3) (Bonett, Wright 2000).

    The pairs are taken as independent. A perfect correlation gets the interval of the next lower correlation that n
    allows (half a swap of neighbours), because its own would have no width. Raises for n < 10, unequal lengths and a
    constant side.
    """
    a, b = _correlated(x, y)
    arguments.share(level, "level")
    r, n = float(scipy_stats.spearmanr(a, b).statistic), len(a)
    most = 1 - 6 / (n * (n * n - 1))
    z = math.atanh(min(max(r, -most), most))
    half = float(scipy_stats.norm.ppf((1 + level) / 2)) * math.sqrt((1 + r * r / 2) / (n - 3))
    return Interval(r, min(math.tanh(z - half), r), max(math.tanh(z + half), r), n, level)


def spearman_p(x: ArrayLike, y: ArrayLike) -> float:
    """Two-sided p of no rank correlation, by Student's t of r sqrt((n - 2) / (1 - r^2)); pairs independent, n >= 10.

    Never below 2 / n!, that of a perfect correlation. Raises for unequal lengths and a constant side.
    """
    a, b = _correlated(x, y)
    return max(float(scipy_stats.spearmanr(a, b).pvalue), 2 / math.gamma(min(len(a), 170) + 1))


def _correlated(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = joined(arguments.vector(x, "x", 10)), joined(arguments.vector(y, "y", 10))
    arguments.same_length(x=a, y=b)
    for name, side in (("x", a), ("y", b)):
        if np.ptp(side) == 0:
            raise ValueError(f"{name} is constant: a correlation with it is not defined")
    return a, b


def clustered_spearman(
    x: ArrayLike, y: ArrayLike, clusters: ArrayLike, *, n_resamples: int = 2_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Spearman's correlation over all pairs, its percentile interval by drawing whole clusters with replacement.

    Use it for pairs that are not independent, such as the arms of one seed. Interval.n is the number of clusters.
    Raises for fewer than 10 clusters or 100 resamples, unequal lengths and a constant side, also in a resample.
    """
    a, b = _correlated(x, y)
    labels = arguments.labels(clusters, "clusters", len(a))
    n_resamples = arguments.whole(n_resamples, "n_resamples", LEAST_RESAMPLES)
    arguments.share(level, "level")
    seed = arguments.seed(seed)
    rows = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    if len(rows) < 10:
        raise ValueError(f"clusters must name at least 10 clusters, not {len(rows)}")
    generator = np.random.default_rng(seed)
    drawn = [
        np.concatenate([rows[i] for i in generator.integers(len(rows), size=len(rows))]) for _ in range(n_resamples)
    ]
    if constant := sum(np.ptp(side[some]) == 0 for some in drawn for side in (a, b)):
        raise ValueError(
            f"in {constant} resamples of clusters a side is constant: too few clusters differ for an interval"
        )
    values = [scipy_stats.spearmanr(a[some], b[some]).statistic for some in drawn]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(scipy_stats.spearmanr(a, b).statistic), float(low), float(high), len(rows), level)


def holm(p: ArrayLike) -> list[float]:
    """Holm's adjusted p-values: family-wise error under any dependence (Holm 1979)."""
    values = _probabilities(p)
    order, m = np.argsort(values), len(values)
    out = np.empty_like(values)
    out[order] = np.minimum(np.maximum.accumulate(values[order] * (m - np.arange(m))), 1)
    return out.tolist()


def _probabilities(p: ArrayLike) -> np.ndarray:
    values = arguments.vector(p, "p")
    if values.min() < 0 or values.max() > 1:
        raise ValueError("p must hold p-values, which are within 0..1")
    return values


def shapley(value: Mapping[frozenset, float]) -> dict:
    """Every player's share of value(all) - value(none): its mean gain over all orders in which players can join.

    `value` holds every set of players. The shares sum to the total exactly, to rounding (Shapley 1953).
    """
    if not isinstance(value, Mapping) or not value or not all(isinstance(players, frozenset) for players in value):
        arguments.refuse("value", "a dict of numbers by frozensets of players", value)
    for group, worth in value.items():
        arguments.number(worth, f"value[{arguments.described(set(group))}]")
    players = sorted(frozenset().union(*value))
    n = len(players)
    missing = 2**n - len(value)
    if missing:
        raise ValueError(f"value must hold all {2**n} sets of {n} players; {missing} are missing")

    def share(player) -> float:
        without = [some for some in value if player not in some]
        weights = (math.factorial(len(some)) * math.factorial(n - len(some) - 1) for some in without)
        gains = (value[some | {player}] - value[some] for some in without)
        return sum(w * g for w, g in zip(weights, gains, strict=True)) / math.factorial(n)

    return {player: share(player) for player in players}
