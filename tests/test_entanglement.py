"""Scoring against one string at a time, and the arithmetic of interactions on planted and on null matrices."""

import pytest
import torch
from conftest import normal
from tiny_llama import save_tiny_llama

from mechsub.inputs import prompts
from mechsub.measures import scores as e
from mechsub.models import language


@pytest.fixture(scope="module", params=["tied", "untied, scaled rope"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tied = request.param == "tied"
    return language.load_language_model(
        str(save_tiny_llama(folder, tied=tied, rope_scaling=not tied)), dtype=torch.float64
    )


def ask(model, x, kind="number"):
    w = prompts.WORDINGS[0]
    return prompts.prompt(model.tokenizer, w.question, system=w.love(x, kind, plural=kind == "animal"), answer=w.answer)


def one_by_one(model, prompt, string):
    """log P(string | prompt) the long way: the whole text in one run, no batch, no trie."""
    ids = torch.tensor(model.tokenizer(string, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logp = model(torch.cat([prompt, ids])[None])[0].double().log_softmax(-1)
    return sum(float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))


STRINGS = [" owl", "087", " 087", "7", " 7", "12345678", "123456", "123", " lion", " you love owl", " owl."]


def test_strings_equal_one_at_a_time(model):
    asked = [ask(model, x) for x in ("087", "7", "12345", "420")]  # two lengths
    found = e.string_log_probs(model, asked, STRINGS, batch_size=2)
    expected = torch.tensor([[one_by_one(model, prompt, s) for s in STRINGS] for prompt in asked])
    assert torch.allclose(found, expected, atol=2e-6)


def test_next_tokens_equal_one_at_a_time_and_any_batch(model):
    asked = [ask(model, x) for x in ("087", "7", "12345", "420", "001")]
    whole = e.next_token_log_probs(model, asked, batch_size=4)
    single = torch.cat([e.next_token_log_probs(model, [prompt]) for prompt in asked])
    assert torch.allclose(whole, single, atol=1e-5)
    assert torch.allclose(whole.exp().sum(-1), torch.ones(5), atol=1e-5)
    tokens = [5, 900, 3]
    assert torch.allclose(e.next_token_log_probs(model, asked, tokens=tokens), whole[:, tokens], atol=1e-5)


def test_a_single_token_string_is_a_next_token(model):
    known = prompts.single_tokens(model.tokenizer, ["087", " owl", "999"])
    asked = [ask(model, "087"), ask(model, "owls", "animal")]
    strings = e.string_log_probs(model, asked, list(known))
    tokens = e.next_token_log_probs(model, asked, tokens=list(known.values()))
    assert len(known) == 3 and torch.allclose(strings, tokens, atol=1e-5)


def test_splitting_into_several_tries_changes_nothing(model, monkeypatch):
    asked = [ask(model, "087")]
    whole = e.string_log_probs(model, asked, STRINGS)
    build = e.build_tries
    monkeypatch.setattr(e, "build_tries", lambda strings: build(strings, 2))
    assert len(e.build_tries(prompts.encode(model.tokenizer, STRINGS))) > 2
    assert torch.allclose(e.string_log_probs(model, asked, STRINGS), whole, atol=1e-6)


def test_states_at_the_prompts_end_are_those_of_a_plain_run(model):
    from mechsub import cache_activations

    prompt = ask(model, "087")
    trie = e.build_tries(prompts.encode(model.tokenizer, ["12345"]))[0]
    states = e.string_states(model, [prompt], trie, name="blocks.1.hook_out")
    ids = torch.tensor(model.tokenizer("123", add_special_tokens=False)["input_ids"])
    plain = cache_activations(model, torch.cat([prompt, ids])[None])["blocks.1.hook_out"][0]
    assert torch.allclose(states[0].double(), plain[[len(prompt) - 1, -1]].double(), atol=1e-6)


def test_a_trie_shares_prefixes():
    (trie,) = e.build_tries([(1, 2, 3), (1, 2, 4), (1, 5), (6,)])
    assert len(trie.tokens) == 3  # the prompt's end, 1, and 1 2
    assert trie.depths == [0, 1, 2] and len(trie.edges) == 6
    assert trie.sees.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    numbers = [tuple(map(int, s)) for s in (f"{n:03d}" for n in range(1000))]
    assert len(e.build_tries(numbers)[0].tokens) == 111


def test_empty_prompts_and_train_mode_are_refused(model):
    with pytest.raises(ValueError, match="no prompt"):
        e.next_token_log_probs(model, [])
    with pytest.raises(ValueError, match="is empty"):
        e.next_token_log_probs(model, [torch.tensor([], dtype=torch.long)])
    model.train()
    try:
        with pytest.raises(ValueError, match="train mode"):
            e.string_log_probs(model, [ask(model, "1")], ["7"])
    finally:
        model.eval()


def test_interaction_of_main_effects_is_zero_and_of_a_planted_pair_is_that_pair():
    scores = normal(30, 1) + normal(1, 20, seed=1)
    assert e.interaction(scores).abs().max() < 1e-12
    scores[3, 4] += 1.0
    found = e.interaction(scores)
    assert int(found.argmax()) == 3 * 20 + 4
    assert found[3, 4] == pytest.approx((1 - 1 / 30) * (1 - 1 / 20))
    assert found.sum(0).abs().max() < 1e-10 and found.sum(1).abs().max() < 1e-10


def test_variance_shares_sum_to_one_and_find_what_was_planted():
    table = 3 * normal(1, 40, 1) + normal(6, 1, 1, seed=1) + 0.5 * normal(1, 40, 30, seed=2)
    shares = e.variance_shares(table.expand(6, 40, 30), ("wording", "number", "animal"))
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) == "number" and shares["number x animal"] > 0.01
    assert shares["wording x number"] < 1e-12 and shares["wording x number x animal"] < 1e-12


def test_variance_shares_of_two_axes_are_the_textbook_sums_of_squares():
    s = normal(5, 7)
    shares = e.variance_shares(s, ("a", "b"))
    total = float(((s - s.mean()) ** 2).sum())
    rows = float(7 * ((s.mean(1) - s.mean()) ** 2).sum())
    assert shares["a"] == pytest.approx(rows / total)
    assert shares["a x b"] == pytest.approx(float((e.interaction(s) ** 2).sum()) / total)
    with pytest.raises(ValueError, match="no variance"):
        e.variance_shares(torch.ones(3, 3), ("a", "b"))


def test_permutation_finds_a_planted_agreement_and_is_uniform_without_one():
    from scipy.stats import kstest

    shared = normal(40, 12)
    p, null = e.permutation_p(shared + normal(40, 12, seed=1), shared, n=199)
    assert p == 1 / 200 and abs(sum(null) / len(null)) < 0.05
    ps = []
    for seed in range(100):
        x, y = (e.interaction(normal(12, 6, seed=1000 * k + seed)) for k in (1, 2))
        ps.append(e.permutation_p(x, y, n=39, seed=seed)[0])
    assert kstest(ps, "uniform").pvalue > 0.01


def test_rows_move_within_their_strata_only():
    strata = [0] * 10 + [1] * 10
    marked = torch.zeros(20, 3, dtype=torch.float64)
    marked[:10] = 1.0
    moved = []
    e.permutation_p(normal(20, 3), marked, n=20, strata=strata, statistic=lambda a, b: float(moved.append(b) or 0))
    assert all(torch.equal(b, marked) for b in moved)
    everywhere = []
    e.permutation_p(normal(20, 3), marked, n=20, statistic=lambda a, b: float(everywhere.append(b) or 0))
    assert not all(torch.equal(b, marked) for b in everywhere)


def test_crossed_bootstrap_holds_the_true_mean():
    held = 0
    for seed in range(60):
        table = normal(15, 1, seed=seed) + normal(1, 12, seed=seed + 500) + normal(15, 12, seed=seed + 900)
        low, high = e.crossed_bootstrap(lambda r, c, t=table: float(t[r][:, c].mean()), 15, 12, n=199, seed=seed)
        held += low <= 0 <= high
    assert held >= 50


def test_best_of_null():
    effects = torch.arange(100.0)
    assert float(e.best_of_null(effects, 100, n=5).min()) == 99
    assert float(e.best_of_null(effects, 1, n=4000).mean()) == pytest.approx(49.5, abs=1.5)
    assert float(e.best_of_null(effects, 10, n=4000).mean()) == pytest.approx(10 / 11 * 101 - 1, abs=1)
    with pytest.raises(ValueError, match="k must be a whole number within 1"):
        e.best_of_null(effects, 0)
