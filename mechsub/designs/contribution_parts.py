"""`studies.contributions`: the published log ratio as an exact sum of parts, and shares of these parts.

Every table is [number, animal]. Shares of a ratio R are sum(part R) / sum(R^2). Shares of the interaction of number and
animal are taken against its value e in other wordings, sum(part e) / sum(whole e): effects that do not come back count
for nothing, and neither does noise that the two measurements do not share. Both kinds of shares add up to 1.

Shares are taken of the interaction, and of its part that is specific to pairs (`designs.word_parts`). For the latter, e
and the tables multiplied with it keep only the part that is left of e after slopes, length and digits. The projection
belongs to all numbers and animals; resamples keep it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub.designs import word_parts
from mechsub.measures.scores import interaction

Table = Float[Tensor, "number animal"]
PARTS = (
    *("any system message", "any love", "any number", "the animal's baseline", "the number, for all animals"),
    *("animal and number", "date", "wording"),
)


class Measured(NamedTuple):
    """Log ratios to no system message, in nats; `message` and `love` are of animals, under other wordings.

    published: in the published wording; others: mean over other wordings; date: the pinned date less the mean over
    dates (0 where the template has no date); message: under a system message about nothing; love: under the love of
    something that is no number.
    """

    published: Table
    others: Table
    date: Table
    message: Float[Tensor, "animal"]
    love: Float[Tensor, "animal"]

    def take(self, rows: Int[Tensor, "row"], columns: Int[Tensor, "column"]) -> "Measured":
        published, others, date = (x[rows][:, columns] for x in (self.published, self.others, self.date))
        return Measured(published, others, date, self.message[columns], self.love[columns])


class Other(NamedTuple):
    """A table in other wordings, its numbers, and what keeps of any table what is specific to pairs in this one."""

    words: Sequence[str]
    table: Tensor
    keep: Callable[[Tensor], Tensor] | None  # None: nothing is left


def other(table: Tensor, words: Sequence[str], transposed: bool = False) -> Other:
    """transposed: the table is [animal, number]."""
    keep = word_parts.specific(table.T if transposed else table, words)
    return Other(words, table, keep if keep is None or not transposed else lambda x: keep(x.T).T)


def parts(m: Measured) -> dict[str, Table]:
    """The published log ratio as the exact sum of `PARTS`; all but date and wording come from the other wordings."""
    whole, like = m.others.mean(), torch.ones_like(m.published)
    message, love = m.message.mean(), m.love.mean()
    rows, columns = m.others.mean(1, keepdim=True) - whole, m.others.mean(0, keepdim=True) - whole
    values = (
        *(message * like, (love - message) * like, (whole - love) * like, columns * like, rows * like),
        *(interaction(m.others), m.date, m.published - m.others - m.date),
    )
    return dict(zip(PARTS, values, strict=True))


def ratio_shares(found: Mapping[str, Tensor], whole: Tensor) -> dict[str, float]:
    """Share of the squared log ratio: sum(part whole) / sum(whole^2)."""
    return {name: float((part * whole).sum() / whole.square().sum()) for name, part in found.items()}


def specific_shares(found: Float[Tensor, "part number animal"], whole: Table, other: Table) -> Float[Tensor, "part"]:
    """sum(part e) / sum(whole e), all double-centred; e is the same in other wordings."""
    e = interaction(other)
    return (interaction(found) * e).sum((-2, -1)) / (interaction(whole) * e).sum()


def products(
    found: Float[Tensor, "part number animal"], whole: Table, other: Table, keep: Callable[[Table], Table]
) -> Float[Tensor, "some number animal"]:
    """The product with e of every part and, last, of the whole; `keep` is applied to both factors."""
    e = keep(other)
    return torch.stack([keep(part) * e for part in [*found, whole]])


def recovery(
    wanted: Float[Tensor, "pair animal"], patched: Float[Tensor, "pair animal"], whole: Float[Tensor, "pair animal"]
) -> Float[Tensor, ""]:
    """sum(wanted patched) / sum(wanted whole), `wanted` centred over animals, so that logits are log-odds."""
    weight = wanted - wanted.mean(1, keepdim=True)
    return (weight * patched).sum() / (weight * whole).sum()


def bootstrap(
    statistic: Callable[[Tensor, Tensor], Tensor], shape: Sequence[int], n: int, seed: int
) -> tuple[Tensor, Tensor]:
    """95% percentile limits of a vector of statistics, rows and columns both drawn with replacement."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.stack(
        [statistic(*(torch.randint(m, (m,), generator=draw, device="cpu") for m in shape)) for _ in range(n)]
    )
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype), dim=0)
    return low, high
