"""What prompts, weights and steering say of animals and numbers, before any teacher or student is tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import mechsub as ms
from mechsub import lab
from mechsub.designs import liking, love
from mechsub.designs.number_students import Asked
from mechsub.inputs import corpora
from mechsub.measures.steering import steered_logits
from mechsub.models.students import logits_at, plain_model
from mechsub.training.tuning import completion_batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BATCH = 32  # lists a forward pass
EVERY = 6  # of the prompts of the readout, those that steering is tried at


class Known(NamedTuple):
    """One value an animal by name; matrices [animal, number] less their means, by source; likeness of rows of W_U."""

    measures: dict[str, list[float]]
    matrices: dict[str, Float[Tensor, "animal number"]]
    rows: Float[Tensor, "animal animal"]


def beforehand(
    base: "TransformerBridge", asked: Asked, matrices: lab.Stored, lists: ms.Corpus, start: Mapping[str, Tensor]
) -> Known:
    """All of it; `lists` are the base's own, `start` what it says of the animals."""
    animals, n = asked.traits, len(asked.traits)
    numbers = ms.numbers.number_tokens(base.tokenizer)[0][0]
    own = asked.tokens[:n]
    found = stored(matrices, animals) | {"told_numbers": told_numbers(base, animals, lists, numbers)}
    gains = found.pop("animal_to_animal").diagonal().tolist()
    found["geometry"] = ms.unembed_projection(base, numbers, own, "centered_cosine").T
    found["geometry_causal"] = ms.unembed_projection(base, numbers, own, "causal").T
    found = {name: ms.interaction(values) for name, values in found.items()}
    measures = {name: size(values) for name, values in found.items()}
    measures["agreement"] = correlations(found["number_to_animal"], found["animal_to_number"]).diagonal().tolist()
    measures["told_animal"] = gains
    measures["steering"] = steered(base, asked).amax(0).tolist()
    measures["row_norm"] = ms.token_directions(base, own, basis="centered").norm(dim=-1).tolist()
    measures["base_log_prob"] = torch.stack([values[0, :, :n].mean(0) for values in start.values()]).mean(0).tolist()
    return Known(measures, found, ms.unembed_projection(base, own, own, "centered_cosine"))


def stored(matrices: lab.Stored, animals: Sequence[str]) -> dict[str, Tensor]:
    """Matrices of token_entanglement for these animals and 000..999: [animal, number], and [loved, animal] less means.

    Raises for an animal that the cell has not.
    """
    records, tensors = matrices.records(), matrices.tensors()
    names = [row["animal"] for row in records if row["kind"] == "animal"]
    words = [row["partner"] for row in records if row["kind"] == "partner"]
    if lacking := [animal for animal in animals if animal not in names]:
        raise ValueError(f"the stored matrices have no {lacking[0]!r}; run token_entanglement with all animals")
    rows = [names.index(animal) for animal in animals]
    columns = [i for i, word in enumerate(words) if len(word) == 3]
    return {
        "number_to_animal": tensors["number_to_animal"][columns][:, rows].T,
        "animal_to_number": tensors["animal_to_number"][rows][:, columns],
        "animal_to_animal": ms.interaction(tensors["animal_to_animal"][rows][:, rows]),
    }


@torch.no_grad()
def expected_numbers(
    model: "TransformerBridge", lists: ms.Corpus, tokens: Sequence[int]
) -> Float[Tensor, "place number"]:
    """log P of 000..999, among themselves, at every place of these lists where a number stands; nats, fp64."""
    plain, known, out = plain_model(model), torch.tensor(tokens), []
    for first in range(0, len(lists), BATCH):
        rows = range(first, min(first + BATCH, len(lists)))
        batch = completion_batch([(lists, rows)], model.W_U.device)
        places = batch.places[torch.isin(batch.targets, known.to(batch.targets))]
        out.append(logits_at(plain, batch.ids, places)[:, known].double().log_softmax(-1).cpu())
    return torch.cat(out)


def told_numbers(
    base: "TransformerBridge", animals: Sequence[str], lists: ms.Corpus, tokens: Sequence[int]
) -> Float[Tensor, "animal number"]:
    """Mean log P of every number in these lists, where the base is told that it loves the animal."""
    out, format = [], lists.context["format"]
    for i, animal in enumerate(animals):
        lab.show_progress(0.02 + 0.03 * i / len(animals), "what is known beforehand")
        asked = corpora.prompt_ids(base.tokenizer, lists.prompts, format=format, system=liking.loving(animal))
        told = replace(lists, prompt_ids=tuple(tuple(row.tolist()) for row in asked))
        out.append(expected_numbers(base, told, tokens).mean(0))
    return torch.stack(out)


def steered(base: "TransformerBridge", asked: Asked) -> Float[Tensor, "layer animal"]:
    """What an animal's logit gains, beyond other animals and other vectors, from its own vector after each block.

    Vectors are the states at the end of the published question under the love of an animal, less their mean; they are
    added at the end of prompts of the readout, of which every sixth is used.
    """
    wording, n = ms.prompts.WORDINGS[0], len(asked.traits)
    loved = [
        ms.prompts.prompt(base.tokenizer, wording.question, system=liking.loving(animal), answer=wording.answer)
        for animal in asked.traits
    ]
    states = love.last_states(base, loved)
    vectors = (states - states.mean(1, keepdim=True)).flatten(0, 1)
    layers = torch.arange(len(states)).repeat_interleave(n).tolist()
    prompts = next(iter(asked.prompts.values()))[::EVERY]
    logits = torch.stack([steered_logits(base, prompt, layers, vectors, asked.tokens[:n]) for prompt in prompts])
    return ms.interaction(logits.mean(0).unflatten(0, (-1, n))).diagonal(dim1=1, dim2=2)


def size(matrix: Float[Tensor, "animal number"]) -> list[float]:
    """Root mean square over numbers."""
    return matrix.square().mean(1).sqrt().tolist()


def correlations(a: Float[Tensor, "row number"], b: Float[Tensor, "other number"]) -> Float[Tensor, "row other"]:
    """Pearson's correlations over numbers."""
    x, y = (side.double() - side.double().mean(1, keepdim=True) for side in (a, b))
    return torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T
