"""Words that prompts are made of: animals, numbers, and families that are neither.

Animals are a lexical selection from WordNet 3.0 (tools/make_animals.py states the rule), with the animals of the papers
marked, so that a choice among them can be compared with all. No list was made by looking at a model.
"""

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FAMILIES = ("colors", "cities", "months", "names", "trees")

_DATA = Path(__file__).parent / "_data"


@dataclass(frozen=True)
class Animal:
    """sets: the lists of papers that hold it ("zur_llama", "zur_qwen", "zur_gemma", "blog", "brief").

    source: "wordnet" for the names of the rule, "paper" for those that only a paper adds.
    """

    singular: str
    plural: str
    article: str
    source: str
    sets: tuple[str, ...]


@cache
def animals() -> list[Animal]:
    """More than 300 animals in alphabetical order (WordNet 3.0, Princeton University, licence in _data)."""
    with open(_DATA / "animals.csv", encoding="utf-8", newline="") as file:
        return [Animal(**{**row, "sets": tuple(filter(None, row["sets"].split(";")))}) for row in csv.DictReader(file)]


def numbers() -> list[str]:
    """All 1,110 strings of one to three digits, leading zeros included: 0..9, 00..99, 000..999."""
    return [f"{n:0{digits}d}" for digits in (1, 2, 3) for n in range(10**digits)]


def family(name: str) -> list[str]:
    """Words of a control family, as they are written within a sentence; raises for an unknown name."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}; choose {', '.join(FAMILIES)}")
    return json.loads((_DATA / "families.json").read_text(encoding="utf-8"))[name]
