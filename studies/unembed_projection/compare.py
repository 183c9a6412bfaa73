"""`studies.unembed_projection` of a language model: a metric against both directions' interactions, without the model.

Partners are compared string by string, and as multisets of tokens, since a metric that is a mean of rows gives 087 and
780 one value; on all partners and animals, and on those that the noise ceiling was measured on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

import mechsub as ms
from studies.unembed_projection.ranks import STATISTICS, Comparison, View, central, correlations, ranks, residual
from studies.unembed_projection.ranks import compare as compare_ranks


class Side(NamedTuple):
    """An outcome, with the places of its partners and animals among all of them."""

    outcome: Float[Tensor, "partner animal"]
    partners: Int[Tensor, "partner"]
    animals: Int[Tensor, "animal"]


@dataclass(frozen=True)
class Pairs:
    """Partners and animals: what is known of the partners, the outcomes of both directions, and a metric."""

    animals: list[str]
    lengths: Int[Tensor, "partner"]
    covariates: Float[Tensor, "partner covariate"]
    units: dict[str, Int[Tensor, "partner"]]  # unit of comparison -> group of every partner
    outcomes: dict[str, Side]
    repeated: dict[str, tuple[Side, Tensor]]  # the outcome on those asked again, and its mean in other wordings
    parts: dict[str, Float[Tensor, "partner animal"]]  # of the metric
    layers: Float[Tensor, "layer partner animal"] | None  # of steering, which has no parts


def compare(found: Pairs, n: int, seed: int) -> Iterator[dict]:
    """Rows of one metric: per animal, their summary, and the noise ceiling of the outcome, for both directions."""
    predictors = {}
    for direction, side in found.outcomes.items():
        predictors[direction] = {part: [View(x, side.animals)] for part, x in found.parts.items()}
        if found.layers is not None:
            matched, mismatched = curve(found.layers, side.outcome, found.covariates)
            ends = {"first half": max(1, len(matched) // 2), "all layers": len(matched)}
            chosen = {part: held_out((matched - mismatched)[:end], seed) for part, end in ends.items()}
            for part, halves in chosen.items():
                predictors[direction][part] = [View(found.layers[layer], half) for layer, half in halves]
            yield from _layer_records(direction, matched, mismatched, chosen["all layers"])
    if "total" in found.parts:
        for part, share in shares(found.parts, found.lengths).items():
            for animal, value in zip(found.animals, share.tolist(), strict=True):
                yield {"kind": "share", "part": part, "animal": animal, "share": value}
    for unit, groups in found.units.items():
        on = partial(grouped, found.covariates, found.lengths, groups, n, seed)
        for direction, side in found.outcomes.items():
            for part, views in predictors[direction].items():
                keys, whole = {"direction": direction, "part": part, "unit": unit}, on(side, views)
                yield {"kind": "summary", "rows": "all", **keys, **whole.summary}
                for i, animal in enumerate(found.animals):
                    values = {statistic: float(whole.values[statistic][i]) for statistic in STATISTICS}
                    yield {"kind": "animal", **keys, "animal": animal, **values}
            if direction in found.repeated:
                keys = {"direction": direction, "unit": unit}
                yield from _ceiling_records(keys, *found.repeated[direction], predictors[direction], on)


def grouped(
    covariates: Tensor, lengths: Tensor, groups: Tensor, n: int, seed: int, side: Side, views: Sequence[View]
) -> Comparison:
    """A metric, given for all partners and animals, with an outcome, both averaged within groups of partners.

    Strata of the shuffles: equally long, and equally many in a group, whose means are equally noisy.
    """
    _, group, size = groups[side.partners].unique(return_inverse=True, return_counts=True)

    def averaged(x: Float[Tensor, "partner column"]) -> Float[Tensor, "group column"]:
        sums = torch.zeros(len(size), x.shape[1], dtype=torch.float64).index_add_(0, group, x.double())
        return sums / size[:, None]

    length = averaged(lengths[side.partners].double()[:, None])[:, 0].long()
    strata = (length * (1 + size.max()) + size).tolist()
    places = {animal: i for i, animal in enumerate(side.animals.tolist())}
    moved = []
    for view in views:
        own = [places[animal] for animal in view.animals.tolist() if animal in places]
        moved.append(View(averaged(view.metric[side.partners][:, side.animals]), torch.tensor(own)))
    return compare_ranks(moved, averaged(side.outcome), averaged(covariates[side.partners]), strata, n=n, seed=seed)


def _ceiling_records(
    keys: dict, side: Side, other: Tensor, predictors: dict[str, list[View]], on: Callable[..., Comparison]
) -> Iterator[dict]:
    """The outcome's interaction in the published wording against its mean in other wordings, and against the metric.

    Both on the same partners and animals, resampled alike: `of_ceiling` is the ratio of their matched - mismatched
    partial correlations, with its interval. The other wordings are averaged, and so less noisy than the outcome.
    """
    ceiling = on(side, [View(other, side.animals)])
    yield {"kind": "ceiling", **keys, **ceiling.summary}
    for part, views in predictors.items():
        same = on(side, views)
        low, high = central(same.draws[1:] / ceiling.draws[1:])
        ratio = {"of_ceiling": float(same.draws[0] / ceiling.draws[0]), "of_ceiling_low": low, "of_ceiling_high": high}
        yield {"kind": "summary", "rows": "ceiling's", "part": part, **keys, **same.summary, **ratio}


def shares(parts: dict[str, Float[Tensor, "partner animal"]], strata: Int[Tensor, "partner"]) -> dict[str, Tensor]:
    """Part -> share of the total's variance over partners, per animal: cov(part, total) / var(total).

    Partners are centred within their stratum; shares of parts that sum to the total sum to 1 (without "other").
    """

    def centred(x: Tensor) -> Tensor:
        out = x.clone()
        for group in strata.unique():
            out[strata == group] -= x[strata == group].mean(0)
        return out

    total = centred(parts["total"])
    whole = (total**2).sum(0).clamp_min(1e-300)
    return {part: (centred(x) * total).sum(0) / whole for part, x in parts.items() if part != "total"}


# The layer of a steering metric.


def curve(layers: Tensor, outcome: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
    """Matched and mismatched partial Spearman of every layer, each [layer, animal]."""
    kept, every = ranks(covariates), torch.arange(outcome.shape[1])
    y, one = residual(ranks(outcome), kept), torch.ones(1, len(outcome), dtype=torch.float64)
    found = [correlations(residual(ranks(x), kept), y, every, one) for x in layers]
    matched, mismatched = (torch.cat(side) for side in zip(*found, strict=True))
    return matched, mismatched


def held_out(difference: Float[Tensor, "layer animal"], seed: int) -> list[tuple[int, Tensor]]:
    """Each half of the animals, with the layer that is best for the other half, by partial matched - mismatched."""
    halves = torch.randperm(difference.shape[1], generator=torch.Generator().manual_seed(seed)).tensor_split(2)
    best = [int(difference[:, half].mean(1).argmax()) for half in reversed(halves)]
    return list(zip(best, halves, strict=True))


def _layer_records(
    direction: str, matched: Tensor, mismatched: Tensor, best: list[tuple[int, Tensor]]
) -> Iterator[dict]:
    for layer, (own, others) in enumerate(zip(matched, mismatched, strict=True)):
        interval = ms.stats.student_t((own - others).tolist())
        yield {
            "kind": "layer",
            "direction": direction,
            "layer": layer,
            "halves_evaluated": sum(layer == chosen for chosen, _ in best),
            "partial": float(own.mean()),
            "partial_mismatched": float(others.mean()),
            "partial_difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
        }
