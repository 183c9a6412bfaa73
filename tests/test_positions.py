"""Positions at which teachers diverge, and corpora that are changed there."""

import pytest
import torch
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.designs import numbers, positions
from mechsub.inputs import corpora


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folders = [save_tiny_llama(tmp_path_factory.mktemp(f"seed{seed}"), seed=seed) for seed in range(3)]
    return [ms.load_language_model(str(folder)) for folder in folders]


@pytest.fixture(scope="module")
def tokens(models):
    ((slot,), _) = numbers.number_tokens(models[0].tokenizer)
    return slot


@pytest.fixture(scope="module")
def corpus(models):
    return numbers.draw_numbers(models[0], corpora.number_prompts(3), n_numbers=3, temperature=0.0)


def test_greedy_lists_diverge_where_another_teacher_would_say_something_else(models, tokens, corpus):
    flags = positions.diverging(models[0], models[1:], corpus, tokens)
    for row, prompt, ids in zip(flags, corpus.prompt_ids, corpus.completion_ids, strict=True):
        for i, flag in enumerate(row):
            read = torch.tensor([[*prompt, *ids[:i]]])
            said = [tokens[int(model(read)[0, -1, tokens].argmax())] for model in models]
            assert flag == (said[0] == ids[i] and said[1:] != [said[0]] * 2)
    assert any(map(any, flags))
    alike = positions.diverging(models[0], [models[0]], corpus, tokens)
    assert not any(map(any, alike))  # no other teacher differs


def test_random_positions_are_as_many_and_hold_numbers(corpus, tokens):
    flags = tuple((True, *[False] * (len(row) - 1)) for row in corpus.completion_ids)
    drawn = positions.as_many_at_random(flags, corpus, tokens, 1)
    assert [sum(row) for row in drawn] == [1] * len(corpus) and drawn != flags
    assert all(ids[row.index(True)] in tokens for row, ids in zip(drawn, corpus.completion_ids, strict=True))


def test_what_is_changed(models, corpus, tokens):
    tokenizer = models[0].tokenizer
    flags = tuple(tuple(i == 0 for i in range(len(row))) for row in corpus.completion_ids)
    made = {c: positions.changed(corpus, flags, c, tokens, 1, tokenizer) for c in ("only", "mask", "label", "input")}
    own = corpus.completion_ids[0]
    assert made["only"].label_ids[0] == (own[0], *[-100] * (len(own) - 1))
    assert made["mask"].label_ids[0] == (-100, *own[1:])
    assert made["label"].completion_ids == corpus.completion_ids
    assert made["label"].label_ids[0][0] != own[0] and made["label"].label_ids[0][1:] == own[1:]
    assert made["input"].label_ids == corpus.completion_ids
    assert made["input"].completion_ids[0][0] != own[0] and made["input"].completion_ids[0][1:] == own[1:]
    assert tokenizer.decode(list(made["input"].completion_ids[0])) == made["input"].completions[0]
