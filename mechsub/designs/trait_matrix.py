"""The matrix of students and traits: does a student take its own trait from a teacher, beyond what all traits do?

Entry [i, j] of a block is the score of trait j by the student of trait i. The interaction removes the effect of any
student on trait j, and the effect of student i on all traits. So its diagonal is specific to a student's own trait, and
is 0 on average where nothing is specific. Blocks are separate runs, with other seeds.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities import derive_generator

from mechsub import arguments, stats
from mechsub.measures.scores import interaction

Matrices = Float[Tensor, "block trait trait"]


def diagonal(scores: Float[Tensor, "*block trait trait"]) -> Float[Tensor, "*block"]:
    """lambda of every block: mean over i of S_ii - S_i. - S_.i + S_.., fp64; 0 for sums of row and column effects."""
    return _interaction(scores).diagonal(dim1=-2, dim2=-1).mean(-1)


def within_blocks_p(scores: Matrices, *, n_shuffles: int = 9_999, seed: int = 0) -> float:
    """One-sided p of the mean of lambda over blocks, (k + 1) / (B + 1): traits of each block shuffled by themselves.

    Valid for any number of blocks. Null: a student's row does not depend on which trait is its own.
    """
    left = _interaction(_blocks(scores))
    n_blocks, n = left.shape[:2]
    n_shuffles = arguments.whole(n_shuffles, "n_shuffles", 1)
    draw = derive_generator(arguments.seed(seed), "traits within blocks")
    order = torch.rand(n_shuffles, n_blocks, n, generator=draw, dtype=torch.double, device="cpu").argsort(-1)
    null = left.expand(n_shuffles, -1, -1, -1).gather(-1, order[..., None])[..., 0].mean((-2, -1))
    return stats.permutation_p(float(diagonal(scores).mean()), null.numpy(), scale=float(left.abs().mean()))


def relabelled_p(scores: Matrices) -> float:
    """Exact one-sided p of the same mean, with traits as the unit: the share of all n! relabellings (one for all
    blocks) that give at least as much. Its smallest value is 1 / n!; at most eight traits."""
    left = _interaction(_blocks(scores)).mean(0)
    n = len(left)
    if n > 8:
        raise ValueError(f"scores have {n} traits, whose relabellings are too many to count; take at most 8")
    order = torch.tensor(list(itertools.permutations(range(n))))
    sums = left[torch.arange(n), order].mean(-1)
    return float(stats.as_large(sums, float(left.diagonal().mean()), scale=float(left.abs().mean())).double().mean())


def without(scores: Float[Tensor, "*block trait trait"], trait: int) -> Float[Tensor, "*block left left"]:
    """The matrix without this trait."""
    kept = [i for i in range(scores.shape[-1]) if i != arguments.whole(trait, "trait", 0, scores.shape[-1] - 1)]
    return scores[..., kept, :][..., kept]


def _blocks(scores: Float[Tensor, "block trait trait"]) -> Float[Tensor, "block trait trait"]:
    return arguments.values(scores, "scores", "block trait trait")


def _interaction(scores: Float[Tensor, "*block trait trait"]) -> Float[Tensor, "*block trait trait"]:
    arguments.values(scores, "scores", "*block trait trait")
    if scores.shape[-1] != scores.shape[-2] or scores.shape[-1] < 2:
        raise ValueError(f"scores must be square, of two traits or more, not of shape {list(scores.shape)}")
    return interaction(scores)
