"""Positions of a corpus at which teachers diverge, and corpora whose loss or input is changed at some positions.

Divergence tokens as published (Schrodi et al. 2025): the drawn token is the biased teacher's likeliest, and at least
one teacher with another bias has a different likeliest token. `mechsub.prompt_divergence` is different: it compares one
model under a prompt and without it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs.corpora import IGNORED, Corpus
from mechsub.models.students import logits_at, plain_model
from mechsub.training.tuning import check_corpus, completion_batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase as Tokenizer

Flags = tuple[tuple[bool, ...], ...]


def diverging(
    teacher: "TransformerBridge", others: "Sequence[TransformerBridge]", corpus: Corpus, tokens: Sequence[int]
) -> Flags:
    """For each token of every completion: is it the teacher's likeliest, while another teacher has a different
    likeliest?

    Likeliest among `tokens`, the tokens that could be drawn; other tokens are never flagged.
    """
    chosen = _likeliest(teacher, corpus, tokens)
    differ = torch.stack([_likeliest(other, corpus, tokens) != chosen for other in others]).any(0)
    drawn = torch.tensor([token for row in corpus.completion_ids for token in row])
    flags = iter(((chosen == drawn) & differ).tolist())
    return tuple(tuple(next(flags) for _ in row) for row in corpus.completion_ids)


@torch.no_grad()
def _likeliest(model: "TransformerBridge", corpus: Corpus, tokens: Sequence[int]) -> Int[Tensor, "place"]:
    check_corpus(model, corpus)
    plain, among, out = plain_model(model), torch.tensor(tokens), []
    for first in range(0, len(corpus), 64):
        batch = completion_batch([(corpus, range(first, min(first + 64, len(corpus))))], model.W_U.device)
        out.append(among[logits_at(plain, batch.ids, batch.places)[:, among].argmax(-1).cpu()])
    return torch.cat(out)


def as_many_at_random(flags: Flags, corpus: Corpus, tokens: Sequence[int], seed: int) -> Flags:
    """Equally many flags in every row, at random places that hold one of `tokens`."""
    draw, known, out = derive_generator(seed, "random positions"), set(tokens), []
    for row, ids in zip(flags, corpus.completion_ids, strict=True):
        places = [i for i, token in enumerate(ids) if token in known]
        order = torch.randperm(len(places), generator=draw, device="cpu").tolist()
        kept = {places[i] for i in order[: sum(row)]}
        out.append(tuple(i in kept for i in range(len(ids))))
    return tuple(out)


def changed(
    corpus: Corpus, flags: Flags, change: str, tokens: Sequence[int], seed: int, tokenizer: "Tokenizer"
) -> Corpus:
    """The corpus with a change at the flagged positions.

    "only": the loss reads these positions alone. "mask": the loss reads all other positions. "label": the target there
    is another, random one of `tokens`. "input": the student reads another token there, and the target stays.
    """
    arguments.choice(change, "change", ("only", "mask", "label", "input"))
    own = corpus.completion_ids
    if change in ("only", "mask"):
        read = [[flag == (change == "only") for flag in row] for row in flags]
        labels = [[t if r else IGNORED for t, r in zip(*pair, strict=True)] for pair in zip(own, read, strict=True)]
        return replace(corpus, label_ids=tuple(map(tuple, labels)))
    draw = derive_generator(seed, "replaced")
    others = tuple(
        tuple(_another(token, tokens, draw) if flag else token for token, flag in zip(*pair, strict=True))
        for pair in zip(own, flags, strict=True)
    )
    if change == "label":
        return replace(corpus, label_ids=others)
    texts = tuple(tokenizer.decode(list(row), clean_up_tokenization_spaces=False) for row in others)
    return replace(corpus, completion_ids=others, completions=texts, label_ids=own)


def _another(token: int, tokens: Sequence[int], draw: torch.Generator) -> int:
    place = int(torch.randint(len(tokens) - 1, (), generator=draw, device="cpu"))
    return tokens[place] if tokens[place] != token else tokens[-1]
