"""Words of prompts: animals, numbers, and families that are neither.

Animals are a lexical selection from WordNet 3.0 (tools/make_animals.py states the rule), with the animals of the papers
marked, so that a choice among them can be compared with all. No list was made by looking at a model.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from mechsub import arguments, files
from mechsub.sources import WORDS

FAMILIES = ("colors", "cities", "months", "names", "trees")

_DATA = Path(__file__).parent / "_data"


@dataclass(frozen=True)
class Animal:
    """sets: the published lists that hold the animal: "zur_llama", "zur_qwen", "zur_gemma", "blog", "brief" (the 49
    animals measured in the write-up from which this package grew) and "brief_candidates" (the 93 that it proposed).

    source: "wordnet" for names by the rule, "paper" for names that only a paper adds.
    """

    singular: str
    plural: str
    article: str
    source: str
    sets: tuple[str, ...]


def animals() -> list[Animal]:
    """385 animals in alphabetical order (WordNet 3.0, Princeton University, licence in _data)."""
    return _animals(_text("animals.csv"))


@cache
def _animals(text: str) -> list[Animal]:
    rows: Iterable[dict] = csv.DictReader(text.splitlines())
    return [Animal(**{**row, "sets": tuple(filter(None, row["sets"].split(";")))}) for row in rows]


@cache
def _forms() -> tuple[frozenset[str], frozenset[str]]:
    """Singulars and plurals. Nothing is made of them, so that no cell has read them."""
    known = _animals((_DATA / "animals.csv").read_text(encoding="utf-8"))
    return frozenset(one.singular for one in known), frozenset(one.plural for one in known)


def number_of(word: str) -> Literal["one", "many", "unknown"]:
    """Whether a word is an animal's singular or its plural; unknown for other words, and where both are one (fish)."""
    arguments.text(word, "word")
    one, many = (word in known for known in _forms())
    return "unknown" if one == many else "one" if one else "many"


def numbers() -> list[str]:
    """All 1,110 strings of one to three digits, leading zeros included: 0..9, 00..99, 000..999."""
    return [f"{n:0{digits}d}" for digits in (1, 2, 3) for n in range(10**digits)]


def family(name: str) -> list[str]:
    """Words of a control family, as they are written within a sentence; raises for an unknown name."""
    arguments.choice(name, "name", FAMILIES)
    return json.loads(_text("families.json"))[name]


def _text(name: str) -> str:
    data = (_DATA / name).read_bytes()
    if (value := files.sha256(data)) != WORDS[name]:
        raise ValueError(f"{_DATA / name} was changed (sha256 {value}, expected {WORDS[name]}); restore it")
    files.note("words", name, {name: value})
    return data.decode()
