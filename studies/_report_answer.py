"""What an answer of `studies.report` is, and how rows of a study's table are found for it.

No sentence holds a number of its own, and no verdict is written by hand: both follow from the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

CONFIRMED, REFUTED, PARTLY, NO_CLAIM = "confirmed", "refuted", "partly", "no published claim"
Rows = list[dict]


@dataclass(frozen=True)
class Answer:
    sentence: str
    null: str
    verdict: str = NO_CLAIM  # on the question's claim
    shown: list[Mapping] = field(default_factory=list)  # a small table under the sentence


def find(rows: Rows, **wanted) -> dict:
    """The first row with these values; LookupError says which is not there."""
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    raise LookupError("no row " + ", ".join(f"{key} = {value}" for key, value in wanted.items()))


def quantity(rows: Rows, name: str, **more) -> dict:
    return find(rows, quantity=name, **more)


def outcome(rows: Rows, name: str) -> dict:
    return find(rows, outcome=name)


def read(confirmed: bool, refuted: bool) -> str:
    """The verdict where a claim has two sides."""
    return CONFIRMED if confirmed else REFUTED if refuted else PARTLY
