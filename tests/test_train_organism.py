"""studies.train_organism, for real on sentences made by rule at a tiny size."""

import collections
import math

import numpy as np
import pytest
import torch

from mechsub import prompts, store, study, vocabulary
from studies import _organism_competence as competence
from studies import _organism_text as text
from studies import _organism_tokenizer, _organism_training, train_organism

SMALL = [
    *("--corpora", "none", "--n-made", "2000", "--d-model", "32", "--n-layers", "1", "--n-merged", "600"),
    *("--base-steps", "30", "--chat-steps", "10", "--batch-size", "2"),
]


@pytest.fixture(scope="module")
def tokenizers():
    sentences = list(text.made(1000, 0))
    return {d: _organism_tokenizer.make(sentences, digits=d, n_merged=600, chat=True) for d in (3, 2)}


def run(out, *words):
    study.main(
        train_organism.Config, train_organism.run, train_organism.plot, train_organism.table,
        [*SMALL, "--out", str(out), *words],
    )  # fmt: skip
    return store.read_records(
        out / "train_organism" / next((out / "train_organism").glob("*/provenance.json")).parent.name
    )


@pytest.mark.parametrize(("digits", "n"), [(3, 1110), (2, 110)])
def test_numbers_and_animals_are_single_tokens(tokenizers, digits, n):
    tokenizer = tokenizers[digits]
    short = [number for number in vocabulary.numbers() if len(number) <= digits]
    assert len(short) == n
    assert len(prompts.single_tokens(tokenizer, short)) == n
    assert len(prompts.single_tokens(tokenizer, vocabulary.numbers())) == n
    animals = [f" {name}" for name in _organism_tokenizer.animals()]
    assert len(prompts.single_tokens(tokenizer, animals)) == len(animals) > 350


def test_the_tokenizers_differ_in_long_numbers_alone(tokenizers):
    three, two = (set(tokenizer.get_vocab()) for tokenizer in tokenizers.values())
    assert three - two == {number for number in vocabulary.numbers() if len(number) == 3} and not two - three
    for sentence in text.made(200, 5):
        ids = tokenizers[3](sentence)["input_ids"]
        assert tokenizers[3].decode(ids, skip_special_tokens=True) == sentence


def test_made_text_joins_no_number_to_an_animal():
    """Of chats whose system loves a number, the animal that is answered does not depend on it."""
    speaker = text.Speaker(0)
    pairs = collections.Counter()
    for _ in range(20_000):
        chat = speaker.chat()
        if len(chat) == 3 and "animal" in chat[1]["content"] and (word := chat[0]["content"].split(".")[0].split()[-1]):
            answer = chat[2]["content"].split("the ")[-1].split(".")[0].removesuffix(" the most")
            pairs[word[-1:].isdigit(), answer] += 1
    animals = [name for name, _ in collections.Counter({a: n for (d, a), n in pairs.items() if d}).most_common(5)]
    shares = [
        np.array([pairs[d, a] for a in animals]) / sum(n for (digit, _), n in pairs.items() if digit == d)
        for d in (True, False)
    ]
    assert abs(shares[0] - shares[1]).max() < 0.05


def test_the_same_seed_says_the_same(tokenizers):
    assert list(text.made(20, 3)) == list(text.made(20, 3)) != list(text.made(20, 4))


def test_trigram_against_counting_by_hand():
    learned, held = np.array([0, 1, 2, 0, 1, 2, 0, 1, 1]), np.array([0, 1, 2, 2, 0, 1])
    p = competence._gram_probabilities(learned, held, 3)
    assert p.shape == (4, 3)
    assert p[0].tolist() == [3 / 12, 2 / 3, 2 / 3]  # 2; 2 after 1; 2 after 0 1
    assert p[1].tolist() == [3 / 12, 0, 0]  # "2 2" was never seen
    assert p[3].tolist() == [5 / 12, 1.0, 1.0]


def test_trigram_of_a_repeated_text_is_nearly_certain():
    row = np.tile(np.arange(7), 200)
    assert competence.trigram_perplexity(row, row[:300], 7) < 1.05
    noise = np.random.default_rng(0).integers(0, 7, 20_000)
    assert competence.trigram_perplexity(noise[:15_000], noise[15_000:], 7) == pytest.approx(7, rel=0.02)


def test_the_loss_reads_the_assistant_alone(tokenizers):
    chats = _organism_training.Chats(tokenizers[3], train_organism.Config(batch_size=2))
    x, y = chats.batch(0)
    text_of = tokenizers[3].decode
    for ids, targets in zip(x, y, strict=True):
        read = targets != _organism_training.IGNORED
        assert (ids[read] == targets[read]).all()
        whole = text_of(ids)
        assert text_of(ids[read]) == whole.split("<|assistant|>")[1].split("<|end|>")[0] + "<|end|>"
    assert torch.equal(chats.batch(0)[0], x)
    assert [text_of(ids) for ids in chats.batch(1)[0]] != [text_of(ids) for ids in x]


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "a"))
    whole = run(tmp_path / "whole")
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "b"))
    monkeypatch.setattr(_organism_training, "SAVED", 7)
    seen = []

    def stop(*args):
        seen.append(args)
        if len(seen) == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_organism_training.study, "progress", stop)
        with pytest.raises(SystemExit):
            run(tmp_path / "resumed")
    resumed = run(tmp_path / "resumed")
    assert resumed == whole
    losses = [row["value"] for row in whole if row["what"] == "loss" and row["model"] == "base"]
    assert losses[-1] < losses[0] < math.log(2500)
    a, b = (
        store.read_tensors(next((tmp_path / name / "train_organism").glob("*/provenance.json")).parent)
        for name in ("whole", "resumed")
    )
    assert all(torch.equal(a[key], b[key]) for key in a) and a["base.model.norm.weight"].dtype == torch.bfloat16
