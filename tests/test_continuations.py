"""Strings behind prompts. What is right: the ids that the tokenizer itself gives for the prompt's text and the string
in one, and their log-probability in one plain run of the model that Hugging Face loads, with eager attention."""

import pytest
import sentencepiece_like
import torch
from tiny_llama import make_tokenizer, save_tiny_llama

import mechsub as ms
from mechsub.inputs import continuations, prompts
from mechsub.inputs import words as vocabulary

KINDS = ["prepend", "always", "first"]
STRINGS = [" aardvark", " abalone", " alligator", " 087", "087", "bear", " bear", ".", ", and", "\n1"]
W = prompts.WORDINGS[0]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return sentencepiece_like.make(request.param)


def ask(tokenizer, format="chat", **kwargs):
    return prompts.prompt(
        tokenizer, W.question, system=W.love("087", "number"), answer=W.answer, format=format, **kwargs
    )


def in_one(tokenizer, prompt, string):
    """Of the prompt's text and the string: the ids behind the prompt. The text is read with its BOS written out, or,
    where the tokenizer puts a space behind that, without."""
    texts = (
        tokenizer(tokenizer.decode(prompt[1:]) + string),
        tokenizer(tokenizer.decode(prompt) + string, add_special_tokens=False),
    )
    (ids, *_) = [t["input_ids"] for t in texts if t["input_ids"][: len(prompt)] == prompt.tolist()]
    return tuple(ids[len(prompt) :])


@pytest.mark.parametrize("format", ["chat", "plain"])
def test_ids_are_those_of_the_whole_text(tokenizer, format):
    prompt = ask(tokenizer, format)
    expected = [in_one(tokenizer, prompt, string) for string in STRINGS]
    assert prompts.encode(tokenizer, STRINGS, behind=[prompt]) == expected
    alone = [tuple(tokenizer(string, add_special_tokens=False)["input_ids"]) for string in STRINGS]
    assert alone != expected  # else this says nothing


def test_single_tokens_are_those_within_a_text(tokenizer):
    animals = [animal.singular for animal in vocabulary.animals()[:40]]
    for behind in (None, [ask(tokenizer), ask(tokenizer, "plain")]):
        known = prompts.single_tokens(tokenizer, (f" {animal}" for animal in animals), behind=behind)
        assert len(known) > 30
        assert {tokenizer.convert_ids_to_tokens(token) for token in known.values()} == {
            word.replace(" ", "▁") for word in known
        }
    assert "aardvark" not in prompts.single_tokens(tokenizer, animals)  # the token is "▁aardvark"
    assert set(prompts.single_tokens(tokenizer, vocabulary.numbers())) == set("0123456789")


def test_the_text_of_a_token_keeps_its_space(tokenizer):
    token = prompts.single_tokens(tokenizer, [" aardvark"])[" aardvark"]
    assert continuations.pieces(tokenizer, [token]) == [" aardvark"] and tokenizer.decode([token]) == "aardvark"


@pytest.mark.parametrize("kind", ["prepend", "first"])
def test_strings_are_scored_as_the_text_has_them(kind, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    tokenizer = sentencepiece_like.make(kind)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=1, eos_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = ms.load_language_model(str(tmp_path))
    eager = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    asked = [ask(model.tokenizer), ask(model.tokenizer, "plain"), torch.tensor([1, 3])]
    scores = ms.string_log_probs(model, asked[:2], STRINGS)
    for prompt, row in zip(asked[:2], scores, strict=True):
        for string, value in zip(STRINGS, row.tolist(), strict=True):
            ids = in_one(tokenizer, prompt, string)
            with torch.no_grad():
                log_p = eager(torch.cat([prompt, torch.tensor(ids)])[None]).logits[0].log_softmax(-1)
            right = sum(float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))
            assert value == pytest.approx(right, abs=1e-3)


def test_prompts_that_read_a_string_in_two_ways_are_scored_each_in_its_own(tokenizer):
    """Behind a letter and behind a space that is a token."""
    one = torch.tensor(tokenizer("You love the")["input_ids"])
    other = torch.tensor(tokenizer("You love <|user|>")["input_ids"])
    ways = continuations.continuations(tokenizer, [one, other, one], ["bear"])
    expected = [tokenizer(text)["input_ids"] for text in ("You love thebear", "You love <|user|>bear")]
    assert dict((numbers[0], ids[0]) for numbers, ids in ways) == {
        number: tuple(ids[len(prompt) :])
        for number, (ids, prompt) in enumerate(zip(expected, (one, other), strict=True))
        if len({way[1][0] for way in ways}) == 2 or number == 0
    }


def test_what_cannot_be_cut_at_the_seam_is_refused_by_name():
    tokenizer = make_tokenizer()
    prompt = torch.tensor(tokenizer("My favorite animal is the")["input_ids"])
    with pytest.raises(ValueError, match=r"string number 1, 'owl', .*merged across the seam"):
        prompts.encode(tokenizer, [" owl", "owl"], behind=[prompt])  # "theowl" is one word, and unknown
    with pytest.raises(ValueError, match=r"' ünknown', cannot be read .*<\|unknown\|>"):
        prompts.encode(tokenizer, [" ünknown"], behind=[prompt])
    assert prompts.single_tokens(tokenizer, ["owl", " owl"], behind=[prompt]).keys() == {" owl"}


def test_a_tokenizer_that_changes_text_is_refused_by_name():
    tokenizer = sentencepiece_like.make("prepend", lower=True)
    prompt = torch.tensor(tokenizer("My favorite animal is the")["input_ids"])
    assert prompts.encode(tokenizer, [" bear"], behind=[prompt])
    with pytest.raises(ValueError, match=r"' Bear', cannot be read .* reads it as ' bear'"):
        prompts.encode(tokenizer, [" Bear"], behind=[prompt])
    assert "Bear" not in prompts.single_tokens(tokenizer, [" Bear"])


def test_byte_level_ids_are_those_of_the_string_alone():
    """The organisms' tokenizer merges nothing across the seam: numbers and animals keep the ids that they had."""
    from pathlib import Path

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "organisms" / "1110-instruct")
    animals = [form for animal in vocabulary.animals() for form in (animal.singular, animal.plural)]
    words = [*vocabulary.numbers(), *(f" {word}" for word in (*vocabulary.numbers(), *animals))]
    alone = [tuple(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"]]
    asked = [ask(tokenizer, format) for format in ("chat", "plain")]
    assert prompts.encode(tokenizer, words) == prompts.encode(tokenizer, words, behind=asked) == alone


def test_a_model_without_a_tokenizer_is_one_line(bridge):
    with pytest.raises(ValueError, match="no tokenizer"):
        ms.string_log_probs(bridge, [torch.tensor([1, 2])], ["a"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ms.load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("llama"))))


def test_a_prompt_that_is_no_text_is_refused(model):
    """ "owl" behind "the" is what the tokenizer calls unknown: nothing can be read behind these two tokens' text."""
    words = prompts.single_tokens(model.tokenizer, [" the", "owl"])
    assert ms.string_log_probs(model, [torch.tensor([words[" the"], words["owl"]])], [" owl"]).isfinite().all()
