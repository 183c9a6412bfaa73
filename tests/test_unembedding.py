"""Metrics of output directions in closed form, on both kinds of model; heads' attributions."""

import inspect
import tracemalloc

import numpy as np
import pytest
import torch
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.measures.unembedding import METRICS, SHRINKAGE

SOURCE, TARGET = range(8), range(8, 13)


@pytest.fixture(params=["toy", "bridge"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Four heads, two of keys and values."""
    return ms.load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("llama"), tied=False)))


def members(model):
    """(W_U of one member [d_model, d_vocab], the final norm's gain) in fp64, for every member of an ensemble."""
    W_U = model.W_U.detach().double()
    gain = getattr(model.ln_final, "weight", None)
    gain = torch.ones(W_U.shape[-2]) if gain is None else gain.detach()
    return [(W, gain.double()) for W in (W_U if W_U.ndim == 3 else W_U[None])]


def closed_form(metric, W, gain):
    """One entry at a time, from the definition."""
    folded = gain[:, None] * W
    centred = folded - folded.mean(1, keepdim=True)
    vectors = {"cosine": W, "dot": W}.get(metric, centred)
    s, t = vectors[:, list(SOURCE)], vectors[:, list(TARGET)]
    if metric == "number_centered":
        s, t = (v - v.mean(1, keepdim=True) for v in (s, t))
    inner = torch.eye(len(W), dtype=W.dtype)
    if metric == "causal":
        inner = torch.linalg.inv(shrunk_covariance(centred))
    out = torch.empty(len(SOURCE), len(TARGET), dtype=W.dtype)
    for i in range(len(SOURCE)):
        for j in range(len(TARGET)):
            scale = s[:, i].norm() * t[:, j].norm() if "cosine" in metric else 1.0
            out[i, j] = s[:, i] @ inner @ t[:, j] / scale
    return out


def shrunk_covariance(centred):
    covariance = torch.cov(centred, correction=0)
    return (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(centred)).double()


@pytest.mark.parametrize("metric", METRICS)
def test_closed_forms(model, metric):
    found = ms.unembed_projection(model, SOURCE, TARGET, metric)
    expected = torch.stack([closed_form(metric, W, gain) for W, gain in members(model)])
    assert torch.allclose(found.double(), expected.reshape(found.shape), atol=1e-4, rtol=1e-4)


def test_the_causal_metric_is_the_dot_product_after_whitening(model):
    """Whitened, the vocabulary has (shrunk) covariance 1."""
    (W, gain), found = members(model)[0], ms.unembed_projection(model, SOURCE, TARGET, "causal")
    folded = gain[:, None] * W
    centred = folded - folded.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(shrunk_covariance(centred))
    white = (vectors / values.sqrt()) @ vectors.T @ centred
    expected = white[:, list(SOURCE)].T @ white[:, list(TARGET)]
    assert torch.allclose(found.double().reshape(-1, 8, 5)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_a_string_is_the_mean_of_its_tokens(model, metric):
    basis = "raw" if metric in ("cosine", "dot") else "centered"
    rows = ms.token_directions(model, [1, 2, 3], basis=basis)
    strings = ms.token_directions(model, [(1,), (2, 3), (1, 1, 2)], basis=basis)
    expected = [rows[..., 0, :], rows[..., 1:, :].mean(-2), (2 * rows[..., 0, :] + rows[..., 1, :]) / 3]
    assert torch.allclose(strings, torch.stack(expected, dim=-2), atol=1e-6)
    one = ms.unembed_projection(model, [4, 5], [(6,), 7], metric)
    assert torch.allclose(one, ms.unembed_projection(model, [(4,), (5,)], [6, 7], metric), atol=1e-6)


def test_number_centered_has_no_main_effects(model):
    found = ms.unembed_projection(model, SOURCE, TARGET, "number_centered")
    assert found.sum(-1).abs().max() < 1e-4 and found.sum(-2).abs().max() < 1e-4
    dots = (
        ms.token_directions(model, SOURCE, basis="centered") @ ms.token_directions(model, TARGET, basis="centered").mT
    )
    assert torch.allclose(found.double(), ms.interaction(dots), atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_a_planted_pair_is_found_and_others_are_not(metric):
    """Token 12's direction leans to token 4's; tokens 5..11 are random: most similar by chance one time in eight."""
    model = ms.HookedMLP(ms.MLPConfig(d_in=5, d_model=64), seeds=range(40))
    before = ms.unembed_projection(model, [4, 0, 1], range(5, 13), metric)[:, 0]
    W_U = model.W_U.clone()
    W_U[..., 12] = 1.5 * W_U[..., 4] + W_U[..., 12]
    after = ms.unembed_projection(model.replace({"unembed.W_U": W_U}), [4, 0, 1], range(5, 13), metric)[:, 0]
    assert (after.argmax(-1) == 7).double().mean() > 0.95
    assert (before.argmax(-1) == 7).sum() <= 13  # of 40, expected 5; P(14 or more) < 0.001
    # Unplanted pairs are as likely above zero as below.
    assert abs(float((before - before.mean(-1, keepdim=True))[:, -1].sign().mean())) < 0.55


@pytest.mark.parametrize("tokens", [[13], [-1], [(1, 13)], [()], []])
def test_tokens_outside_the_vocabulary_are_refused(model, tokens):
    with pytest.raises(ValueError, match=r"ids in 0\.\.12|at least 1 of its"):
        ms.unembed_projection(model, tokens, [1])


def test_an_unknown_metric_is_refused(model):
    unchecked = inspect.unwrap(ms.unembed_projection)  # the tests' type checks come before the function's own
    with pytest.raises(ValueError, match=r"metric must be one of .* not 'cosin'"):
        unchecked(model, [1], [2], "cosin")


# Heads.


def tokens(n, model, seed=0):
    return torch.randint(5, model.cfg.d_vocab, (n, 9), generator=torch.Generator().manual_seed(seed))


def attributed(model, x, unit):
    return ms.direct_logit_attribution(model, x, [7, 12], pos=-1, unit=unit)


@pytest.mark.parametrize("which", ["bridge", "llama"])
def test_heads_sum_to_the_logit_and_to_their_block(which, request):
    model = request.getfixturevalue(which)
    x = tokens(4, model)
    heads, blocks = (attributed(model, x, unit) for unit in ("head", "component"))
    with torch.no_grad():
        logits = model(x)[:, -1, [7, 12]]
    assert torch.allclose(heads.values.sum(-1), logits - model.b_U[[7, 12]], atol=1e-5)
    for layer in range(model.cfg.n_layers):
        own = [i for i, unit in enumerate(heads.units) if unit.startswith(f"blocks.{layer}.attn.")]
        assert len([i for i in own if ".head." in heads.units[i]]) == model.cfg.n_heads
        block = blocks.values[..., blocks.units.index(f"blocks.{layer}.attn.hook_out")]
        assert torch.allclose(heads.values[..., own].sum(-1), block, atol=1e-5)
    for name in ("embed", "blocks.1.mlp.hook_out"):
        pair = [found.values[..., found.units.index(name)] for found in (heads, blocks)]
        assert torch.allclose(*pair, atol=1e-6)


def test_an_attribution_is_a_frame_with_named_axes(llama, toy):
    inputs = torch.randn(3, 20)
    found = ms.direct_logit_attribution(toy, inputs, [1, 4])
    table = found.frame()
    assert table.index.names == ["member", "input", "token", "unit"] and len(table) == found.values.numel()
    assert table.value[(1, 2, 4, "3")] == pytest.approx(float(found.values[1, 2, 1, 3]))
    sums = table.value.groupby(["member", "input", "token"]).sum().to_numpy()
    assert np.allclose(sums, (found.summed - found.bias).flatten(), atol=1e-5)
    most = found.frame(top=2)
    assert len(most) == 2 * found.values[..., 0].numel()
    first = most.value.xs((0, 1, 4), level=("member", "input", "token"))
    largest = table.value.xs((0, 1, 4), level=("member", "input", "token")).abs().nlargest(2)
    assert list(first.index) == list(largest.index)
    assert str(found).startswith(f"{found!r}; .frame(top=") and len(str(found).splitlines()) == 10
    rows = found.frame(top=8).head(8).reset_index().to_string(index=False)
    assert str(found) == f"{found!r}; .frame(top=8) begins\n{rows}"
    assert str(ms.direct_logit_attribution(llama, torch.arange(5)[None], [7, 12], pos=-1)).count("\n") == 9
    one = ms.direct_logit_attribution(llama, torch.tensor([[3, 4, 5]]), [7], pos=-1, unit="component")
    assert (
        one.frame(top=1).index.names == ["input", "token", "unit"]
        and one.frame().index.get_level_values(2)[0] == "embed"
    )
    with pytest.raises((TypeError, ValueError), match="top"):
        found.frame(top=0)


def test_an_attribution_of_many_inputs_is_printed_without_a_frame_of_all(toy):
    found = ms.direct_logit_attribution(toy, torch.randn(3000, 20), [1, 4])
    str(found)  # imports
    tracemalloc.start()
    try:
        str(found)
        assert tracemalloc.get_traced_memory()[1] < found.values.numel()  # a byte for each value; all take 50
    finally:
        tracemalloc.stop()


def test_a_head_that_is_cut_out_takes_its_attribution_along(llama):
    """What the last block then lacks, at the norm's scale of the run, is the head's contribution."""
    x, last = tokens(3, llama, seed=1), llama.cfg.n_layers - 1
    d_head = llama.blocks[last].attn.W_O.shape[1]
    found = attributed(llama, x, "head")
    unit = found.units.index(f"blocks.{last}.attn.head.2")

    def cut(z, hook):
        z = z.clone()
        z.reshape(*z.shape[:2], -1)[..., 2 * d_head : 3 * d_head] = 0
        return z

    def keep(written, hook):
        without.append(written[:, -1])

    name, without = f"blocks.{last}.attn.hook_out", []
    hooks = [(f"blocks.{last}.attn.o.hook_in", cut), (name, keep)]
    with torch.no_grad():
        llama.run_with_hooks(x, fwd_hooks=hooks)
    whole = ms.cache_activations(llama, x, [name, "ln_final.hook_scale"], pos=-1)
    lost = (whole[name] - without[0]) / whole["ln_final.hook_scale"] * llama.ln_final.weight
    assert torch.allclose(lost @ llama.W_U[:, [7, 12]], found.values[..., unit], atol=1e-5)


def test_heads_need_a_residual_stream_and_must_sum_to_their_block(toy, llama):
    with pytest.raises(ValueError, match=r"unit='head' needs a residual stream"):
        ms.direct_logit_attribution(toy, torch.randn(2, 20), [1], unit="head")
    hook = llama.hook_dict["blocks.1.attn.hook_out"]
    hook.add_hook(lambda activation, hook: activation * 2, is_permanent=True)
    try:
        with pytest.raises(ValueError, match="heads of layer 1 do not sum"):
            attributed(llama, tokens(2, llama), "head")
    finally:
        hook.remove_hooks(including_permanent=True)
    assert attributed(llama, tokens(2, llama), "head").units


def test_the_covariance_in_blocks_is_that_of_all_directions(bridge, monkeypatch):
    whole = ms.unembedding._covariance_root(bridge)
    folded = (bridge.W_U * ms.unembedding.final_gain(bridge)).double()
    centered = folded - folded.mean(-1, keepdim=True)
    covariance = centered @ centered.mT / centered.shape[-1]
    scale = covariance.diagonal().mean()
    shrunk = 0.9 * covariance + 0.1 * scale * torch.eye(len(covariance), dtype=torch.float64)
    assert torch.equal(whole, torch.linalg.cholesky(shrunk))  # one block: to the last bit
    monkeypatch.setattr(ms.unembedding, "_BLOCK", 16 * 4)
    assert torch.allclose(whole, ms.unembedding._covariance_root(bridge), rtol=1e-12, atol=1e-15)
