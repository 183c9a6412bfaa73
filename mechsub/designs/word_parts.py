"""The part of an interaction of words and animals that is left without slopes, length and digits.

Double-centring alone leaves a few axes in the interaction (`studies.interaction_spectrum`). Only the part that is left
without these axes can be specific to a pair.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import mechsub as ms
from mechsub.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = 1e-6  # of the interaction's norm: less is rounding


def are_numbers(words: Sequence[str]) -> bool:
    return all(word.isdigit() for word in words)


def features(words: Sequence[str]) -> "dict[str, Tensor]":
    """Features of numbers: lengths as dummies, and digits in their places. Of other words: the number of letters."""
    lengths = sorted({len(word) for word in words})
    of_length = torch.tensor([[float(len(word) == n) for n in lengths] for word in words], dtype=torch.float64)
    if not are_numbers(words):
        return {"length": of_length}
    places = sorted({(len(word), i, digit) for word in words for i, digit in enumerate(word)})
    digits = [[float(len(word) == n and word[i] == digit) for n, i, digit in places] for word in words]
    return {"length": of_length, "digits": torch.tensor(digits, dtype=torch.float64)}


def of_rows(known: "Mapping[str, Tensor]", rows: "Tensor") -> "dict[str, Tensor]":
    """The features of some of the words."""
    return {name: value[rows] for name, value in known.items()}


def left(scores: "Tensor", known: "Mapping[str, Tensor]") -> "Tensor":
    """The interaction of scores [word, animal] without slopes and these features; fp64, same shape."""
    return ms.interaction_parts(scores, known)["left"]


def specific(like: "Tensor", words: Sequence[str]) -> "Callable[[Tensor], Tensor] | None":
    """A function that keeps the part of a table [word, animal] specific to pairs: the part in the rest of `like`.

    None where next to nothing is left of `like`: with fewer words than features, the features explain everything.
    """
    known = features(words)
    if float(left(like, known).norm()) <= NOTHING * float(ms.interaction(like).norm()):
        return None
    return lambda table: ms.left_like(table, like, known)
