"""What a model organism can do: perplexity against a trigram model, and whether a loved animal is its answer."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mechsub.inputs import prompts, words
from studies.train_organism import tokenizer as organism_tokenizer

LENGTH = 256


def measured(name: str, model, tokenizer, tokens: dict[str, Int[Tensor, "token"]]) -> Iterator[dict]:
    learned = torch.cat([tokens["corpora"], tokens["made"]]).numpy()
    held = tokens["held out"]
    values = {
        "perplexity, held-out text": perplexity(model, held),
        "perplexity, trigram": trigram_perplexity(learned, held.numpy(), len(tokenizer)),
    }
    for form in ("chat", "plain"):
        for i, wording in enumerate(prompts.WORDINGS):
            values[f"loved animal likeliest, {form}, wording {i}"] = following(model, tokenizer, wording, form)
    for what, value in values.items():
        yield {"model": name, "what": what, "step": 0, "value": value}


@torch.no_grad()
def perplexity(model, tokens: Int[Tensor, "token"], length: int = LENGTH) -> float:
    """exp of the mean negative log-probability of a token within blocks, each but the first of a block."""
    blocks = tokens[: len(tokens) // length * length].view(-1, length).long()
    total = sum(
        torch.nn.functional.cross_entropy(model(x).logits[:, :-1].flatten(0, 1).float(), x[:, 1:].flatten()) * len(x)
        for x in blocks.split(8)
    )
    return float(torch.exp(torch.as_tensor(total / len(blocks))))


def trigram_perplexity(learned: np.ndarray, held: np.ndarray, n_vocab: int) -> float:
    """Of an interpolated trigram model, its weights fitted by expectation maximisation on every other held-out token.

    p(c | a, b) = w3 n(abc)/n(ab) + w2 n(bc)/n(b) + w1 (n(c) + 1)/(N + V) (Jelinek and Mercer 1980).
    """
    p = _gram_probabilities(learned.astype(np.int64), held.astype(np.int64), n_vocab)
    weights = np.full(3, 1 / 3)
    for _ in range(50):
        joint = p[::2] * weights
        weights = (joint / joint.sum(1, keepdims=True)).mean(0)
    return float(np.exp(-np.log(p[1::2] @ weights).mean()))


def _gram_probabilities(learned: np.ndarray, held: np.ndarray, n_vocab: int) -> np.ndarray:
    """[token, 3]: by the token alone, after one before it, after two."""
    single = np.bincount(learned, minlength=n_vocab)
    columns = [(single[held[2:]] + 1) / (len(learned) + n_vocab)]
    for order in (2, 3):
        of, among = _counts(learned, held, order, n_vocab), _counts(learned[:-1], held[:-1], order - 1, n_vocab)
        among = among[3 - order :] if order == 2 else among
        columns.append(np.divide(of[3 - order :], among, out=np.zeros(len(held) - 2), where=among > 0))
    return np.stack(columns, 1)


def _counts(learned: np.ndarray, held: np.ndarray, order: int, n_vocab: int) -> np.ndarray:
    """How often each run of `order` held-out tokens occurs in what was learned."""
    keys = [sum(row[i : len(row) - order + 1 + i] * n_vocab**i for i in range(order)) for row in (learned, held)]
    known, counts = np.unique(keys[0], return_counts=True)
    place = np.searchsorted(known, keys[1]).clip(max=len(known) - 1)
    return np.where(known[place] == keys[1], counts[place], 0)


@torch.no_grad()
def following(model, tokenizer, wording: prompts.Wording, form: prompts.Format) -> float:
    """Share of animals that, loved in the system text, are the likeliest answer; every fourth is loved."""
    names = organism_tokenizer.animals()
    loved = range(0, len(names), 4)
    ids = torch.tensor(list(prompts.single_tokens(tokenizer, [f" {name}" for name in names]).values()))
    plurals = {animal.singular: animal.plural for animal in words.animals()}
    asked = [
        prompts.prompt(tokenizer, wording.question, system=wording.love(plurals[names[i]], "animal", plural=True),
                       answer=wording.answer, format=form)
        for i in loved
    ]  # fmt: skip
    right = 0
    for length in {len(prompt) for prompt in asked}:
        alike = [place for place, prompt in enumerate(asked) if len(prompt) == length]
        logits = model(torch.stack([asked[place] for place in alike])).logits[:, -1, ids]
        right += int((logits.argmax(-1) == torch.tensor([loved[place] for place in alike])).sum())
    return right / len(loved)
