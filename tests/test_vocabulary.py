"""Word lists: what they hold, and that their forms are right."""

import pytest

from mechsub.inputs import words as vocabulary

BY_NAME = {animal.singular: animal for animal in vocabulary.animals()}
FORMS = {  # written by hand
    "wolf": "a wolves", "mouse": "a mice", "titmouse": "a titmice", "dormouse": "a dormice", "goose": "a geese",
    "mongoose": "a mongooses", "louse": "a lice", "sheep": "a sheep", "deer": "a deer", "moose": "a moose",
    "salmon": "a salmon", "fly": "a flies", "butterfly": "a butterflies", "fox": "a foxes", "finch": "a finches",
    "walrus": "a walruses", "starfish": "a starfish", "monkey": "a monkeys", "dingo": "a dingoes", "hyena": "a hyenas",
    "triceratops": "a triceratops", "snow leopard": "a snow leopards", "honeybee": "a honeybees",
    "octopus": "an octopuses", "owl": "an owls", "ibex": "an ibexes", "elk": "an elk", "aardvark": "an aardvarks",
}  # fmt: skip
PAPERS = {
    "zur_llama": "dolphin,honeybee,koala,octopus,panda,peacock,quokka,sea otter,sea turtle,snow leopard",
    "zur_qwen": "chimpanzee,dolphin,elephant,giraffe,kangaroo,koala,lion,orangutan,panda,penguin",
    "zur_gemma": "butterfly,cat,dog,dolphin,elephant,giraffe,lion,panda,squirrel,tiger",
    "blog": "eagle,elephant,owl,wolf",
}


def test_there_are_many_and_each_once():
    assert len(BY_NAME) == len(vocabulary.animals()) > 300
    assert sum(animal.source == "wordnet" for animal in vocabulary.animals()) > 300


@pytest.mark.parametrize("name", FORMS)
def test_article_and_plural(name):
    assert f"{BY_NAME[name].article} {BY_NAME[name].plural}" == FORMS[name]


def test_articles_are_a_or_an():
    assert {animal.article for animal in vocabulary.animals()} == {"a", "an"}


def marked(mark):
    return {animal.singular for animal in vocabulary.animals() if mark in animal.sets}


@pytest.mark.parametrize("mark", PAPERS)
def test_the_papers_animals_are_marked(mark):
    assert marked(mark) == set(PAPERS[mark].split(","))


def test_the_animals_of_the_write_up_are_marked():
    assert len(marked("brief")) == 49 and len(marked("brief_candidates")) == 93
    assert marked("brief") < marked("brief_candidates")


def test_names_that_no_paper_marks_are_the_rules():
    assert all(animal.sets for animal in vocabulary.animals() if animal.source == "paper")


def test_no_sexes_ages_or_pet_names():
    assert not {"mare", "stag", "sow", "gosling", "tomcat", "doggy", "vertebrate", "young"} & set(BY_NAME)


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
    with pytest.raises(ValueError, match=r"one of colors, .* not 'fruits'"):
        vocabulary.family("fruits")
