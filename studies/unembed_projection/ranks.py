"""Rank correlations, animal by animal, of a metric with an outcome: matched, mismatched, partial, with their nulls.

Metric x and outcome y are matrices [partner, animal]. Matched: the correlation over partners of columns x_a and y_a.
Mismatched: the mean over all other animals a' of that of x_a' and y_a; what a metric says of any animal is in both.
Only their difference is specific to the animal.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import mechsub as ms
from mechsub.lazy import scipy_stats

STATISTICS = (
    "spearman",
    "spearman_mismatched",
    "spearman_difference",
    "partial",
    "partial_mismatched",
    "partial_difference",
)

_CONSTANT = 1e-6  # standard deviation of ranks, or of what covariates leave of them, that is rounding


class View(NamedTuple):
    """A metric, and the animals whose outcomes it is compared with; views of one comparison share no animal."""

    metric: Float[Tensor, "partner animal"]
    animals: Int[Tensor, "_"]


class Comparison(NamedTuple):
    """values: statistic -> [animal]; summary: their means with 95% intervals, p, p_animals and counts.

    draws: partial_difference as it is, and in every resample; equal seeds and sizes resample alike.
    """

    values: dict[str, Float[Tensor, "animal"]]
    summary: dict[str, float]
    draws: Float[Tensor, "draw"]


def ranks(x: Float[Tensor, "partner column"]) -> Float[Tensor, "partner column"]:
    """Ranks within every column, ties at their mean rank, also those that differ by rounding; fp64."""
    columns = [ms.stats.joined(column.numpy()) for column in x.T]
    return torch.from_numpy(scipy_stats.rankdata(np.stack(columns, axis=1), axis=0))


def residual(x: Float[Tensor, "partner column"], covariates: Float[Tensor, "partner covariate"]) -> Tensor:
    """What is left of x after least squares on the covariates and a constant, which may be collinear."""
    centred = covariates.double() - covariates.double().mean(0)
    centred = centred / centred.norm(dim=0).clamp_min(1e-300)
    left, size, _ = torch.linalg.svd(centred, full_matrices=False)
    basis = left[:, size > 1e-8 * max(float(size.max()), 1e-300)] if size.numel() else left
    x = x - x.mean(0)
    return x - basis @ (basis.T @ x)


def correlations(
    x: Tensor, y: Tensor, animals: Tensor, weights: Float[Tensor, "draw partner"]
) -> tuple[Tensor, Tensor]:
    """Matched and mismatched Pearson correlations of columns under weights of the partners, each [draw, animal].

    A constant column correlates 0. All draws are a few matrix products: u is the sum over animals of x / sd(x).
    """
    w = weights / weights.sum(1, keepdim=True)
    x, y = x - x.mean(0), y - y.mean(0)  # a draw's mean is then near 0, and no digits are lost in its variance
    mean_x, mean_y, own_y = w @ x, w @ y[:, animals], y[:, animals]
    sd_x = (w @ x**2 - mean_x**2).clamp_min(0).sqrt()
    sd_y = (w @ own_y**2 - mean_y**2).clamp_min(0).sqrt()
    over_x, over_y = (torch.where(sd > _CONSTANT, 1 / sd, 0.0) for sd in (sd_x, sd_y))
    matched = (w @ (x[:, animals] * own_y) - mean_x[:, animals] * mean_y) * over_x[:, animals] * over_y
    u = over_x @ x.T
    total = ((w * u) @ own_y - (w * u).sum(1, keepdim=True) * mean_y) * over_y
    return matched, (total - matched) / (x.shape[1] - 1)


def compare(
    views: Sequence[View],
    outcome: Float[Tensor, "partner animal"],
    covariates: Float[Tensor, "partner covariate"],
    strata: Sequence,
    *,
    n: int,
    seed: int,
) -> Comparison:
    """All statistics of a metric and an outcome.

    spearman: of the columns' ranks; partial: of what the ranks of the covariates leave of them. Intervals: crossed
    bootstrap, partners and animals both drawn with replacement (Owen 2007), the ranks kept. p: one-sided, of
    partial_difference, when the partners of the metric are shuffled within their stratum. p_animals: when the animals
    of the metric are shuffled, which keeps everything that is common to animals or that similar partners share.
    """
    draw = torch.Generator().manual_seed(seed)
    partners, size = _counts(n, len(outcome), draw), outcome.shape[1]
    weights = torch.cat([torch.ones(1, len(outcome), dtype=torch.float64), partners])
    of = torch.cat([view.animals for view in views])
    drawn = torch.cat([torch.ones(1, len(of), dtype=torch.float64), _counts(n, len(of), draw)])
    columns = drawn[:, of.argsort().argsort()]  # an animal is drawn as often, whatever the order of the views
    kept = ranks(covariates)
    y, found = {"spearman": ranks(outcome)}, {}
    y["partial"] = residual(y["spearman"], kept)
    xs = {"spearman": [ranks(view.metric) for view in views]}
    xs["partial"] = [residual(x, kept) for x in xs["spearman"]]
    for name in xs:
        both = [correlations(x, y[name], v.animals, weights) for x, v in zip(xs[name], views, strict=True)]
        matched, mismatched = (torch.cat(side, dim=1) for side in zip(*both, strict=True))
        found |= {name: matched, f"{name}_mismatched": mismatched, f"{name}_difference": matched - mismatched}
    summary, means = {}, {}
    for name, values in found.items():
        means[name] = (values * columns).sum(1) / len(of)
        low, high = central(means[name][1:])
        summary |= {name: float(means[name][0]), f"{name}_low": low, f"{name}_high": high}
    by_partner, by_animal = _nulls(xs["partial"], y["partial"], views, strata, n, draw)
    order = of.argsort()
    return Comparison(
        {name: values[0][order] for name, values in found.items()},
        summary | {"p": by_partner, "p_animals": by_animal, "n_animals": size, "n_partners": len(outcome)},
        means["partial_difference"],
    )


def central(draws: Float[Tensor, "draw"]) -> tuple[float, float]:
    """The central 95% of draws."""
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _counts(n: int, size: int, generator: torch.Generator) -> Float[Tensor, "n size"]:
    """How often each of `size` things is drawn, in n samples with replacement."""
    drawn = torch.randint(size, (n, size), generator=generator)
    return torch.zeros(n, size, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(n, size, dtype=torch.float64))


def _nulls(xs: list[Tensor], y: Tensor, views: Sequence[View], strata: Sequence, n: int, draw) -> tuple[float, float]:
    """One-sided p of the mean matched - mismatched correlation under shuffled partners, and under shuffled animals."""
    others, used = y.shape[1] - 1, sum(len(view.animals) for view in views)
    pairs, by_animal = torch.zeros(len(y), len(y), dtype=torch.float64), []
    for x, view in zip(xs, views, strict=True):
        u, v = _unit(x), _unit(y[:, view.animals])
        own = u[:, view.animals] @ v.T
        every = u.sum(1)[:, None] * v.sum(1)
        pairs += ((others + 1) * own - every) / (others * used)  # entry [i, j]: partner i of x on partner j of y
        by_animal.append((u.T @ v)[view.animals])
    places = torch.arange(len(y))
    shuffled = [float(pairs[_within(strata, draw), places].sum()) for _ in range(n)]
    moved = [
        sum(float(c[torch.randperm(len(c), generator=draw), torch.arange(len(c))].sum()) for c in by_animal)
        for _ in range(n)
    ]
    return (
        ms.stats.permutation_p(float(pairs.diagonal().sum()), shuffled, scale=1.0),
        ms.stats.permutation_p(sum(float(c.diagonal().sum()) for c in by_animal), moved, scale=1.0),
    )


def _unit(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    norm = centred.norm(dim=0)
    return centred * torch.where(norm > _CONSTANT * len(x) ** 0.5, 1 / norm, 0.0)


def _within(strata: Sequence, generator: torch.Generator) -> Int[Tensor, "partner"]:
    """A random order of the partners in which each stays in its stratum."""
    groups = torch.from_numpy(np.unique(np.asarray(strata), return_inverse=True)[1])
    shuffled = torch.randperm(len(groups), generator=generator)
    order = torch.empty_like(shuffled)
    order[groups.argsort(stable=True)] = shuffled[groups[shuffled].argsort(stable=True)]
    return order
