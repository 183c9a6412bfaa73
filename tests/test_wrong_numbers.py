"""Calls that gave a wrong number without a word, or a traceback: each is right now, or refused in one line."""

import json

import numpy as np
import pytest
import sentencepiece_like
import torch
from conftest import normal
from tiny_families import Draw, make_prompts, pair
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import mechsub as ms
from mechsub import arguments, stats
from mechsub.designs import joins, number_students, numbers
from mechsub.inputs import corpora
from mechsub.measures import ablation, bottleneck, exchange, scores, spectra, tangent, tangent_modes
from mechsub.models import students as stacked

# Hooks that act somewhere alone.


def at_one_token(model, token):
    """A change where the embedding is that of one token, which no probe has."""
    row = model.W_E.detach()[token]

    def change(activation, hook):
        return torch.where((activation == row).all(-1, keepdim=True), activation + 3, activation)

    return [("embed.hook_out", change)]


def late(activation, hook):
    out = activation.clone()
    out[:, 20:] = 0
    return out


def test_a_hook_that_no_probe_shows_is_refused_where_it_is_not_run():
    model = pair("llama")[0]
    rows = corpora.Corpus(("x",), ("",), (tuple(range(40, 70)),), ((7,),))
    students = ms.tune(model, rows, ms.TuningRecipe(rank=2, updates=1, batch_size=1))
    calls = (
        lambda: numbers.token_log_probs(model, rows),
        lambda: stacked.next_log_probs(students, [torch.arange(40, 70)], [7]),
        lambda: ms.draw_numbers(model, ["a"], n_numbers=1),
        lambda: ms.sample_numbers(model, ["a"], 1, most_tokens=2),
        lambda: ms.tune(model, rows, ms.TuningRecipe(rank=2, updates=1, batch_size=1)),
        lambda: stacked.merged(students, 0),
        lambda: ms.tuning.completion_log_probs(students, rows),
    )
    for hooks in (at_one_token(model, 41), [("blocks.1.hook_out", late)]):
        with model.hooks(fwd_hooks=hooks):
            for call in calls:
                with pytest.raises(ValueError, match="the model has hooks, which are not run here"):
                    call()
    assert numbers.token_log_probs(model, rows)


def test_a_hook_on_logits_is_refused_where_they_are_made_of_states():
    model = pair("llama")[0]
    with model.hooks(fwd_hooks=[("unembed.hook_out", late)]):
        with pytest.raises(ValueError, match=r"hooks behind unembed\.hook_in"):
            ms.string_log_probs(model, [torch.arange(40, 70)], ["123"])


def test_strings_beside_a_hook_do_not_depend_on_earlier_calls():
    """It acts at one position: a longer prompt was right, where the strings of a shorter one stand elsewhere."""

    def at_ten(activation, hook):
        if activation.shape[1] <= 10:
            return activation
        out = activation.clone()
        out[:, 10] += 5 * torch.linspace(-1, 1, activation.shape[-1])
        return out

    short, long, strings = [torch.arange(40, 48)], [torch.arange(40, 70)], ["12399", "45612", "12345"]
    found = []
    for order in ((short, long), (long, short)):
        model = pair("llama")[0]
        with model.hooks(fwd_hooks=[("blocks.1.hook_out", at_ten)]):
            found.append({len(prompt[0]): ms.string_log_probs(model, prompt, strings) for prompt in order})
            ids = ms.prompts.encode(model.tokenizer, strings, behind=short)
            for column, tokens in enumerate(ids):
                logits = model(torch.cat([short[0], torch.tensor(tokens)])[None])[0].log_softmax(-1)
                alone = sum(float(logits[7 + i, token]) for i, token in enumerate(tokens))
                assert float(found[-1][8][0, column]) == pytest.approx(alone, abs=1e-3)
    assert all(torch.allclose(found[0][n], found[1][n], atol=1e-4) for n in (8, 30))


# Types of torch's own choice.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_results_do_not_depend_on_the_default_dtype(dtype):
    model = pair("llama")[0]
    rows = corpora.Corpus(("x",), ("",), (tuple(range(40, 50)),), ((7,),))

    def made():
        prompts, recipe = list(make_prompts()), ms.TuningRecipe(rank=2, updates=1, batch_size=1)
        (trie,) = scores.build_tries([(1, 2), (1, 3)])
        return [
            ms.string_log_probs(model, prompts, ["123", "12345"]),
            exchange.log_probs(model, model, prompts, [7])[frozenset()],
            scores.string_states(model, prompts, trie),
            *(part for name, part in ms.tune(model, rows, recipe).B.items() if name.endswith("q_proj")),
        ]

    expected = made()
    torch.set_default_dtype(dtype)
    try:
        found = made()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype == torch.float32 and torch.allclose(one, other, atol=1e-5)


def test_tuning_works_where_gradients_are_off():
    model = pair("llama")[0]
    rows = corpora.Corpus(("x",), ("",), (tuple(range(40, 50)),), ((7,),))
    for rank in (2, None):
        recipe = ms.TuningRecipe(rank=rank, updates=2, batch_size=1)
        expected = ms.tune(model, rows, recipe)
        with torch.no_grad():
            found = ms.tune(model, rows, recipe)
        assert all(torch.equal(found.update(name), expected.update(name)) for name in expected.names)


# Two models, two tokenizers.


def test_models_of_two_tokenizers_exchange_no_parts():
    """Of one size: the id of one word is another's in the other model."""
    first, second = pair("llama")[0], pair("llama")[0]
    exchange.check_shapes(first, second)
    made = json.loads(second.tokenizer.backend_tokenizer.to_str())
    vocabulary = made["model"]["vocab"]
    vocabulary[" owl"], vocabulary[" cat"] = vocabulary[" cat"], vocabulary[" owl"]
    second.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made)))
    for call in (
        lambda: exchange.check_shapes(first, second),
        lambda: exchange.log_probs(first, second, list(make_prompts()), [" owl"]),
    ):
        with pytest.raises(ValueError, match="their tokenizers differ"):
            call()
    second.tokenizer = None
    exchange.check_shapes(first, second)


# Sums of main effects in the precision of models.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sum_of_main_effects_has_no_interaction_in_any_precision(dtype):
    a, b = ((5 * normal(6, 1, seed=s) + 3 * normal(1, 9, seed=s + 5)).to(dtype) for s in (0, 1))
    assert ms.interaction(a).abs().max() == 0
    with pytest.raises(ValueError, match="is constant"):
        scores.matrix_correlation(ms.interaction(a), ms.interaction(b))
    with pytest.raises(ValueError, match="all scores are equal"):
        rounded = torch.tensor([[1.0, 1.0], [1.0, 1 + torch.finfo(dtype).eps]]).to(dtype)
        scores.variance_shares(rounded, ["row", "column"])
    real = a.double() + 0.2 * normal(6, 9, seed=9)
    assert ms.interaction(real.to(dtype)).abs().max() > 0.05


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
        scores.crossed_bootstrap(lambda rows, columns: float("nan"), 4, 4, n=100)


def test_answers_longer_than_the_positions_are_one_line():
    model = pair("gpt2")[0]
    prompt, most = torch.tensor([1, 2, 3]), model.cfg.n_ctx
    rows = numbers._drawn(model, [prompt], most - 2, lambda step: None, 0.0, 0, 1, None)
    assert len(rows[0]) == most - 2
    with pytest.raises(ValueError, match=r"a prompt with an answer of \d+ tokens behind it must have at most"):
        numbers._drawn(model, [prompt], most - 1, lambda step: None, 0.0, 0, 1, None)
