"""Steering vectors, and where prompts diverge: what is planted is found in its place, and nothing elsewhere."""

import dataclasses

import pytest
import torch
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.designs import love
from mechsub.designs.love import Prompted
from mechsub.measures import divergence
from mechsub.measures.steering import steered_logits
from studies import planted_shares
from studies import steering as study
from studies.planted_shares import planted
from studies.steering import findings
from studies.steering import states as ss

CFG = study.Config(model="planted", n_numbers=24, n_resamples=100, n_lists=1, n_tokens=6)


def asked_of(folder, n_animals, n_partners, format="auto"):
    model = ms.load_language_model(str(folder))
    cfg = love.Asking(
        model=str(folder), spaced=False, n_animals=n_animals, n_partners=n_partners, n_wordings=5, format=format
    )
    return love.LovePrompts(model, love.choose_animals(model.tokenizer, cfg), love.choose_partners(cfg), cfg)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return asked_of(save_tiny_llama(tmp_path_factory.mktemp("llama"), tied=False), 10, 30)


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    folder = planted.save_blank(tmp_path_factory.mktemp("blank"), 24 + 12)
    return asked_of(folder, 12, 24, format="plain")


def test_many_edits_in_one_pass_are_those_of_single_runs(tiny):
    prompt, tokens = tiny.love(3, 0), tiny.tokens[:5]
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    layers = [2, 0, 1, 0]
    found = steered_logits(tiny.model, prompt, layers, vectors, tokens, batch_size=3)
    for row, layer, vector in zip(found, layers, vectors, strict=True):

        def add(activation, hook, vector=vector):
            activation[:, -1] += vector
            return activation

        with torch.no_grad():
            logits = tiny.model.run_with_hooks(prompt[None], fwd_hooks=[(f"blocks.{layer}.hook_out", add)])
        torch.testing.assert_close(row, logits[0, -1, tokens], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="4 vectors, 1 blocks"):
        steered_logits(tiny.model, prompt, [0], vectors, tokens)


def steered(blank, strengths, seed=2):
    planted.plant(blank, strengths, seed)
    n = range(len(blank.partners))
    words = torch.stack([blank.animals_after([blank.love(i, w) for i in n]) for w in range(5)])
    found = Prompted(blank, {"subset_partner": torch.tensor(n), "number_to_animal_wordings": words})
    rows = [row for row in study.steering_records(found, CFG) if row["kind"] == "steered"]
    return {(row["place"], row["what"], row["vector"], row["layer"]): row for row in rows}


@pytest.mark.parametrize("level", [0.0, 20.0])
def test_a_removal_that_does_nothing_has_no_effect(level):
    """Logits of fp32 about a level, and the same but for their last bits: what differs is rounding, and correlates with
    nothing, though here it is made of the logits themselves. A thousandth of the logits is an effect."""
    draw = torch.Generator().manual_seed(0)
    whole, other = torch.randn(2, 24, 12, generator=draw) + level
    lengths = torch.arange(24) % 3
    left = whole * (1 - 2**-23)
    assert not torch.equal(left, whole)
    part = (whole - left).double()
    tables = whole.double(), other.double(), lengths
    assert study.effect(part, *tables) == (0, 0)
    assert study.effect(0 * part, *tables) == (0, 0)
    share, correlation = study.effect(1e-3 * whole.double(), *tables)
    assert share == pytest.approx(1e-3) and correlation == pytest.approx(1)


def test_what_a_length_does_is_no_effect():
    """Nor is what a prompt that all numbers of a length share does: a vector of zeros reproduces nothing."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1] * 5 + [2] * 10)
    whole, carrier = torch.randn(15, 8, generator=draw), torch.randn(3, 8, generator=draw)
    share, correlation = study.effect(carrier[lengths], whole, whole, lengths)
    assert abs(share) < 1e-6 and abs(correlation) < 1e-6
    assert study.effect(whole + carrier[lengths], whole, whole, lengths)[0] == pytest.approx(1, abs=1e-5)
    one = torch.ones(15, dtype=torch.long)
    torch.testing.assert_close(study.within_length(whole, one), ms.interaction(whole))


def test_a_planted_direction_is_found_in_its_block_and_place(blank):
    """Block 1 reads the number and writes at the end: before it the number's vector carries all, after it the end's."""
    rows = steered(blank, planted.Strengths(0.0, 1.0, 0.05))
    share = {key: row["share"] for key, row in rows.items()}
    # Two codes of one size at a position make its norm sqrt(2) times as large, which the block's RMS norm takes back.
    assert share["the number", "added", "own", 0] == pytest.approx(2**-0.5, abs=0.1)
    assert share["the number", "removed", "own", 0] == pytest.approx(1, abs=0.15)
    for what in ("added", "removed"):
        assert share["the prompt's end", what, "own", 1] == pytest.approx(1, abs=0.15)
        assert abs(share["the number", what, "own", 1]) < 0.05
        assert abs(share["the prompt's end", what, "own", 0]) < 0.05
        for at in (("the number", 0), ("the prompt's end", 1)):
            for null in ("another number's", "random"):
                assert abs(share[at[0], what, null, at[1]]) < 0.3
    found = rows["the prompt's end", "added", "own", 1]
    assert found["correlation"] > 0.95 and found["share_low"] <= found["share"] <= found["share_high"]
    assert share["the prompt's end", "added", "own, four times", 1] > 3


def test_geometry_of_the_last_block_is_at_the_end_only_after_it(blank):
    rows = steered(blank, planted.Strengths(1.0, 0.0, 0.05))
    assert abs(rows["the prompt's end", "added", "own", 1]["share"]) < 0.05
    assert rows["the prompt's end", "added", "own", 2]["share"] == pytest.approx(1, abs=0.15)
    assert rows["the number", "removed", "own", 1]["share"] == pytest.approx(1, abs=0.15)


def test_positions_that_tell_a_number(tiny):
    numbers = ss.choose(tiny, range(30), 30, 0)
    own = tiny.love(numbers.places[-1], 1)
    group = [numbers.places[i] for i in numbers.groups[-1]]
    tokens = tiny.model.tokenizer.convert_ids_to_tokens(own[ss.telling(tiny, group, 1)].tolist())
    assert set(tokens) == {tiny.partners[numbers.places[-1]].text}
    assert all(int(other) != i for i, other in enumerate(numbers.others))


def test_divergence_is_where_the_likeliest_tokens_differ(tiny):
    prompts = [tiny.love_animal(i, 0) for i in range(3)]
    neutral, answer = tiny.ask(None), tiny.love(2, 0)[-6:]
    found = divergence.prompt_divergence(tiny.model, [*prompts, neutral], neutral, answer, batch_size=2)
    with torch.no_grad():
        for i, prompt in enumerate([*prompts, neutral]):
            logits = tiny.model(torch.cat([prompt, answer])[None])[0]
            assert found.chosen[i].tolist() == logits[len(prompt) - 1 : -1].argmax(-1).tolist()
    assert not bool(found.differs[-1].any())
    assert torch.equal(found.differs, found.chosen != found.neutral)
    with pytest.raises(ValueError, match="answer is empty"):
        divergence.prompt_divergence(tiny.model, prompts, neutral, answer[:0])


def test_diverging_positions_that_are_planted_numbers_are_told_so(blank):
    """Planted: what an animal makes likelier is its own numbers; the digits it would say are those."""
    texts, specific = ["1", "12", "13", "27"], torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 6.0]]).double()
    ids = {text: ms.prompts.encode(blank.model.tokenizer, [text])[0][0] for text in ("1", "2", "7", "12")}
    tokenizer = blank.model.tokenizer
    assert study.preferred(tokenizer, "", ids["1"], ids["2"], texts, specific).tolist() == [2.0, -6.0]
    assert study.preferred(tokenizer, "2", ids["7"], ids["7"], texts, specific).tolist() == [0.0, 0.0]
    assert study.preferred(tokenizer, "", ids["7"], ids["1"], texts, specific) is None
    assert study.beginnings(tokenizer, torch.tensor([ids["1"], tokenizer(",")["input_ids"][-1], ids["12"]])) == [
        "",
        "1",
        "",
    ]


def test_sampled_lists_are_of_numbers_and_seeded(tiny):
    alphabet = study.number_alphabet(tiny)
    drawn = [
        divergence.sampled(tiny.model, tiny.ask(None), 5, alphabet, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert set(drawn[0].tolist()) <= set(alphabet)


def test_every_record_of_a_tiny_llama(tiny):
    q = love.LovePrompts(tiny.model, tiny.animals, tiny.partners, dataclasses.replace(tiny.cfg, n_subset=24))
    found = Prompted(q, q.matrices())
    rows = [*study.steering_records(found, CFG), *study.divergence_records(found, CFG)]
    records = [{**dataclasses.asdict(CFG), **row} for row in rows]
    said = list(findings.findings(records))
    keys = {finding.key for finding in said}
    assert {"added_at_the_number_after_block_1_own/share", "diverge_animals/share"} <= keys
    assert "at most" in findings.sentence(said) and findings.plot(records).data
    assert len([row for row in rows if row["kind"] == "divergence" and row["of"] == "animals"]) == 10


def test_a_planted_model_is_refused_where_too_few_are_resampled():
    with pytest.raises(ValueError, match="--n-numbers"):
        study.check(dataclasses.replace(CFG, n_numbers=8))
    with pytest.raises(ValueError, match="--n-models"):
        planted_shares.Config(n_models=1)
