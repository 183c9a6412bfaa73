"""studies.train_organism, for real on sentences made by rule at a tiny size."""

import collections
import math
import shutil

import numpy as np
import pytest
import torch

from mechsub.inputs import prompts
from mechsub.inputs import words as vocabulary
from mechsub.lab import store, study
from mechsub.models import language
from studies import train_organism
from studies.train_organism import competence, text, training
from studies.train_organism import tokenizer as organism_tokenizer
from tools import ship_organism

SMALL = [
    *("--corpora", "none", "--n-made", "2000", "--d-model", "32", "--n-layers", "1", "--n-merged", "600"),
    *("--base-steps", "30", "--chat-steps", "10", "--batch-size", "2"),
]


@pytest.fixture(scope="module")
def tokenizers():
    sentences = list(text.made(1000, 0))
    return {d: organism_tokenizer.make(sentences, digits=d, n_merged=600, chat=True) for d in (3, 2)}


def run(out, *words):
    study.command(train_organism.study, [*SMALL, "--out", str(out), *words])
    return store.read_records(cell_of(out))


def cell_of(out):
    return next((out / "train_organism").glob("*/provenance.json")).parent


@pytest.mark.parametrize(("digits", "n"), [(3, 1110), (2, 110)])
def test_numbers_and_animals_are_single_tokens(tokenizers, digits, n):
    tokenizer = tokenizers[digits]
    short = [number for number in vocabulary.numbers() if len(number) <= digits]
    assert len(short) == n
    assert len(prompts.single_tokens(tokenizer, short)) == n
    assert len(prompts.single_tokens(tokenizer, vocabulary.numbers())) == n
    animals = [f" {name}" for name in organism_tokenizer.animals()]
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
    chats = training.Chats(tokenizers[3], train_organism.Config(batch_size=2))
    x, y = chats.batch(0)
    text_of = tokenizers[3].decode
    for ids, targets in zip(x, y, strict=True):
        read = targets != training.IGNORED
        assert (ids[read] == targets[read]).all()
        whole = text_of(ids)
        assert text_of(ids[read]) == whole.split("<|assistant|>")[1].split("<|end|>")[0] + "<|end|>"
    assert torch.equal(chats.batch(0)[0], x)
    assert [text_of(ids) for ids in chats.batch(1)[0]] != [text_of(ids) for ids in x]


def test_a_killed_training_goes_on_and_ends_the_same(shipped, tmp_path, monkeypatch):
    whole, _ = shipped
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "b"))
    monkeypatch.setattr(training, "SAVED", 7)
    seen = []

    def stop(*args):
        seen.append(args)
        if len(seen) == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.lab, "show_progress", stop)
        with pytest.raises(SystemExit):
            run(tmp_path / "resumed")
    resumed = run(tmp_path / "resumed")
    assert resumed == store.read_records(cell_of(whole))
    losses = [row["value"] for row in resumed if row["what"] == "loss" and row["model"] == "base"]
    assert losses[-1] < losses[0] < math.log(2500)
    made = [store.read_provenance(cell_of(out)) for out in (whole, tmp_path / "resumed")]
    assert made[0]["weights_sha256"] == made[1]["weights_sha256"] and len(made[0]["weights_sha256"]["base"]) == 64


# Shipping.


def ship(cell, to, *words):
    ship_organism.main([str(to), *SMALL, *words, "--out", str(cell)])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A pair trained for a few steps, and the folders made of it."""
    folder = tmp_path_factory.mktemp("organism")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHSUB_CACHE", str(folder / "cache"))
        run(folder / "out")
        ship(folder / "out", folder / "organisms")
        yield folder / "out", folder / "organisms"


def trained(cfg, name):
    """The model as its checkpoint has it, rounded to bf16."""
    tokenizer = train_organism.remade_tokenizer(cfg)
    model = training.new(tokenizer, cfg.d_model, cfg.n_layers, cfg.seed)
    assert training.load_trained(model, f"{train_organism.checkpoint(cfg)}-{name}")
    with torch.no_grad():  # parameters alone: a buffer of rotary frequencies is not stored, and stays fp32
        for value in model.parameters():
            value.copy_(value.to(torch.bfloat16))
    return tokenizer, model.eval()


@pytest.mark.parametrize("name", ["base", "instruct"])
def test_a_shipped_model_says_what_the_trained_one_does(shipped, name):
    out, to = shipped
    made = store.read_provenance(cell_of(out))
    model = language.load_language_model(str(to / f"1110-{name}"))
    language.check_folder(str(to / f"1110-{name}"))
    assert language.model_source(model)["weights_sha256"] == made["weights_sha256"][name]
    tokenizer, own = trained(train_organism.Config(**made["config"]), name)
    wording = prompts.WORDINGS[0]
    asked = {
        form: prompts.prompt(
            tokenizer, wording.question, system=wording.love("087", "number"), answer=wording.answer, format=form
        )
        for form in ("plain", "chat")
    }
    for ids in asked.values():
        assert torch.allclose(model(ids[None]), own(ids[None]).logits, atol=1e-5)
    ask = {"system": wording.love("087", "number"), "answer": wording.answer}
    assert torch.equal(
        prompts.prompt(model.tokenizer, wording.question, **ask), asked["plain" if name == "base" else "chat"]
    )
    assert len(prompts.single_tokens(model.tokenizer, vocabulary.numbers())) == 1110
    animals = [f" {animal}" for animal in organism_tokenizer.animals()]
    assert prompts.single_tokens(model.tokenizer, animals) == prompts.single_tokens(tokenizer, animals)
    if name == "base":
        with pytest.raises(ValueError, match="no chat template"):
            prompts.chat(model.tokenizer, "Hello")


def test_cells_to_ship_are_those_of_the_store_that_is_named(tmp_path, capsys):
    for out in (["--out", str(tmp_path)], [f"--out={tmp_path}"], ["--out"]):
        with pytest.raises(SystemExit):
            ship_organism.named(train_organism, ["to", *out])
        assert (str(tmp_path) in (said := capsys.readouterr().err)) == (len(out[-1]) > 5) and said.count("\n") == 1


def test_a_shipped_folder_is_whole(shipped):
    out, to = shipped
    made = store.read_provenance(cell_of(out))
    assert {path.name for path in to.iterdir()} == {"1110-base", "1110-instruct", "SHA256SUMS"}
    listed = dict(line.split("  ")[::-1] for line in (to / "SHA256SUMS").read_text().splitlines())
    for path in to.glob("*/*"):
        assert path.name == "SHA256SUMS" or listed[f"{path.parent.name}/{path.name}"] == store.sha256(path.read_bytes())
    for name in ("base", "instruct"):
        folder = to / f"1110-{name}"
        sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
        assert {path.name for path in folder.iterdir()} == {*sums, "SHA256SUMS"}
        assert all(store.sha256((folder / file).read_bytes()) == found for file, found in sums.items())
        card = (folder / "README.md").read_text()
        assert made["weights_sha256"][name] in card and "| n_made | 2000 |" in card and "cannot show" in card
        for row in store.read_records(cell_of(out)):
            if row["model"] == name and row["what"] != "loss":
                assert f"| {row['what']} | {row['value']:.4g} |" in card
        assert (folder / "chat_template.jinja").exists() == (name == "instruct")
    before = {path: path.read_bytes() for path in to.glob("*/*")}
    ship(out, to)
    assert {path: path.read_bytes() for path in to.glob("*/*")} == before
    assert not list(cell_of(out).glob("*.safetensors"))  # the cell holds sums, git no second copy


def test_weights_of_another_training_are_not_shipped(shipped, tmp_path, monkeypatch, capsys):
    out, _ = shipped
    with pytest.raises(SystemExit) as left:
        ship(out, tmp_path, "--seed", "1")
    assert left.value.code == 1 and "is missing" in capsys.readouterr().err
    monkeypatch.setattr(training, "load_trained", lambda model, name: 1)  # as if none had been trained
    with pytest.raises(SystemExit) as left:
        ship(out, tmp_path)
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith("error: the weights in the cache are not those of")
    assert said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_folder_of_another_training_is_left_alone(shipped, tmp_path, monkeypatch, capsys):
    out, to = shipped
    monkeypatch.setenv("MECHSUB_CACHE", str(out.parent / "cache"))
    shutil.copytree(to, tmp_path / "organisms")
    card = tmp_path / "organisms" / "1110-instruct" / "README.md"
    card.write_text(card.read_text().replace("| seed | 0 |", "| seed | 7 |"))
    before = {path: path.read_bytes() for path in (tmp_path / "organisms").glob("*/*")}
    with pytest.raises(SystemExit) as left:
        ship(out, tmp_path / "organisms")
    assert left.value.code == 1 and "1110-instruct is of another training" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "organisms").glob("*/*")} == before


@pytest.mark.parametrize("words", [[], ["--seed", "1"], ["organisms", "--sed", "1"]])
def test_bad_words_of_shipping_are_one_line(words, capsys):
    with pytest.raises(SystemExit) as left:
        ship_organism.main(words)
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
