"""contributions: parts that add up, planted shares, both ways of an ablation, patches that carry everything."""

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import normal
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.designs import contribution_parts as cp
from mechsub.designs import contribution_states as cs
from mechsub.designs import contributions, love
from mechsub.measures import ablation
from studies import contributions as study
from studies.contributions import findings

ROOT = Path(__file__).parent.parent
N, A = 40, 25


def measured(specific=1.0, wording=0.5, baseline=2.0):
    """Planted: message 1, love 2 more, number 3 more, and normal parts of the given sizes."""
    own = ms.interaction(specific * normal(N, A, seed=0))
    animals = baseline * (normal(A, seed=1) - normal(A, seed=1).mean())
    rows = 0.3 * (normal(N, seed=2) - normal(N, seed=2).mean())
    others = 6 + animals + rows[:, None] + own
    published = others + wording * normal(N, A, seed=3)
    return cp.Measured(published, others, torch.zeros(N, A).double(), 1 + normal(A, seed=4) * 0, 3 + 0 * animals)


def test_parts_add_up_to_the_published_ratio():
    m = measured()._replace(date=0.1 * normal(N, A, seed=9))
    parts = cp.parts(m)
    assert tuple(parts) == cp.PARTS
    torch.testing.assert_close(sum(parts.values()), m.published, atol=1e-12, rtol=0)
    assert sum(cp.ratio_shares(parts, m.published).values()) == pytest.approx(1, abs=1e-12)


def test_planted_parts_are_found():
    m = measured()
    parts = cp.parts(m)
    means = {name: round(float(part.mean()), 6) for name, part in parts.items()}
    assert (means["any system message"], means["any love"], means["any number"]) == (1, 2, 3)
    torch.testing.assert_close(parts["the animal's baseline"][0], m.others.mean(0) - 6, atol=1e-9, rtol=0)
    torch.testing.assert_close(parts["animal and number"], ms.interaction(m.others))
    share = cp.ratio_shares(parts, m.published)
    whole = float(m.published.square().sum())
    for name, size in (("the animal's baseline", m.others.mean(0) - 6), ("wording", m.published - m.others)):
        assert share[name] == pytest.approx(float((size * torch.ones(N, 1)).square().sum()) / whole, abs=0.03)


def test_noise_of_one_wording_is_no_part_of_what_is_specific():
    """Nothing is specific; published and other wordings each have noise of their own."""
    shares = []
    for seed in range(20):
        noise = [normal(N, A, seed=seed + 100 * k) for k in range(2)]
        zero = torch.zeros(A).double()
        m = cp.Measured(noise[0], noise[1], torch.zeros(N, A).double(), zero, zero)
        shares.append(cp.ratio_shares(cp.parts(m), m.published)["animal and number"])
    assert abs(sum(shares) / 20) < 0.02


def test_shares_of_the_specific_part_are_the_planted_ones():
    a, b = normal(N, A, seed=0), normal(N, A, seed=1)
    noise, other = normal(N, A, seed=2), normal(N, A, seed=3)
    stack = torch.stack([a, 0.5 * b, noise])
    found = cp.specific_shares(stack, stack.sum(0), a + 0.5 * b + other)
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(found, torch.tensor([0.8, 0.2, 0.0]).double(), atol=0.08, rtol=0)
    low, high = cp.bootstrap(
        lambda r, c: cp.specific_shares(stack[:, r][:, :, c], stack.sum(0)[r][:, c], (a + 0.5 * b + other)[r][:, c]),
        (N, A), 60, 0,
    )  # fmt: skip
    assert bool(((low < torch.tensor([0.8, 0.2, 0.0])) & (torch.tensor([0.8, 0.2, 0.0]) < high)).all())


def test_an_association_is_what_least_squares_finds():
    likely, left = normal(N, A, seed=0), 0.7 * normal(N, A, seed=0) + normal(N, A, seed=1)
    fold = torch.arange(N) % contributions.N_FOLDS
    found = contributions.associated(left, likely, fold)
    assert float(found.norm() / ms.interaction(likely).norm()) == pytest.approx(0.7, abs=0.1)
    one = fold == 0  # the slope of a fold is the least-squares one of the others
    a, e = (ms.interaction(x)[~one].flatten().numpy() for x in (likely, left))
    slope = float(np.linalg.lstsq(a[:, None], e, rcond=None)[0][0])
    torch.testing.assert_close(found[one], slope * ms.interaction(likely)[one])
    draws = contributions.Draws(40, seed=0)
    null = contributions.shuffled_association(left, likely, left, left, [1] * 20 + [2] * 20, draws)
    assert max(null) < 0.1 < float(cp.specific_shares(found[None], left, left)[0])


# In a model.


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"), tied=False)
    model = ms.load_language_model(str(folder))
    cfg = love.Asking(model=str(folder), n_animals=10, n_partners=30, spaced=False)
    return love.LovePrompts(model, love.choose_animals(model.tokenizer, cfg), love.choose_partners(cfg), cfg)


def test_rows_and_mirror_agree(asked):
    numbers = list(range(8))
    for removed in (cs.number_to_animal(asked, numbers, 0), cs.animal_to_number(asked, range(6), 0)):
        assert contributions._disagreement(removed) < 1e-4
        assert float((removed.whole - removed.own).abs().max()) > 1e-3


def test_a_copy_of_the_model_with_these_rows_says_the_same(asked):
    """The ablation in a model of its own, whose unembedding is tied to nothing, run from tokens to logits."""
    n, model = 3, asked.model
    basis = ablation.direction_basis(
        model, [int(model.tokenizer(asked.strings[n], add_special_tokens=False)["input_ids"][0])]
    )
    other = copy.deepcopy(model.original_model)
    columns = ablation.ablated_columns(model, asked.tokens, basis)
    with torch.no_grad():
        other.get_output_embeddings().weight[asked.tokens] = columns.T
        logits = [
            other(asked_for[None]).logits[0, -1, asked.tokens] for asked_for in (asked.love(n, 0), asked.ask(None))
        ]
    assert torch.equal(other.get_input_embeddings().weight, model.original_model.get_input_embeddings().weight)
    found = cs.number_to_animal(asked, [n, 5], 0).own[0]
    expected, own = (x - x.mean() for x in (logits[0] - logits[1], found.float()))
    torch.testing.assert_close(own, expected, atol=1e-3, rtol=1e-3)


def test_bases_are_those_of_each_thing_alone(asked):
    found = cs._bases(asked.model, [(3, 3, 7), (9,)])
    for basis, tokens in zip(found, [(3, 7), (9,)], strict=True):
        own = ablation.direction_basis(asked.model, tokens)
        torch.testing.assert_close(basis.T @ basis, own.T @ own, atol=1e-5, rtol=0)


def test_whole_effects_are_the_measured_ones(asked):
    numbers = list(range(8))
    measured = asked.animals_after([asked.love(n, 0) for n in numbers])
    for found in (cs.number_to_animal(asked, numbers, 0).whole, sum(cs.components(asked, numbers).values())):
        assert contributions._apart(found, measured) < 1e-3
    back = cs.animal_to_number(asked, [0, 1, 2], 0).whole
    expected = asked.partners_after([asked.love_animal(i, 0) for i in (0, 1, 2)])
    assert (
        contributions._apart(back, expected) < 1e-3
    )  # one token a number: the normaliser is an effect of the animal alone


def test_positions_are_the_prompts_parts(asked):
    same = [n for n, word in enumerate(asked.partners) if len(word.text) == 3]
    found = cs.positions(asked, same[0], same)
    own = asked.love(same[0], 0)
    tokens = asked.model.tokenizer.convert_ids_to_tokens(own.tolist())
    assert [tokens[i] for i in found["number"]] == [asked.partners[same[0]].text] * 3
    assert found["final"].tolist() == [len(own) - 1]
    assert tokens[int(found["end of the system message"][0])] == "<|eot|>"
    assert tokens[int(found["question and answer"][0])] == "What"
    every = torch.cat(list(found.values()))
    assert len(every) == len(set(every.tolist()))


def test_patches_carry_what_they_must(asked):
    same = [n for n, word in enumerate(asked.partners) if len(word.text) == 3]
    alike, n_layers = dict.fromkeys(same, same), asked.model.cfg.n_layers
    wanted = ms.interaction(normal(2, len(asked.animals), seed=0))
    pairs = [(same[0], same[1]), (same[2], same[3])]
    patches = list(cs.patches(asked, pairs, wanted, alike, range(n_layers)))
    for patch in patches:
        if patch.layer == n_layers - 1:  # only the last position is read after the last block
            expected = patch.whole if patch.position == "final" else torch.zeros_like(patch.whole)
            torch.testing.assert_close(patch.patched, expected, atol=1e-4, rtol=1e-4)
    assert all(p.linear != 0 for p in patches if p.layer == n_layers - 1 and p.position == "final")


def test_no_number_is_in_two_pairs():
    alike = [list(range(9)), list(range(10, 16)), [20, 21]]
    pairs = cs.disjoint_pairs(alike, 6, seed=0)
    members = [i for pair in pairs for i in pair]
    assert len(pairs) == 6 and len(set(members)) == 12
    assert all(any(i in group and j in group for group in alike) for i, j in pairs)
    assert len(cs.disjoint_pairs(alike, 50, seed=0)) == 8


def test_recovery_is_of_log_odds():
    """A constant in all logits changes nothing; half of everything is one half."""
    wanted, whole = normal(8, A, seed=0), normal(8, A, seed=1) + 2 * normal(8, A, seed=0)
    assert float(cp.recovery(wanted, whole / 2 + 5, whole)) == pytest.approx(0.5, abs=1e-9)
    assert float(cp.recovery(wanted + 3, whole / 2, whole - 7)) == pytest.approx(0.5, abs=1e-9)


def test_an_association_that_is_none_has_no_share():
    """Its estimate is about 0 over draws, and intervals contain 0 about as often as they say."""
    covered, shares = 0, []
    for seed in range(40):
        e, likely = normal(N, A, seed=seed), normal(N, A, seed=seed + 1000)
        noise = [0.5 * normal(N, A, seed=seed + 2000 + k) for k in range(2)]
        draws = contributions.Draws(60, seed)
        cut = list(contributions.cut_records(e + noise[0], e + noise[0], likely, e + noise[1], draws))
        (row,) = (r for r in cut if r["part"] == "association")
        covered += row["low"] <= 0 <= row["high"]
        shares.append(row["share"])
        assert sum(r["share"] for r in cut) == pytest.approx(1, abs=1e-9)
    assert covered >= 33 and abs(ms.stats.student_t(shares).mean) < 0.002


def test_attribution_patching_is_the_slope_of_patching(asked):
    """For a small step it is exact: the gradient against a central difference."""
    name, tokens = "blocks.1.hook_out", asked.love(20, 0)[None]
    weight = torch.zeros(asked.model.W_U.shape[-1])
    weight[asked.tokens[0]], weight[asked.tokens[1]] = 1, -1
    states, slopes = cs._gradients(asked.model, tokens, [name], weight)
    direction = 1e-2 * torch.randn(states[name].shape, generator=torch.Generator().manual_seed(0))
    where = [torch.arange(len(tokens[0]))]
    up, down = (
        cs._patched(asked.model, tokens, name, (states[name] + s * direction)[None], where) @ weight for s in (1, -1)
    )
    assert float(up - down) / 2 == pytest.approx(float((direction * slopes[name]).sum()), rel=0.02, abs=1e-4)


def test_bad_input_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "studies.contributions", "--n-pairs", "2", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: --n-pairs") and not list(tmp_path.iterdir())


def test_every_record_of_a_tiny_llama(asked):
    """From its matrices to table, figure and sentence."""
    q = love.LovePrompts(
        asked.model, asked.animals, asked.partners, dataclasses.replace(asked.cfg, n_wordings=3, n_subset=20)
    )
    found = love.Prompted(q, q.matrices())
    cfg = study.Config(model=asked.cfg.model, n_pairs=4, n_resamples=10)
    yielded = contributions.compare(cs.gather(found, 4, cfg.seed), contributions.Draws(10, cfg.seed))
    records = [{**dataclasses.asdict(cfg), **row} for row in yielded if "tensors" not in row]
    for pairs in ("all", "chosen"):
        parts = [r for r in records if r["kind"] == "part" and r["pairs"] == pairs]
        assert sum(r["share"] for r in parts) == pytest.approx(1, abs=1e-6)
    for kind in ("cut", "component"):
        assert sum(r["share"] for r in records if r["kind"] == kind) == pytest.approx(1, abs=1e-6)
    animals = [r for r in records if r["kind"] == "animal"]
    assert len(animals) == 10
    for row in animals:
        assert sum(value for key, value in row.items() if key.startswith("part: ")) == pytest.approx(
            row["ratio"], abs=1e-9
        )
    said = list(findings.findings(records))
    assert any(finding.key == "block_3/recovered_final" for finding in said)
    assert "Of the interaction" in findings.sentence(said)
    assert findings.plot(records).data


def test_associations_without_an_interaction_predict_nothing():
    left = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    likely = torch.arange(12.0)[:, None] + torch.arange(5.0)  # numbers and animals add up
    found = contributions.associated(left, likely.double(), torch.arange(12) % 3)
    assert bool((found == 0).all())
