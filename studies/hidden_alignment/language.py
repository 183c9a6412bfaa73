"""`studies.hidden_alignment` of a language model: states under "You love owls" beside those under "You love 087".

Does a layer represent an animal as it represents its number? That is the number that the animal's prompt favours most
(the largest interaction of the stored matrix animal -> number) or, as a control, least. Null: the same states in other
pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

import mechsub as ms
from mechsub import lab
from mechsub.designs import love

Square = Float[Tensor, "animal animal"]
Orders = Int[Tensor, "count animal"]
ENDS = torch.tensor([0.025, 0.95, 0.975], dtype=torch.float64)  # quantiles of a null


def run(cfg, matrices: lab.Stored) -> Iterator[dict]:
    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    yield from compare(gather(found), permutations(len(found.asked.animals), cfg.n_permutations, cfg.seed))
    yield {
        "provenance": {
            **love.provenance(found),
            "basis": "residual stream after every block, raw; centred over animals",
            "control": "the number with the lowest interaction in place of the highest",
            "null": f"{cfg.n_permutations} permutations of the pairs; p one-sided, Holm over layers in the table",
            "unit": "chosen numbers, each with its animals",
        }
    }


@dataclass(frozen=True)
class States:
    """States after every block at the last position, under each animal's prompt and under its number's, by pairing."""

    animals: list[str]
    own: Float[Tensor, "layer animal d"]
    numbers: dict[str, list[str]]  # pairing -> the number of every animal
    paired: dict[str, Float[Tensor, "layer animal d"]]  # pairing -> the states under these


def gather(found: love.Prompted) -> States:
    """The states of all animals, and of the numbers that belong to any of them."""
    q, specific = found.asked, ms.scores.interaction(found.tensors["animal_to_number"])
    chosen = {"favoured": specific.argmax(-1).tolist(), "lowest": specific.argmin(-1).tolist()}
    needed = sorted({n for numbers in chosen.values() for n in numbers})
    animals = [q.love_animal(i, 0) for i in range(len(q.animals))]
    own = love.last_states(q.model, animals, lab.span(0.05, 0.4, "states"))
    under = love.last_states(q.model, [q.love(n, 0) for n in needed], lab.span(0.4, 0.9, "states"))
    numbers = {pairing: [q.partners[n].text for n in some] for pairing, some in chosen.items()}
    paired = {pairing: under[:, [needed.index(n) for n in some]] for pairing, some in chosen.items()}
    return States([animal.text for animal in q.animals], own, numbers, paired)


def permutations(n: int, count: int, seed: int) -> Orders:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n, generator=generator) for _ in range(count)])


def compare(states: States, orders: Orders) -> Iterator[dict]:
    """One row per pairing, layer and metric, and one per animal for the cosine, beside its mean over all others."""
    grams = [unit_gram(x) for x in states.own]
    for pairing, numbers in states.numbers.items():
        for layer, y in enumerate(states.paired[pairing]):
            keys = {"pairing": pairing, "layer": layer, "n_distinct": len(set(numbers))}
            cosines = pair_cosines(states.own[layer], y)
            found = {"debiased_cka": cka(grams[layer], unit_gram(y), orders), "cosine": mean_cosine(cosines, orders)}
            for metric, (value, null) in found.items():
                low, most, high = torch.tensor(null, dtype=torch.float64).quantile(ENDS).tolist()
                beside = {"null_mean": sum(null) / len(null), "null_low": low, "null_95": most, "null_high": high}
                p = ms.stats.permutation_p(value, null, scale=1.0)
                yield {"kind": "layer", **keys, "metric": metric, "value": value, **beside, "p": p}
            others = (cosines.sum(-1) - cosines.diagonal()) / (len(y) - 1)
            for i, (animal, number) in enumerate(zip(states.animals, numbers, strict=True)):
                values = {"cosine": float(cosines[i, i]), "cosine_others": float(others[i])}
                yield {"kind": "animal", **keys, "animal": animal, "number": number, **values}


def cka(k: Square, m: Square, orders: Orders) -> tuple[float, list[float]]:
    """Debiased CKA of the pairs (row i, row i), and of pairs with the rows of the second permuted, from `unit_gram`s.

    Linear, of Song et al.'s unbiased HSIC; it is the cosine of U-centred Gram matrices (Szekely and Rizzo 2014), and
    U-centring commutes with a permutation of the samples, so it is done once.
    """
    return float((k * m).sum()), [float((k * m[order][:, order]).sum()) for order in orders]


def mean_cosine(cosines: Square, orders: Orders) -> tuple[float, list[float]]:
    """The mean of `pair_cosines` over the pairs (row i, row i), and over pairs with permuted rows."""
    means = cosines[torch.arange(len(cosines)), orders].mean(-1)
    return float(cosines.diagonal().mean()), means.tolist()


def pair_cosines(x: Float[Tensor, "animal d"], y: Float[Tensor, "animal d"]) -> Square:
    """cos(x_i - mean x, y_j - mean y) of all pairs, fp64."""
    x, y = (torch.nn.functional.normalize(v.double() - v.double().mean(0), dim=-1) for v in (x, y))
    return x @ y.T


def unit_gram(x: Float[Tensor, "animal d"]) -> Square:
    """The linear Gram matrix without its diagonal, centred so that sums of products are unbiased, at norm 1; fp64."""
    n, size, x = len(x), x.double().norm(), x.double() - x.double().mean(0)
    gram = (x @ x.T).fill_diagonal_(0)
    rows = gram.sum(0) / (n - 2)
    gram = (gram - rows - rows[:, None] + gram.sum() / ((n - 1) * (n - 2))).fill_diagonal_(0)
    norm = gram.norm()
    if not norm > (1e-10 * size) ** 2:  # what the rounding of a common offset leaves
        raise ValueError("CKA is not defined: a representation is constant over the animals")
    return gram / norm
