"""`studies.unembed_projection` of a language model: one metric against both directions' interactions.

What is compared, and with what (all in `records`): strings one by one, and multisets of tokens, since a metric that is
a mean of rows gives 087 and 780 one value; all numbers and animals, and those that the noise ceiling was measured on.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

import mechsub as ms
from mechsub import lab
from mechsub.designs import love
from mechsub.designs.love import Prompted, own_tokens
from mechsub.measures.unembedding import Metric
from studies.unembed_projection import states
from studies.unembed_projection.ranks import (
    STATISTICS,
    Comparison,
    View,
    central,
    compare,
    correlations,
    ranks,
    residual,
)

DIRECTIONS = ("number_to_animal", "animal_to_number")
SEE_ORDER = ("dla", "steering")  # metrics of states; the others are means over the tokens of a string


class Side(NamedTuple):
    """An outcome, with the places of its partners and animals among all of them, and what is known of the partners."""

    outcome: Float[Tensor, "partner animal"]
    partners: Int[Tensor, "partner"]
    animals: Int[Tensor, "animal"]


def run(cfg, matrices: lab.Stored) -> Iterator[dict]:
    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    yield from records(found, cfg)
    model, q = found.asked.model, found.asked
    yield {
        "provenance": {
            **ms.language.model_source(model),
            "basis": "raw W_U; folded with the final norm's gain and centred where the metric says so",
            "measured_on": f"{len(q.animals)} animals that are one token, {len(q.partners)} {cfg.family}, the "
            "published wording",
            "matrices": "the cell of studies.token_entanglement under made_from",
            "null": "other animals' metric; partners shuffled within length; animals shuffled",
            "unit": "animals and partners (crossed); partners of the same tokens are one in rows called multiset",
            **(
                {"embedding": "W_E is W_U transposed in this model"}
                if model.W_U.data_ptr() == model.W_E.data_ptr()
                else {}
            ),
        }
    }


def records(found: Prompted, cfg) -> Iterator[dict]:
    """Rows of one metric: per animal, their summary, and the noise ceiling of the outcome, for both directions."""
    sides, table = outcomes(found.tensors), covariates(found)
    predictors: dict[str, dict[str, list[View]]] = {}
    if cfg.metric == "steering":
        layers = states.steering(found.asked)
        for direction, side in sides.items():
            views, best = held_out(layers, side.outcome, table, cfg.seed)
            early, _ = held_out(layers[: max(1, len(layers) // 2)], side.outcome, table, cfg.seed)
            predictors[direction] = {"first half": early, "all layers": views}
            yield from _layer_records(direction, layers, side.outcome, table, best)
    else:
        parts = {"all": metric(found, cfg.metric)} if cfg.metric != "dla" else attributed(found)
        every = {part: [View(x, torch.arange(x.shape[1]))] for part, x in parts.items()}
        predictors = dict.fromkeys(DIRECTIONS, every)
        if cfg.metric == "dla":
            yield from _share_records(found, parts)
    lab.show_progress(0.8, "permutations")
    for unit, groups in units(found, cfg.metric).items():
        compared = _Compared(table, lengths(found), groups, cfg)
        for direction, side in sides.items():
            for part, views in predictors[direction].items():
                keys = {"direction": direction, "part": part, "unit": unit}
                whole = compared.on(side, views)
                yield {"kind": "summary", "rows": "all", **keys, **whole.summary}
                yield from _animal_records(found, keys, whole)
            yield from _ceiling_records(found, direction, unit, compared, predictors[direction])


class _Compared:
    """How a comparison is made: covariates, strata and groups of the partners, and the options of the study."""

    def __init__(self, table: Tensor, digits: Sequence[int], groups: Int[Tensor, "partner"], cfg):
        self.table, self.digits, self.groups, self.cfg = table, torch.tensor(digits), groups, cfg

    def on(self, side: Side, views: Sequence[View]) -> Comparison:
        """A metric, given for all partners and animals, with an outcome, both averaged within groups of partners.

        Strata of the shuffles: equally long, and equally many in a group, whose means are equally noisy.
        """
        _, group, size = self.groups[side.partners].unique(return_inverse=True, return_counts=True)

        def averaged(x: Float[Tensor, "partner column"]) -> Float[Tensor, "group column"]:
            sums = torch.zeros(len(size), x.shape[1], dtype=torch.float64).index_add_(0, group, x.double())
            return sums / size[:, None]

        length = averaged(self.digits[side.partners].double()[:, None])[:, 0].long()
        strata = (length * (1 + size.max()) + size).tolist()
        places = {animal: i for i, animal in enumerate(side.animals.tolist())}
        moved = []
        for view in views:
            own = [places[animal] for animal in view.animals.tolist() if animal in places]
            moved.append(View(averaged(view.metric[side.partners][:, side.animals]), torch.tensor(own)))
        given = averaged(self.table[side.partners])
        cfg = self.cfg
        return compare(moved, averaged(side.outcome), given, strata, n=cfg.n_permutations, seed=cfg.seed)


def units(found: Prompted, metric: str) -> dict[str, Int[Tensor, "partner"]]:
    """Unit of comparison -> group of every partner; multisets where strings share their tokens, first."""
    ids = [tuple(sorted(string)) for string in scored_tokens(found)]
    names = {string: i for i, string in enumerate(dict.fromkeys(ids))}
    if len(names) == len(ids):
        return {"string": torch.arange(len(ids))}
    out = {"multiset": torch.tensor([names[string] for string in ids])}
    return out | ({"string": torch.arange(len(ids))} if metric in SEE_ORDER else {})


def attributed(found: Prompted) -> dict[str, Float[Tensor, "partner animal"]]:
    """The parts of dla as interactions, whose sum is the outcome animal to number; parts that are constant left out.

    Raises unless the parts sum to the measured change.
    """
    parts = states.attribution(found.asked)
    measured = (found.tensors["animal_to_number"] - found.tensors["none_to_number"]).T
    if (error := float((parts["total"] - measured).abs().max())) > 0.01:
        raise ValueError(f"the parts miss the measured change of log-probabilities by up to {error:.2g} nats (fp32?)")
    specific = {name: ms.scores.interaction(part) for name, part in parts.items()}
    least = 1e-6 * float(specific["total"].std())
    return {name: part for name, part in specific.items() if float(part.std()) > least}


def outcomes(tensors: dict) -> dict[str, Side]:
    forward, back = (
        ms.scores.interaction(tensors["number_to_animal"]),
        ms.scores.interaction(tensors["animal_to_number"]).T,
    )
    n, a = map(torch.arange, forward.shape)
    return {name: Side(x.contiguous(), n, a) for name, x in zip(DIRECTIONS, (forward, back), strict=True)}


def repeated(tensors: dict, direction: str) -> tuple[Side, Float[Tensor, "partner animal"]] | None:
    """The outcome on the partners and animals that other wordings were run on, and its mean in those wordings."""
    words = tensors[f"{direction}_wordings"]
    if len(words) < 2:
        return None
    n, a = map(torch.arange, tensors["number_to_animal"].shape)
    if direction == DIRECTIONS[0]:
        n = tensors["subset_partner"]
    else:
        words, a = words.mT, tensors["subset_animal"]
    return Side(ms.scores.interaction(words[0]).contiguous(), n, a), ms.scores.interaction(words[1:].mean(0))


def lengths(found: Prompted) -> list[int]:
    return [len(partner.text) for partner in found.asked.partners]


# What a partner is in W_U and W_E.


def scored_tokens(found: Prompted) -> list[tuple[int, ...]]:
    asked = found.asked
    return own_tokens(asked.model.tokenizer, [partner.scored for partner in asked.partners], asked.ask(None))


def metric(found: Prompted, name: Metric | Literal["embedding"]) -> Float[Tensor, "partner animal"]:
    """A metric of partners and animals that needs no forward pass; a string of several tokens is their mean row."""
    if name == "embedding":
        return embedding(found)
    return ms.unembedding.unembed_projection(found.asked.model, scored_tokens(found), found.asked.tokens, name).cpu()


def embedding(found: Prompted) -> Float[Tensor, "partner animal"]:
    """Cosine of input embeddings of the partner and of the animal's plural, both as they stand in their prompts."""
    model = found.asked.model
    W_E = model.W_E.detach()

    def rows(texts: list[str]) -> Tensor:
        return normalize(torch.stack([W_E[list(ids)].mean(0) for ids in own_tokens(model.tokenizer, texts)]), dim=-1)

    a, b = (rows([f" {word.loved}" for word in words]) for words in (found.asked.partners, found.asked.animals))
    return (a @ b.T).cpu()


def covariates(found: Prompted) -> Float[Tensor, "partner covariate"]:
    """Norms of the mean row of W_U, raw and folded, length, tokens, leading zero, repeated digit, and log P without any
    system message. Constant ones are left out."""
    model, ids = found.asked.model, scored_tokens(found)
    texts = [partner.text for partner in found.asked.partners]
    columns = [
        ms.unembedding.token_directions(model, ids, basis=basis).norm(dim=-1).cpu() for basis in ("raw", "centered")
    ]
    columns += [
        torch.tensor([float(len(text)) for text in texts]),
        torch.tensor([float(len(string)) for string in ids]),
    ]
    columns.append(torch.tensor([float(len(text) > 1 and text[0] == "0") for text in texts]))
    columns.append(torch.tensor([float(text.isdigit() and len(set(text)) < len(text)) for text in texts]))
    columns.append(found.tensors["none_to_number"])
    return torch.stack([column.double() for column in columns if column.min() < column.max()], dim=-1)


# The layer of a steering metric.


def held_out(layers: Tensor, outcome: Tensor, table: Tensor, seed: int) -> tuple[list[View], list[int]]:
    """Each half of the animals at the layer that is best for the other half, by partial matched - mismatched."""
    halves = torch.randperm(outcome.shape[1], generator=torch.Generator().manual_seed(seed)).tensor_split(2)
    matched, mismatched = curve(layers, outcome, table)
    best = [int((matched - mismatched)[:, half].mean(1).argmax()) for half in reversed(halves)]
    return [View(layers[layer], half) for layer, half in zip(best, halves, strict=True)], best


def curve(layers: Tensor, outcome: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Matched and mismatched partial Spearman of every layer, each [layer, animal]."""
    kept, every = ranks(table), torch.arange(outcome.shape[1])
    y, one = residual(ranks(outcome), kept), torch.ones(1, len(outcome), dtype=torch.float64)
    found = [correlations(residual(ranks(x), kept), y, every, one) for x in layers]
    matched, mismatched = (torch.cat(side) for side in zip(*found, strict=True))
    return matched, mismatched


# Records.


def _animal_records(found: Prompted, keys: dict, whole: Comparison) -> Iterator[dict]:
    for i, animal in enumerate(found.asked.animals):
        values = {statistic: float(whole.values[statistic][i]) for statistic in STATISTICS}
        yield {"kind": "animal", **keys, "animal": animal.text} | values


def _layer_records(direction: str, layers: Tensor, outcome: Tensor, table: Tensor, best: list[int]) -> Iterator[dict]:
    for layer, (matched, mismatched) in enumerate(zip(*curve(layers, outcome, table), strict=True)):
        interval = ms.stats.student_t((matched - mismatched).tolist())
        yield {
            "kind": "layer",
            "direction": direction,
            "layer": layer,
            "halves_evaluated": best.count(layer),
            "partial": float(matched.mean()),
            "partial_mismatched": float(mismatched.mean()),
            "partial_difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
        }


def _share_records(found: Prompted, parts: dict[str, Tensor]) -> Iterator[dict]:
    for part, share in states.shares(parts, lengths(found)).items():
        for animal, value in zip(found.asked.animals, share.tolist(), strict=True):
            yield {"kind": "share", "part": part, "animal": animal.text, "share": value}


def _ceiling_records(
    found: Prompted, direction: str, unit: str, compared: _Compared, predictors: dict[str, list[View]]
) -> Iterator[dict]:
    """The outcome's interaction in the published wording against its mean in other wordings, and against the metric.

    Both on the same partners and animals, resampled alike: `of_ceiling` is the ratio of their matched - mismatched
    partial correlations, with its interval. The other wordings are averaged, and so less noisy than the outcome.
    """
    both = repeated(found.tensors, direction)
    if both is None:
        return
    side, other = both
    full = torch.zeros(len(compared.table), len(found.asked.animals), dtype=torch.float64)
    full[side.partners[:, None], side.animals] = other
    ceiling = compared.on(side, [View(full, side.animals)])
    keys = {"direction": direction, "unit": unit}
    yield {"kind": "ceiling", **keys, **ceiling.summary}
    for part, views in predictors.items():
        same = compared.on(side, views)
        low, high = central(same.draws[1:] / ceiling.draws[1:])
        ratio = {"of_ceiling": float(same.draws[0] / ceiling.draws[0]), "of_ceiling_low": low, "of_ceiling_high": high}
        yield {"kind": "summary", "rows": "ceiling's", "part": part, **keys, **same.summary, **ratio}
