"""Positions at which one model, under different prompts, goes on differently after the same beginning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.token_ids import Outputs, check_length, check_prompt, check_prompts
from mechsub.measures.scores import checked_prompts, equal_lengths, next_token_log_probs

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class Divergence(NamedTuple):
    """Likeliest tokens at every position of an answer; `differs`: it is not the likeliest after the neutral prompt."""

    differs: Bool[Tensor, "prompt pos"]
    chosen: Int[Tensor, "prompt pos"]
    neutral: Int[Tensor, "pos"]


@torch.no_grad()
def prompt_divergence(
    model: "TransformerBridge",
    prompts: Sequence[Int[Tensor, "_"]],
    neutral: Int[Tensor, "_"],
    answer: Int[Tensor, "pos"],
    *,
    batch_size: int = 8,
) -> Divergence:
    """Positions i at which the model's likeliest token after a prompt and answer[:i] differs from the neutral prompt's.

    All prompts have the same answer, so that only the prompts differ. With an answer generated after the neutral
    prompt, these are the positions at which the model, told to love something, would have gone on differently. They are
    not the divergence tokens of Schrodi et al. 2025, which compare two biased teachers (`studies.number_strings` has
    those). Raises for an empty answer.
    """
    prompts, neutral = check_prompts(arguments.model(model), prompts), check_prompt(model, neutral, "neutral")
    chosen = likeliest(model, [neutral, *prompts], answer, batch_size=batch_size)
    return Divergence(chosen[1:] != chosen[0], chosen[1:], chosen[0])


@torch.no_grad()
def likeliest(
    model: "TransformerBridge", prompts: Sequence[Int[Tensor, "_"]], answer: Int[Tensor, "pos"], *, batch_size: int = 8
) -> Int[Tensor, "prompt pos"]:
    """The likeliest token after every prompt and answer[:i], for every i below the answer's length."""
    prompts = checked_prompts(model, prompts, batch_size)
    answer = check_prompt(model, answer, "answer")
    check_length(model, max(map(len, prompts)) + len(answer) - 1, "a prompt with the answer behind it")

    def end(activation: Tensor, hook) -> Tensor:
        return activation[:, -len(answer) :]  # the rest would be unembedded for nothing

    out = torch.empty(len(prompts), len(answer), dtype=torch.long)
    for rows, batch in equal_lengths(prompts, batch_size):
        tokens = torch.cat([batch, answer[:-1].expand(len(batch), -1)], dim=1).to(model.W_U.device)
        out[rows] = model.run_with_hooks(tokens, fwd_hooks=[("unembed.hook_in", end)]).argmax(-1).cpu()
    return out


@torch.no_grad()
def sampled(
    model: "TransformerBridge",
    prompt: Int[Tensor, "_"],
    length: int,
    tokens: Outputs,
    generator: torch.Generator,
) -> Int[Tensor, "pos"]:
    """An answer of `length` tokens, drawn from the model's distribution among `tokens`."""
    out = check_prompt(arguments.model(model), prompt)
    start = len(out)
    size = min(arguments.vocabulary(model), arguments.embedding(model))  # what is drawn is read again
    length = arguments.whole(length, "length", 1)
    check_length(model, start + length - 1, "the prompt with the answer behind it")
    arguments.generator(generator)
    tokens = arguments.distinct(arguments.ids(arguments.outputs(model, tokens), size), "tokens")
    allowed = torch.as_tensor(tokens)
    for _ in range(length):
        log_p = next_token_log_probs(model, [out], tokens=allowed.tolist())[0]
        drawn = torch.multinomial(log_p.softmax(-1), 1, generator=generator)
        out = torch.cat([out, allowed[drawn]])
    return out[start:]
