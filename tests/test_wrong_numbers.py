"""Calls that gave a wrong number without a word, or a traceback: each is right now, or refused in one line."""

import numpy as np
import pytest
import sentencepiece_like
import torch
from tiny_families import Draw, make_prompts, pair
from transformers import LlamaConfig, LlamaForCausalLM

import mechsub as ms
from mechsub import arguments, stats
from mechsub.designs import joins, number_students, numbers
from mechsub.measures import ablation, bottleneck, scores, spectra, tangent, tangent_modes


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Texts as outputs.


@pytest.mark.parametrize("scheme", ["prepend", "always", "first"])
def test_a_text_is_read_as_it_stands_within_a_text(scheme, tmp_path):
    """Alone, these tokenizers put a space before it, which is another token."""
    tokenizer = sentencepiece_like.make(scheme)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(tokenizer)
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    hooked = ms.load_language_model(str(tmp_path))
    for text in ("7", "087", " boa", " owl"):
        (expected,) = ms.prompts.encode(tokenizer, [text])
        assert arguments.pieces(hooked, text, "tokens[0]") == expected
    assert arguments.pieces(hooked, "<|user|>", "tokens[0]") == (tokenizer.convert_tokens_to_ids("<|user|>"),)


# Parts of an interaction.


def test_units_of_features_do_not_matter():
    table, rare = normal(60, 12), normal(60, 3, seed=1)
    count = torch.exp(2 * normal(60, 1, seed=2))
    large, small = (ms.interaction_parts(table, {"count": unit * count, "length": rare}) for unit in (1e8, 1.0))
    assert all(torch.allclose(large[name], small[name], atol=1e-9) for name in small)
    assert torch.allclose(
        ms.left_like(table, table, {"a": 1e8 * count, "b": rare}), ms.left_like(table, table, {"a": count, "b": rare})
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scores_without_main_effects_have_no_slopes(dtype):
    centred = ms.interaction(normal(40, 12)).to(dtype)
    parts = ms.interaction_parts(centred)
    assert float(parts["slopes"].square().sum()) < 1e-9 * float(centred.square().sum())


# Directions under a LayerNorm.


@pytest.mark.parametrize("family", ["olmo", "cohere"])
def test_what_no_output_sees_is_no_part_of_a_direction(family):
    """A LayerNorm has states that sum to 0: a constant in a column before the gain changes no output."""
    model, other = pair(family)[0], pair(family)[0]
    gain = ms.unembedding.final_gain(model)
    more = normal(model.W_U.shape[-1], seed=3, dtype=torch.float32)
    with torch.no_grad():
        other.W_U.copy_(model.W_U + float(model.W_U.std()) * more / gain)
    x = normal(1, 4, model.W_U.shape[-2], dtype=torch.float32)
    told = [torch.log_softmax(ms.unembed(m, x), -1) for m in (model, other)]
    assert torch.allclose(*told, atol=1e-3)
    for metric in ("centered_cosine", "number_centered", "causal"):
        found = [ms.unembed_projection(m, [1, 2, 3], [5, 6], metric) for m in (model, other)]
        assert torch.allclose(found[0], found[1], atol=2e-3 * float(found[0].abs().max()))


# Half precision.


def test_a_divergence_in_half_precision_is_that_of_full():
    final = 3 * normal(4, 50_000, dtype=torch.float32)
    near = (final + 0.01 * normal(4, 50_000, seed=1, dtype=torch.float32)).bfloat16()
    (found,) = ms.lens.kl_to_final({"l": near}, final.bfloat16()).values()
    (exact,) = ms.lens.kl_to_final({"l": near.double()}, final.bfloat16().double()).values()
    assert torch.allclose(found.double(), exact, atol=1e-6) and bool((found > 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_a_spectrum_in_half_precision_are_those_of_full(dtype):
    spectrum = (torch.linspace(1, 300, 400)).to(dtype)
    for of in (spectra.participation_ratio, spectra.dimension):
        assert float(of(spectrum)) == pytest.approx(float(of(spectrum.double())), rel=1e-3)


# An edit that leaves no trace but the values.


@pytest.mark.parametrize("edit", ["one value", "two exchanged"])
def test_an_edit_of_a_gain_by_data_is_seen(edit):
    model = pair("llama", Draw(heads=16, kv=4, head=8))[0]
    before = ms.token_directions(model, [1, 2], basis="centered")
    gain = model.original_model.model.norm.weight.data
    if edit == "one value":
        gain[1] *= 10
    else:
        gain[[1, 2]] = gain[[2, 1]].clone()
    assert not torch.allclose(before, ms.token_directions(model, [1, 2], basis="centered"))


# Correlations that are not defined.


def test_a_correlation_of_nothing_is_refused():
    draw = np.random.default_rng(0)
    x, y = np.exp(draw.normal(size=30)), draw.normal(size=30)
    with pytest.raises(ValueError, match="given has the ranks of x"):
        joins.partial_rank_correlation(x, y, np.log(x))
    with pytest.raises(ValueError, match="given has the ranks of y"):
        joins.partial_rank_correlation(y, x, np.log(x))
    with pytest.raises(ValueError, match="a side is constant"):
        joins.rank_correlation([0] * 9 + [1], range(10))


def test_pairs_of_rounding_and_of_few_things_are_refused():
    draw = np.random.default_rng(0)
    sums = draw.normal(size=(12, 1)) + draw.normal(size=(1, 12))
    y = draw.normal(size=(12, 12))
    for x in (sums, 1e3 * sums, sums.astype(np.float32)):
        with pytest.raises(ValueError, match="x has only effects of rows and columns"):
            joins.pair_correlation(x, y)
        with pytest.raises(ValueError, match="given has only effects of rows and columns"):
            joins.pair_correlation(y, y + draw.normal(size=(12, 12)), x)
    with pytest.raises(ValueError, match="given explains all of x or y"):
        joins.pair_correlation(1e5 * y, y + draw.normal(size=(12, 12)), 3e3 * y)
    with pytest.raises(ValueError, match="of 8 things or more"):
        joins.pair_correlation(y[:5, :5], y[5:10, 5:10])
    with pytest.raises(ValueError, match="beside the diagonal"):
        joins.pair_correlation(np.where(np.arange(144).reshape(12, 12) == 1, np.nan, y), y)


# Descent that has arrived.


def test_a_descent_that_has_arrived_stays():
    start = ms.HookedMLP(ms.MLPConfig(d_in=20, d_model=16), seeds=(0, 1))
    moved = {
        name: value + 0.1 * normal(*value.shape, seed=i, dtype=torch.float32)
        for i, (name, value) in enumerate(start.named_parameters())
    }
    x = normal(50, 20, dtype=torch.float32)
    at, targets = tangent.tangent(start, x, start.cfg.aux), start.replace(moved)(x)[..., start.cfg.aux]
    lengths = [tangent.dot(move, move).sqrt() for move in (tangent.least_squares(at, targets, n) for n in (100, 2000))]
    assert torch.allclose(lengths[0], lengths[1], rtol=0.05)


def test_a_cosine_does_not_depend_on_lengths():
    a, b = ({"W": normal(2, 6, 5, seed=seed, dtype=torch.float32)} for seed in (0, 1))
    expected = tangent.cosine(a, b)
    for scale in (1e-12, 1e12):
        found = tangent.cosine({"W": scale * a["W"]}, {"W": scale * b["W"]})
        assert torch.allclose(found, expected, atol=1e-6)
    assert tangent.cosine({"W": 0 * a["W"]}, b).tolist() == [0, 0]


# P-values.


def test_equal_differences_in_fp32_are_equal():
    a, b = [0.9134, 0.9251, 0.9313], [0.8134, 0.8251, 0.8313]
    assert stats.paired_difference(torch.tensor(a), torch.tensor(b)).p == stats.paired_difference(a, b).p == 0.25


def test_no_rank_correlation_is_less_likely_than_its_permutations_allow():
    assert stats.spearman_p(range(10), range(10)) == pytest.approx(2 / 3_628_800)


def test_ties_in_half_precision_are_those_of_fp32():
    null = np.random.default_rng(0).normal(size=99).astype(np.float16)
    assert stats.permutation_p(float(null.max()) * 1.05, null) == 0.01


def test_a_ratio_to_rounding_is_refused():
    with pytest.raises(ValueError, match="mean of 0"):
        stats.ratio_of_means([1, 2, 3], [0.1, 0.2, -0.3])


# A concept that is nearly certain.


def test_a_certain_concept_can_be_raised():
    model = ms.HookedMLP(ms.MLPConfig(d_in=4, d_model=64), seeds=(0,)).double()
    for lead in (5.0, 40.0):
        state = torch.zeros(1, 1, 64, dtype=torch.float64)
        rows = ms.token_directions(model, range(13), basis="centered")[0]
        state[0, 0] = torch.linalg.lstsq(rows, torch.eye(13, dtype=torch.float64)[0] * lead).solution
        found = bottleneck.cheapest_change(model, state, [0], rise=1.0)
        assert bool(found.reached.all()) and 0 < float(found.length[0, 0].flatten()[0]) < 20


# Hooks and shapes.


def test_a_hook_that_has_no_state_of_a_node_is_refused():
    model = pair("llama")[0]
    (trie,) = scores.build_tries([(1, 2), (1, 3)])
    for name, says in (("unembed.hook_out", "call unembed"), ("blocks.0.attn.hook_pattern", "no position")):
        with pytest.raises(ValueError, match=says):
            scores.string_states(model, list(make_prompts()), trie, name=name)


def test_another_dtype_is_read_or_refused_in_one_line():
    toy = ms.HookedMLP(ms.MLPConfig(d_in=8, d_model=6), seeds=(0, 1))
    h = normal(2, 5, 6)
    assert torch.allclose(ms.unembed(toy, h), ms.unembed(toy, h.float()))
    basis = ablation.direction_basis(toy, [0, 1]).double()
    assert (
        ablation.ablated_columns(toy, [2], basis).dtype == ablation.ablated_hidden(toy, h, basis).dtype == torch.float32
    )
    x = normal(5, 8, dtype=torch.float32)
    at = tangent.tangent(toy, x, toy.cfg.aux)
    way = {name: value.detach().double() for name, value in toy.named_parameters()}
    for call in (
        lambda: tangent.push(at, way),
        lambda: spectra.drive(toy, way, x),
        lambda: tangent.pull(at, at.logits.double()),
    ):
        with pytest.raises(ValueError, match="as the model is"):
            call()
    with pytest.raises(ValueError, match="32 or 64 bits"):
        ms.next_token_log_probs(pair("llama")[0], [torch.tensor([1, 2], dtype=torch.int16)], tokens=[3])
    with pytest.raises(ValueError, match="depend on one another"):
        ablation.direction_basis(toy, range(8))


def test_tables_of_the_wrong_shape_are_one_line():
    with pytest.raises(ValueError, match="n must be"):
        number_students.margins(normal(2, 3, 8), n=20)
    with pytest.raises(ValueError, match="probabilities"):
        toy = ms.HookedMLP(ms.MLPConfig(d_in=8, d_model=6), seeds=(0,))
        at = tangent.tangent(toy, normal(5, 8, dtype=torch.float32), toy.cfg.aux)
        tangent_modes.tangent_modes(at, at.logits, p=at.logits)
    with pytest.raises(ValueError, match="NaN in"):
        scores.crossed_bootstrap(lambda rows, columns: float("nan"), 4, 4, n=3)


def test_answers_longer_than_the_positions_are_one_line():
    model = pair("gpt2")[0]
    prompt, most = torch.tensor([1, 2, 3]), model.cfg.n_ctx
    rows = numbers._drawn(model, [prompt], most - 2, lambda step: None, 0.0, 0, 1, None)
    assert len(rows[0]) == most - 2
    with pytest.raises(ValueError, match=r"a prompt with an answer of \d+ tokens behind it must have at most"):
        numbers._drawn(model, [prompt], most - 1, lambda step: None, 0.0, 0, 1, None)
