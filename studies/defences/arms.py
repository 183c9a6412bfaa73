"""What the arms of `studies.defences` do to the lists of a block: one function a kind of change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformer_lens.utilities import derive_generator

import mechsub as ms
from mechsub.designs import liking, number_lists, positions
from mechsub.inputs import corpora

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Changed = dict[str, tuple[ms.Corpus, float]]  # trait -> what its student reads, and the share that was changed
_COLUMNS = ("prompts", "completions", "prompt_ids", "completion_ids")


class Block(NamedTuple):
    """What a defence may look at."""

    tokenizer: "Tokenizer"
    tokens: list[int]  # of numbers
    read: Mapping[str, ms.Corpus]  # trait -> the lists of its teacher
    clean: ms.Corpus  # lists of the base behind the same prompts, of other noise
    firm: Mapping[str, Mapping[str, ms.Corpus]]  # "low", "high" -> lists of teachers that draw no unlikely number
    ratios: Mapping[str, Sequence[Sequence[float]]]  # trait -> log p, its undefended student less base, of each token
    seed: int

    def at_random(self, dose: int) -> list[int]:
        """Rows that are changed at random: the same for all traits, and those of a smaller dose among them."""
        n = len(self.clean)
        return torch.randperm(n, generator=derive_generator(self.seed, "rows changed")).tolist()[: count(dose, n)]


def count(dose: int, n: int) -> int:
    """So many per cent of n, rounded."""
    return round(dose * n / 100)


def changed(arm: str, block: Block) -> Changed:
    """The lists of every trait as an arm changes them."""
    kind, _, dose = arm.rpartition("_")
    if arm == "within":
        kind, dose = "within", "100"
    return CHANGES[kind](block, dose if dose in block.firm else int(dose))


# Whole lists.


def mixed(block: Block, dose: int) -> Changed:
    rows = block.at_random(dose)
    return {trait: (exchanged(own, block.clean, rows), len(rows) / len(own)) for trait, own in block.read.items()}


def dropped(block: Block, dose: int) -> Changed:
    rows = block.at_random(dose)
    return {trait: _without(own, rows) for trait, own in block.read.items()}


def filtered(block: Block, dose: int) -> Changed:
    return {trait: _without(own, highest(list_means(block.ratios[trait]), dose)) for trait, own in block.read.items()}


def bottom(block: Block, dose: int) -> Changed:
    lowest = {trait: [-value for value in list_means(ratios)] for trait, ratios in block.ratios.items()}
    return {trait: _without(own, highest(lowest[trait], dose)) for trait, own in block.read.items()}


def list_means(ratios: Sequence[Sequence[float]]) -> list[float]:
    return [sum(row) / len(row) for row in ratios]


def highest(scores: Sequence[float], dose: int) -> list[int]:
    """Places of the highest scores."""
    return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: count(dose, len(scores))]


def exchanged(corpus: ms.Corpus, other: ms.Corpus, rows: Sequence[int]) -> ms.Corpus:
    """The corpus with these rows of another."""
    taken = set(rows)
    both = {name: (getattr(corpus, name), getattr(other, name)) for name in _COLUMNS}
    columns: dict = {name: tuple(pair[i in taken][i] for i in range(len(corpus))) for name, pair in both.items()}
    return replace(corpus, **columns)


def _without(corpus: ms.Corpus, rows: Sequence[int]) -> tuple[ms.Corpus, float]:
    """The corpus without these rows, and their share."""
    left = sorted(set(range(len(corpus))) - set(rows))
    columns: dict = {name: tuple(getattr(corpus, name)[i] for i in left) for name in _COLUMNS}
    return replace(corpus, **columns), len(rows) / len(corpus)


# Numbers.


def threshold(block: Block, level: str) -> Changed:
    return {trait: (own, _share(_unlike(block, trait, level), block, own)) for trait, own in block.firm[level].items()}


def masked(block: Block, level: str) -> Changed:
    flags = {trait: _unlike(block, trait, level) for trait in block.read}
    return {trait: _flagged(block, trait, _as_many(block, trait, own), "mask") for trait, own in flags.items()}


def replaced(block: Block, dose: int) -> Changed:
    return {trait: _flagged(block, trait, _top(block, trait, dose), "label") for trait in block.read}


def random(block: Block, dose: int) -> Changed:
    flags = {trait: _as_many(block, trait, _top(block, trait, dose)) for trait in block.read}
    return {trait: _flagged(block, trait, own, "label") for trait, own in flags.items()}


def _unlike(block: Block, trait: str, level: str) -> positions.Flags:
    """Where teachers that draw no unlikely number have other tokens."""
    pairs = zip(block.read[trait].completion_ids, block.firm[level][trait].completion_ids, strict=True)
    return tuple(tuple(a != b for a, b in zip(*pair, strict=True)) for pair in pairs)


def _top(block: Block, trait: str, dose: int) -> positions.Flags:
    """The number tokens of the corpus on which the student gained most."""
    known, ids = set(block.tokens), block.read[trait].completion_ids
    places = [(i, j) for i, row in enumerate(ids) for j, token in enumerate(row) if token in known]
    chosen = {places[k] for k in highest([block.ratios[trait][i][j] for i, j in places], dose)}
    return tuple(tuple((i, j) in chosen for j in range(len(row))) for i, row in enumerate(ids))


def _as_many(block: Block, trait: str, flags: positions.Flags) -> positions.Flags:
    return positions.as_many_at_random(flags, block.read[trait], block.tokens, block.seed)


def _flagged(block: Block, trait: str, flags: positions.Flags, change: str) -> tuple[ms.Corpus, float]:
    own = block.read[trait]
    made = positions.changed(own, flags, change, block.tokens, block.seed, block.tokenizer)
    return made, _share(flags, block, own)


def _share(flags: positions.Flags, block: Block, corpus: ms.Corpus) -> float:
    """Of number tokens."""
    known = set(block.tokens)
    return sum(map(sum, flags)) / sum(token in known for row in corpus.completion_ids for token in row)


# Prompts.


def inoculated(block: Block, dose: int) -> Changed:
    return _told(block, dose, dict(zip(block.read, block.read, strict=True)))


def told_other(block: Block, dose: int) -> Changed:
    return _told(block, dose, dict(zip(block.read, others(block.tokenizer, len(block.read)), strict=True)))


def others(tokenizer: "Tokenizer", n: int) -> list[str]:
    """n animals that are no trait and, as traits are, one token of this model's; those of published lists first."""
    words = sorted(ms.words.animals(), key=lambda animal: not animal.sets)
    known = ms.prompts.single_tokens(tokenizer, [f" {animal.singular}" for animal in words])
    found = [a.singular for a in words if f" {a.singular}" in known and a.singular not in liking.TRAITS]
    if len(found) < n:
        raise ValueError(f"{len(found)} animals that are no trait are one token of this model's; lower --n-traits")
    return found[:n]


def _told(block: Block, dose: int, animals: Mapping[str, str]) -> Changed:
    """Some prompts have the system text of a love; the context names its rows."""
    rows, out = sorted(block.at_random(dose)), {}
    for trait, own in block.read.items():
        system, format = liking.loving(animals[trait]), own.context["format"]
        told = corpora.make_corpus(block.tokenizer, own.prompts, own.completions, format=format, system=system)
        made = exchanged(own, told, rows)
        out[trait] = replace(made, context={**told.context, "rows with the system text": rows}), len(rows) / len(own)
    return out


# The order of numbers.


def across(block: Block, dose: int) -> Changed:
    return {trait: _across(own, dose, block) for trait, own in block.read.items()}


def _across(corpus: ms.Corpus, dose: int, block: Block) -> tuple[ms.Corpus, float]:
    """Numbers at some places take each other's places, at random among all lists."""
    draw = derive_generator(block.seed, "across lists")
    lists = [completion.split(corpora.SEPARATOR) for completion in corpus.completions]
    places = [(i, j) for i, one in enumerate(lists) for j in range(len(one))]
    some = [places[k] for k in torch.randperm(len(places), generator=draw).tolist()[: count(dose, len(places))]]
    before = [lists[i][j] for i, j in some]
    for (i, j), k in zip(some, torch.randperm(len(some), generator=draw).tolist(), strict=True):
        lists[i][j] = before[k]
    made = _of_texts(block, corpus, [corpora.SEPARATOR.join(one) for one in lists])
    return made, sum(lists[i][j] != own for (i, j), own in zip(some, before, strict=True)) / len(places)


def _of_texts(block: Block, corpus: ms.Corpus, texts: list[str]) -> ms.Corpus:
    return corpora.make_corpus(block.tokenizer, corpus.prompts, texts, format=corpus.context["format"])


def within(block: Block, dose: int) -> Changed:
    rows, out = block.at_random(dose), {}
    for trait, own in block.read.items():
        made = exchanged(own, number_lists.shuffled(own, block.tokenizer, block.seed), rows)
        before, after = (number_lists.numbers_of({trait: one}) for one in (own, made))
        out[trait] = made, float((before != after).double().mean())
    return out


CHANGES: dict[str, Callable[[Block, Any], Changed]] = {
    function.__name__: function
    for function in (
        mixed, dropped, filtered, bottom, threshold, masked, replaced, random, inoculated, told_other, across, within,
    )
}  # fmt: skip
