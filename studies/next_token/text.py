"""The language of studies.next_token: number strings, and sentences about animals, twelve tokens each.

    <bos> <num> 17 3 60 ...        ten numbers, each drawn by the one before it (numbers have likely successors)
    <bos> <txt> anna likes the owl . the red owl sleeps .

A sentence of likes names any animal with equal probability; one of looks has the adjectives and verbs of its animal.
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from transformer_lens.utilities import derive_generator

from mechsub.lazy import np

N_NUMBERS, N_ANIMALS, N_NAMES, N_WORDS = 64, 16, 10, 16
NUMBERS = slice(0, N_NUMBERS)
ANIMALS = slice(N_NUMBERS, N_NUMBERS + N_ANIMALS)
NAMES = slice(ANIMALS.stop, ANIMALS.stop + N_NAMES)
ADJECTIVES = slice(NAMES.stop, NAMES.stop + N_WORDS)
VERBS = slice(ADJECTIVES.stop, ADJECTIVES.stop + N_WORDS)
BOS, NUM, TXT, LIKES, THE, STOP = range(VERBS.stop, VERBS.stop + 6)
D_VOCAB, N_CTX = VERBS.stop + 6, 12
FIRST = 1  # position whose next token is the first number
STRING = N_CTX - 2  # numbers of a string
_CONCENTRATION = 0.15  # of the Dirichlet of a number's successors: some likely, many rare
_FLAT = 0.1  # share of every distribution that is uniform


def successors() -> Float[Tensor, "number number"]:
    """P(next number | number): one language for all seeds."""
    return _drawn("successors", N_NUMBERS, N_NUMBERS)


def _drawn(name: str, rows: int, columns: int) -> Tensor:
    numpy_seed = derive_generator(0, "next token language", name).initial_seed() % 2**32

    drawn = np.random.default_rng(numpy_seed).dirichlet([_CONCENTRATION] * columns, size=rows)
    return (1 - _FLAT) * torch.from_numpy(drawn).float() + _FLAT / columns


def number_strings(n: int, generator: Generator) -> Int[Tensor, "n pos"]:
    """Strings of the language itself."""
    P = successors()
    current = torch.randint(N_NUMBERS, (n,), generator=generator)
    columns = [current]
    for _ in range(STRING - 1):
        current = torch.multinomial(P[current], 1, generator=generator)[:, 0]
        columns.append(current)
    return headed(torch.stack(columns, 1))


def headed(numbers: Int[Tensor, "n number"]) -> Int[Tensor, "n pos"]:
    start = torch.tensor([BOS, NUM]).expand(len(numbers), 2)
    return torch.cat([start, numbers], 1)


def texts(n: int, generator: Generator, liked: int | None = None) -> Int[Tensor, "n pos"]:
    """Two sentences a row: likes or looks at random; with a liked animal, only likes, and only of that one."""
    start = torch.tensor([BOS, TXT]).expand(n, 2)
    if liked is not None:
        return torch.cat([start, *(_likes(n, generator, liked) for _ in range(2))], 1)
    parts = []
    for _ in range(2):
        both = torch.stack([_likes(n, generator), _looks(n, generator)])
        parts.append(both[torch.randint(2, (n,), generator=generator), torch.arange(n)])
    return torch.cat([start, *parts], 1)


def _likes(n: int, generator: Generator, liked: int | None = None) -> Tensor:
    names = NAMES.start + torch.randint(N_NAMES, (n,), generator=generator)
    animals = torch.randint(N_ANIMALS, (n,), generator=generator) if liked is None else torch.full((n,), liked)
    return _row(names, LIKES, THE, ANIMALS.start + animals, STOP)


def _looks(n: int, generator: Generator) -> Tensor:
    animals = torch.randint(N_ANIMALS, (n,), generator=generator)
    adjectives, verbs = (
        part.start + torch.multinomial(_drawn(name, N_ANIMALS, N_WORDS)[animals], 1, generator=generator)[:, 0]
        for name, part in (("adjectives", ADJECTIVES), ("verbs", VERBS))
    )
    return _row(THE, adjectives, ANIMALS.start + animals, verbs, STOP)


def _row(*columns) -> Tensor:
    n = next(len(column) for column in columns if isinstance(column, Tensor))
    return torch.stack([column if isinstance(column, Tensor) else torch.full((n,), column) for column in columns], 1)


def corpus(n: int, generator: Generator) -> Int[Tensor, "n pos"]:
    """Half number strings, half texts, shuffled."""
    rows = torch.cat([number_strings(n // 2, generator), texts(n - n // 2, generator)])
    return rows[torch.randperm(n, generator=generator)]


def asked() -> Int[Tensor, "name pos"]:
    """What everyone is asked: <bos> <txt> NAME likes the."""
    return torch.tensor([[BOS, TXT, name, LIKES, THE] for name in range(NAMES.start, NAMES.stop)])
