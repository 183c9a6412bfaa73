"""Word lists: what they hold, and that their forms are right."""

import pytest

from mechsub import vocabulary

BY_NAME = {animal.singular: animal for animal in vocabulary.animals()}
PLURALS = {
    "wolf": "wolves", "mouse": "mice", "titmouse": "titmice", "dormouse": "dormice", "goose": "geese",
    "mongoose": "mongooses", "ox": "oxen", "louse": "lice", "sheep": "sheep", "deer": "deer", "moose": "moose",
    "salmon": "salmon", "fly": "flies", "butterfly": "butterflies", "fox": "foxes", "finch": "finches",
    "walrus": "walruses", "octopus": "octopuses", "starfish": "starfish", "monkey": "monkeys", "pony": "ponies",
    "owl": "owls", "ibex": "ibexes", "platypus": "platypuses", "snow leopard": "snow leopards",
}  # fmt: skip


def test_there_are_many_and_each_once():
    assert len(BY_NAME) == len(vocabulary.animals()) > 300
    assert sum(animal.source == "wordnet" for animal in vocabulary.animals()) > 300


@pytest.mark.parametrize("name", PLURALS)
def test_plurals(name):
    assert BY_NAME[name].plural == PLURALS[name]


def test_articles():
    assert {BY_NAME[name].article for name in ("owl", "elephant", "ibis", "octopus")} == {"an"}
    assert {BY_NAME[name].article for name in ("wolf", "honeybee", "hyena", "zebra")} == {"a"}
    assert {animal.article for animal in vocabulary.animals()} == {"a", "an"}


@pytest.mark.parametrize(
    ("mark", "n"), [("zur_llama", 10), ("zur_qwen", 10), ("zur_gemma", 10), ("blog", 4), ("brief", 94)]
)
def test_the_papers_animals_are_marked(mark, n):
    assert sum(mark in animal.sets for animal in vocabulary.animals()) == n


def test_numbers_are_all_strings_of_up_to_three_digits():
    numbers = vocabulary.numbers()
    assert len(set(numbers)) == len(numbers) == 1110
    assert numbers[:10] == list("0123456789") and numbers[10] == "00" and numbers[-1] == "999"
    assert "087" in numbers and "87" in numbers


def test_families_share_no_word_with_the_animals():
    for name in vocabulary.FAMILIES:
        words = vocabulary.family(name)
        assert len(set(words)) == len(words) >= 12
        assert not {word.lower() for word in words} & set(BY_NAME)


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match=r"unknown family 'fruits'; choose colors"):
        vocabulary.family("fruits")
