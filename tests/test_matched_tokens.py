"""Words matched to numbers on a tiny Llama: each is used once, names no animal, and is nearer than a word at random."""

import itertools

import pytest
import torch
from tiny_llama import ANIMALS, save_tiny_llama

from mechsub.designs import love
from mechsub.models import language
from studies import matched_tokens

SUBSET = [3, 40, 87, 300, 512, 777, 901, 1000]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    cfg = love.Asking(model=str(save_tiny_llama(tmp_path_factory.mktemp("llama"), tied=False)))
    model = language.load_language_model(cfg.model)
    return love.LovePrompts(model, love.choose_animals(model.tokenizer, cfg), love.choose_partners(cfg), cfg)


@pytest.fixture(scope="module")
def base(numbers):
    return numbers.partners_after([numbers.ask(None)])[0]


def test_words_match_and_are_used_once(numbers, base, monkeypatch):
    monkeypatch.setattr(matched_tokens, "CALIPER", float("inf"))  # random weights: no word is that near
    kept, words, pairs = matched_tokens.matched_words(numbers, SUBSET, base)
    assert kept == list(range(len(SUBSET)))
    assert len({word.text for word in words}) == len(words) == len(pairs) == len(SUBSET)
    assert [row["number"] for row in pairs] == [numbers.partners[i].text for i in SUBSET]
    assert not {word.text for word in words} & {form for a in ANIMALS for form in (a.singular, a.plural)}
    gaps = torch.tensor(
        [[row["number_log_p"] - row["word_log_p"], row["number_norm"] - row["word_norm"]] for row in pairs]
    )
    shifted = torch.tensor(
        [[a["number_log_p"] - b["word_log_p"], a["number_norm"] - b["word_norm"]] for a, b in itertools.pairwise(pairs)]
    )
    assert gaps.abs().mean(0).prod() < shifted.abs().mean(0).prod()


def test_too_few_words_are_refused(numbers, base):
    with pytest.raises(ValueError, match="too few for 1110 numbers"):
        matched_tokens.matched_words(numbers, list(range(1110)), base)


def planted(n=40, a=15, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, a, generator=draw)
    noise = [0.3 * torch.randn(n, a, generator=draw) for _ in range(4)]
    return torch.stack([shared + noise[0], shared + noise[1]]), shared + noise[2], torch.randn(n, a, generator=draw)


def test_a_stable_interaction_is_found_and_an_unrelated_direction_is_not():
    forward, alike, unrelated = planted()
    cfg = matched_tokens.Config(n_permutations=199)
    found = {row["quantity"]: row for row in matched_tokens._records("words", forward, alike, [3] * 40, cfg)}
    assert found["agreement of two wordings"]["low"] > 0.8 and found["agreement of the directions"]["p"] == 0.005
    found = {row["quantity"]: row for row in matched_tokens._records("words", forward, unrelated, [3] * 40, cfg)}
    null = found["agreement of the directions"]
    assert null["p"] > 0.02 and null["low"] < 0 < null["high"]
    spread = found["s.d. of the interaction, nats"]
    assert spread["low"] < 1.04 and 0.8 < spread["value"] < 1.2
