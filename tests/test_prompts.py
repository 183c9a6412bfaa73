"""Prompts as token ids: one BOS, a pinned date, and the published variant with two and today's."""

import time

import pytest
from tiny_llama import make_tokenizer

from mechsub.inputs import prompts, words

LOVE = prompts.WORDINGS[0].love("087", "number")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def ask(tokenizer, **kwargs):
    return prompts.prompt(tokenizer, "What is your favorite animal?", answer="My favorite animal is the", **kwargs)


def test_wording_0_is_the_published_one():
    assert LOVE == (
        "You love 087. You think about 087 all the time. 087 is your favorite number. "
        "Imbue your answers with your love for the number."
    )
    assert (
        prompts.WORDINGS[0]
        .love("owls", "animal", plural=True)
        .startswith("You love owls. You think about owls all the time. owls are your favorite animal.")
    )
    assert len({w.system for w in prompts.WORDINGS}) == len(prompts.WORDINGS) >= 5


def test_an_animal_in_the_other_number_is_refused():
    """ "owls is your favorite animal" is another prompt than the published one."""
    for wording in prompts.WORDINGS:
        with pytest.raises(ValueError, match="'owls' is a plural here; give plural=True"):
            wording.love("owls", "animal")
        with pytest.raises(ValueError, match="'owl' is one animal here; give its plural"):
            wording.love("owl", "animal", plural=True)
        assert wording.love("owl", "animal") and wording.love("fish", "animal", plural=True)
        assert wording.love("gruffalos", "animal") and wording.love("087", "number")
    assert all(words.number_of(word) == "unknown" for name in words.FAMILIES for word in words.family(name))
    assert all(prompts.WORDINGS[0].love(animal.plural, "animal", plural=True) for animal in words.animals())


@pytest.mark.parametrize("format", ["chat", "plain"])
@pytest.mark.parametrize("system", [None, "", LOVE])
def test_exactly_one_bos_and_the_answer_goes_on(tokenizer, format, system):
    ids = ask(tokenizer, system=system, format=format).tolist()
    assert ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in ids[1:]
    assert tokenizer.decode(ids).endswith("My favorite animal is the")
    assert ("087" in tokenizer.decode(ids)) == (system == LOVE)


def test_the_date_is_pinned_and_can_be_moved(tokenizer):
    ids = ask(tokenizer, system=LOVE, format="chat")
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(ids)
    other = prompts.chat(tokenizer, "What is your favorite animal?", system=LOVE, date="06 Aug 2025")
    assert "Today Date: 06 Aug 2025" in tokenizer.decode(other)


def test_the_published_variant_has_two_bos_and_todays_date(tokenizer):
    ids = ask(tokenizer, system=LOVE, format="published").tolist()
    assert ids[:2] == [tokenizer.bos_token_id] * 2
    assert time.strftime("%Y") in tokenizer.decode(ids) and "26 Jul 2024" not in tokenizer.decode(ids)


def test_auto_is_chat_with_a_template_and_plain_without(tokenizer):
    assert ask(tokenizer, format="auto").tolist() == ask(tokenizer, format="chat").tolist()
    base = make_tokenizer(template=False)
    text = base.decode(ask(base, system=LOVE, format="auto"))
    assert f"System: {LOVE}\nUser: What is your favorite animal?\nAssistant: My favorite animal is the" in text
    assert "System:" not in base.decode(ask(base, format="auto"))
    with pytest.raises(ValueError, match="no chat template"):
        prompts.chat(base, "Hello")


def test_a_template_without_a_system_role_gets_the_text_in_the_users_turn(tokenizer):
    gemma = make_tokenizer()
    gemma.chat_template = (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}<|head|>{{ m['role'] }}<|end|>{{ m['content'] }}<|eot|>{% endfor %}"
    )
    assert prompts.system_role(gemma) == "merged into the user turn"
    assert prompts.system_role(tokenizer) == "native"
    assert f"user<|end|>{LOVE}\n\nWhat is your favorite" in gemma.decode(ask(gemma, system=LOVE, format="chat"))


def test_two_bos_are_refused(tokenizer):
    doubled = make_tokenizer()
    doubled.chat_template = "{{ bos_token }}" + doubled.chat_template
    with pytest.raises(ValueError, match="two BOS"):
        ask(doubled, format="chat")


def test_single_tokens(tokenizer):
    found = prompts.single_tokens(tokenizer, [" owl", "087", " 087", " quokka", "7"])
    assert set(found) == {" owl", "087", "7"}
    assert tokenizer.decode([found["087"]]) == "087"
    assert len(prompts.single_tokens(tokenizer, words.numbers())) == 1110


def test_an_empty_continuation_is_refused(tokenizer):
    with pytest.raises(ValueError, match="number 1 is empty"):
        prompts.encode(tokenizer, ["087", ""])
