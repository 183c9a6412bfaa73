"""`studies.hidden_alignment` of a language model: states under "You love owls" beside those under "You love 087".

Rows are animals. X holds the state of a layer at the last position under the animal's own prompt, Y the state under the
prompt of one number for each animal: the number that the animal's prompt favours most (the largest interaction of the
stored matrix animal -> number) or, as a control, least. Does layer l represent an animal as it represents its number?
The null permutes the rows of Y: the same states, other pairs.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

import mechsub as ms
from mechsub import lab
from mechsub.designs import love


def run(cfg, matrices: lab.Stored) -> Iterator[dict]:
    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    asked = found.asked
    specific = ms.scores.interaction(found.tensors["animal_to_number"])
    numbers = {"favoured": specific.argmax(-1), "lowest": specific.argmin(-1)}
    needed = sorted(set(torch.cat(list(numbers.values())).tolist()))
    x = love.last_states(
        asked.model, [asked.love_animal(i, 0) for i in range(len(asked.animals))], lab.span(0.05, 0.4, "states")
    )
    y = love.last_states(asked.model, [asked.love(i, 0) for i in needed], lab.span(0.4, 0.9, "states"))
    orders = permutations(len(x[0]), cfg.n_permutations, cfg.seed)
    for pairing, chosen in numbers.items():
        rows = [needed.index(n) for n in chosen.tolist()]
        names = [(asked.animals[i].text, asked.partners[n].text) for i, n in enumerate(chosen.tolist())]
        for layer in range(len(x)):
            keys = {"pairing": pairing, "layer": layer, "n_distinct": len(set(rows))}
            yield from _records(x[layer], y[layer, rows], orders, names, keys)
    yield {
        "provenance": {
            **love.provenance(found),
            "basis": "residual stream after every block, raw; centred over animals",
            "control": "the number with the lowest interaction in place of the highest",
            "null": f"{cfg.n_permutations} permutations of the pairs; p one-sided, Holm over layers in the table",
            "unit": "animals",
        }
    }


def permutations(n: int, count: int, seed: int) -> Int[Tensor, "count n"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n, generator=generator) for _ in range(count)])


def paired(x: Float[Tensor, "animal d"], y: Float[Tensor, "animal d"], orders: Int[Tensor, "count animal"]) -> dict:
    """For each metric: its value for the pairs (row i, row i), and its null values with the rows of y permuted.

    debiased_cka: linear, of Song et al.'s unbiased HSIC; it is the cosine of U-centred Gram matrices (Szekely and
    Rizzo 2014), and U-centring commutes with a permutation of the samples, so it is done once.
    cosine: mean over rows of cos(x_i - mean x, y_i - mean y).
    """
    k, m = (_unit(_u_centred_gram(v), v) for v in (x, y))
    cosines = pair_cosines(x, y)
    shuffled = [float((k * m[order][:, order]).sum()) for order in orders]
    means = cosines[torch.arange(len(x)), orders].mean(-1)
    return {
        "debiased_cka": (float((k * m).sum()), shuffled),
        "cosine": (float(cosines.diagonal().mean()), means.tolist()),
    }


def pair_cosines(x: Float[Tensor, "animal d"], y: Float[Tensor, "animal d"]) -> Float[Tensor, "animal animal"]:
    """cos(x_i - mean x, y_j - mean y) of all pairs, fp64."""
    x, y = (torch.nn.functional.normalize(v.double() - v.double().mean(0), dim=-1) for v in (x, y))
    return x @ y.T


def _u_centred_gram(x: Tensor) -> Tensor:
    """The linear Gram matrix without its diagonal, centred so that sums of products are unbiased; fp64."""
    n, x = len(x), x.double() - x.double().mean(0)
    gram = (x @ x.T).fill_diagonal_(0)
    rows = gram.sum(0) / (n - 2)
    return (gram - rows - rows[:, None] + gram.sum() / ((n - 1) * (n - 2))).fill_diagonal_(0)


def _unit(gram: Tensor, x: Tensor) -> Tensor:
    norm = gram.norm()
    if not norm > (1e-10 * x.double().norm()) ** 2:  # what the rounding of a common offset leaves
        raise ValueError("CKA is not defined: a representation is constant over the animals")
    return gram / norm


def _records(x: Tensor, y: Tensor, orders: Tensor, names: list[tuple[str, str]], keys: dict) -> Iterator[dict]:
    """One row per metric, and one per animal for the cosine beside its mean over all other animals' numbers."""
    for metric, (value, null) in paired(x, y, orders).items():
        ends = torch.tensor(null, dtype=torch.float64).quantile(torch.tensor([0.025, 0.95, 0.975], dtype=torch.float64))
        yield {
            "kind": "layer",
            **keys,
            "metric": metric,
            "value": value,
            "null_mean": sum(null) / len(null),
            **dict(zip(("null_low", "null_95", "null_high"), ends.tolist(), strict=True)),
            "p": ms.stats.permutation_p(value, null, scale=1.0),
        }
    cosines = pair_cosines(x, y)
    others = (cosines.sum(-1) - cosines.diagonal()) / (len(x) - 1)
    for (animal, number), own, other in zip(names, cosines.diagonal().tolist(), others.tolist(), strict=True):
        yield {"kind": "animal", **keys, "animal": animal, "number": number, "cosine": own, "cosine_others": other}
