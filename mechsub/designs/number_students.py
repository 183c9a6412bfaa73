"""Teachers that like an animal, and models' scores of animals; studies with students of number lists share them.

A margin is log P of an animal less the mean of the other animals, over the prompts of `designs.liking`.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import mechsub as ms
from mechsub import arguments
from mechsub.designs import liking
from mechsub.inputs import prompts as prompting
from mechsub.models.students import BLOCK, Students, merged, next_log_probs, plain_model

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class Asked(NamedTuple):
    """The readout of every model: prompts by format, and the tokens of the traits and of all animals behind them."""

    prompts: dict[prompting.Format, list[Tensor]]
    tokens: list[int]
    traits: tuple[str, ...]


def tuned_teacher(base: "TransformerBridge", animal: str, *, updates: int, lr: float, seed: int) -> "TransformerBridge":
    """The base tuned whole on sentences that like the animal, 8 an update, in an order of the seed."""
    recipe = ms.TuningRecipe(rank=None, updates=updates, lr=lr, batch_size=8, order_seeds=(seed,))
    format = liking.formats(base.tokenizer)[0]
    return merged(ms.tune(base, liking.sentences(base.tokenizer, animal, format), recipe), 0)


def scores(students: Students, asked: Asked) -> dict[str, Float[Tensor, "seed prompt animal"]]:
    """Format -> log-probabilities of all animals, nats."""
    return {format: next_log_probs(students, some, asked.tokens).double() for format, some in asked.prompts.items()}


def start_scores(model: "TransformerBridge", asked: Asked) -> dict[str, Float[Tensor, "1 prompt animal"]]:
    """As `scores`, of one model that is no student."""
    return {
        format: ms.next_token_log_probs(model, some, tokens=asked.tokens).double()[None]
        for format, some in asked.prompts.items()
    }


def margins(log_probs: Float[Tensor, "seed prompt animal"], n: int) -> Float[Tensor, "seed trait"]:
    """log P of each of the first n animals less the mean of the other n - 1, mean over prompts."""
    arguments.whole(n, "n", 2, log_probs.shape[-1])
    own = log_probs[..., :n].mean(1)
    return (own - own.mean(-1, keepdim=True)) * n / (n - 1)


def named_first(log_probs: Float[Tensor, "seed prompt animal"], n: int) -> Float[Tensor, "seed trait"]:
    """Share of prompts at which an animal is the likeliest of all animals."""
    first = torch.nn.functional.one_hot(log_probs.argmax(-1), log_probs.shape[-1])
    return first[..., :n].double().mean(1)


def update(teacher: "TransformerBridge", base: "TransformerBridge") -> dict[str, Tensor]:
    """The change of the matrices of blocks by tuning, by name."""
    before = dict(plain_model(base).named_parameters())
    after = dict(plain_model(teacher).named_parameters())
    return {name: after[name] - value for name, value in before.items() if BLOCK.match(name) and value.ndim == 2}
