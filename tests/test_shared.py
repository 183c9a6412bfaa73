"""Every analysis function on both kinds of model, by the same test."""

import pytest
import torch
from conftest import boot_bridge
from torch import nn

import mechsub as ms
from mechsub.models import tiny_transformer


def images(n, seed=0):
    return torch.randn(n, 20, generator=torch.Generator().manual_seed(seed))


def tokens(n, seed=0):
    return torch.randint(0, 13, (n, 7), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["toy", "bridge", "ensemble"])
def case(request):
    """model, a maker of inputs, and the position analysed (None on the toy)."""
    if request.param == "ensemble":
        shape = tiny_transformer.Shape(d_model=16, n_heads=2, n_layers=2, d_vocab=13)
        return tiny_transformer.EnsembleTransformer(shape, (0, 1, 2)), tokens, -1
    model = request.getfixturevalue(request.param)
    return (model, images, None) if request.param == "toy" else (model, tokens, -1)


def final_logits(model, x, pos):
    with torch.no_grad():
        logits = model(x)
    return logits if pos is None else logits[..., pos, :]


def test_cache_equals_transformer_lens(case):
    model, make, pos = case
    x = make(6)
    mine = ms.cache_activations(model, x, [*ms.hidden_names(model), "unembed.hook_in"], pos=pos)
    _, theirs = model.run_with_cache(x)
    for name, value in mine.items():
        expected = theirs[name] if pos is None else theirs[name][..., pos, :]
        assert torch.equal(value, expected)


def test_batching_changes_nothing(case):
    model, make, pos = case
    x = make(7)
    whole = ms.cache_activations(model, x, pos=pos)
    for batch_size in (1, 3, 100):
        parts = ms.cache_activations(model, x, pos=pos, batch_size=batch_size)
        assert all(torch.allclose(parts[name], whole[name], atol=1e-6) for name in whole)


def test_all_positions_of_a_language_model(bridge):
    x = tokens(5)
    every = ms.cache_activations(bridge, x, batch_size=2)["blocks.1.hook_out"]
    assert every.shape == (5, 7, 16)
    assert torch.allclose(every[:, 2], ms.cache_activations(bridge, x, pos=2)["blocks.1.hook_out"], atol=1e-6)


def test_patching_with_itself_changes_nothing(case):
    model, make, pos = case
    x = make(4)
    own = ms.cache_activations(model, x, pos=pos)
    assert torch.allclose(ms.run_patched(model, x, own, pos=pos), final_logits(model, x, pos), atol=1e-6)


def test_the_last_block_carries_the_whole_answer_and_an_earlier_one_of_another_input_changes_it(case):
    model, make, pos = case
    x, other = make(4), make(4, seed=1)
    theirs = ms.cache_activations(model, other, pos=pos)
    last = ms.hidden_names(model)[-1]
    patched = ms.run_patched(model, x, {last: theirs[last]}, pos=pos)
    assert torch.allclose(patched, final_logits(model, other, pos), atol=1e-6)
    assert not torch.allclose(patched, final_logits(model, x, pos), atol=1e-3)


def test_lens_ends_in_the_logits(case):
    model, make, pos = case
    lens = ms.logit_lens(model, make(4), pos=pos)
    logits = final_logits(model, make(4), pos)
    assert list(lens) == ms.hidden_names(model)
    assert torch.allclose(lens[ms.hidden_names(model)[-1]], logits, atol=1e-5)
    divergence = ms.lens.kl_to_final(lens, logits)
    assert divergence[ms.hidden_names(model)[-1]].abs().max() < 1e-6
    assert divergence[ms.hidden_names(model)[0]].min() > 1e-6
    assert torch.equal(ms.lens.token_rank(logits, 3) == 0, logits.argmax(-1) == 3)


def test_attribution_sums_to_the_logit(case):
    model, make, pos = case
    found = ms.direct_logit_attribution(model, make(4), [0, 5, 12], pos=pos)
    logits = final_logits(model, make(4), pos)[..., [0, 5, 12]]
    bias = model.b_U[..., [0, 5, 12]]
    assert torch.allclose(found.values.sum(-1), logits - bias, atol=1e-5)
    assert torch.allclose(found.logits, logits, atol=1e-5)
    assert found.values.shape[-1] == len(found.units) == 16


def test_unembed_projection(case):
    model, _, _ = case
    cosine = ms.unembed_projection(model, range(13), range(13))
    assert torch.allclose(cosine, cosine.mT, atol=1e-6)
    assert torch.allclose(cosine.diagonal(dim1=-2, dim2=-1), torch.ones(()), atol=1e-6)
    dot = ms.unembed_projection(model, [1], [2], "dot")
    assert torch.allclose(dot[..., 0, 0], (model.W_U[..., 1] * model.W_U[..., 2]).sum(-1), atol=1e-6)
    assert (cosine - torch.eye(13)).mean().abs() < 0.15  # random directions: the null


def test_centered_directions_ignore_a_common_row(toy):
    moved = toy.replace({"unembed.W_U": toy.W_U + torch.ones(3, 16, 1)})
    pair = [ms.unembed_projection(m, [0, 1], [2], "centered_cosine") for m in (toy, moved)]
    assert torch.allclose(*pair, atol=1e-5)
    raw = [ms.unembed_projection(m, [0, 1], [2]) for m in (toy, moved)]
    assert not torch.allclose(*raw, atol=0.1)


def test_planted_entanglement_is_found(toy):
    planted = toy.W_U.clone()
    planted[..., 12] = 3 * planted[..., 4]
    cosine = ms.unembed_projection(toy.replace({"unembed.W_U": planted}), [4], range(5, 13))
    assert torch.allclose(cosine[..., -1], torch.ones(()), atol=1e-6)
    assert cosine[..., :-1].abs().max() < 0.9


def test_unknown_hooks_and_train_mode_are_refused(case):
    model, make, pos = case
    with pytest.raises(ValueError, match=r"unknown hook 'blocks\.9\.hook_out'"):
        ms.cache_activations(model, make(2), ["blocks.9.hook_out"], pos=pos)
    with pytest.raises(ValueError, match="unknown hook"):
        ms.run_patched(model, make(2), {"blocks.0.hook_ot": make(2).float()}, pos=pos)
    model.train()
    try:
        with pytest.raises(ValueError, match="train mode"):
            ms.cache_activations(model, make(2), pos=pos)
    finally:
        model.eval()


def test_a_patch_of_the_wrong_shape_is_refused(case):
    model, make, pos = case
    with pytest.raises(ValueError, match="must have shape"):
        ms.run_patched(model, make(4), {"blocks.0.hook_out": torch.zeros(1, 2)}, pos=pos)


def test_nan_activations_are_refused(toy):
    broken = toy.replace({"blocks.1.b": torch.full((3, 16), float("nan"))})
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_out.*NaN"):
        ms.cache_activations(broken, images(2))


def test_positions_are_for_language_models(toy, bridge):
    with pytest.raises(ValueError, match="no position axis"):
        ms.cache_activations(toy, images(2), pos=0)
    with pytest.raises(ValueError, match="needs pos"):
        ms.direct_logit_attribution(bridge, tokens(2), [1])
    with pytest.raises(ValueError, match="residual stream"):
        ms.direct_logit_attribution(toy, images(2), [1], unit="component")


def test_components_sum_to_the_logit(bridge):
    found = ms.direct_logit_attribution(bridge, tokens(3), [2, 7], pos=-1, unit="component")
    logits = final_logits(bridge, tokens(3), -1)[:, [2, 7]]
    assert torch.allclose(found.values.sum(-1), logits - bridge.b_U[[2, 7]], atol=1e-5)
    assert len(found.units) == 1 + 2 * bridge.cfg.n_layers


def test_parity_with_transformer_lens(bridge):
    """Their lens on the raw bridge, their attribution on one of its own in compatibility mode."""
    from transformer_lens.tools.analysis import direct_logit_attribution, logit_lens

    x = tokens(1)
    compat = boot_bridge()
    compat.enable_compatibility_mode()
    mine = ms.direct_logit_attribution(bridge, x, [2, 7], pos=-1, unit="component").values[0]
    theirs = direct_logit_attribution(compat, x, answer_tokens=torch.tensor([2]), incorrect_tokens=torch.tensor([7]))
    assert torch.allclose(mine[0] - mine[1], theirs.attribution.reshape(-1), atol=1e-5)
    lens = logit_lens(bridge, x).values
    own = torch.stack(list(ms.logit_lens(bridge, x, pos=-1).values()))
    assert torch.allclose(own[:, 0], lens.reshape(-1, 13)[-3:], atol=1e-5)


def test_raw_columns_of_a_bridge_that_was_rewritten_are_refused(bridge):
    """enable_compatibility_mode() folds and centres W_U: cosines of its columns are another number, without a word."""
    compat, plain, processed = boot_bridge(), boot_bridge(), boot_bridge()
    compat.enable_compatibility_mode()
    processed.process_weights()
    plain.enable_compatibility_mode(no_processing=True)
    for metric in ("cosine", "dot"):
        for model in (compat, processed):
            with pytest.raises(ValueError, match="has processed this bridge's weights"):
                ms.unembed_projection(model, [2], [7], metric)
        own, same = (ms.unembed_projection(model, [2], [7], metric) for model in (bridge, plain))
        assert torch.allclose(own, same)
    centred = [ms.unembed_projection(model, [2, 3], [7, 8], "centered_cosine") for model in (bridge, compat)]
    assert torch.allclose(*centred, atol=1e-5)


def test_a_users_hooked_module_works():
    from transformer_lens import HookedRootModule
    from transformer_lens.hook_points import HookPoint

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.hook_out = nn.Linear(4, 4), HookPoint()

        def forward(self, x):
            return self.hook_out(self.linear(x).tanh())

    class Mine(HookedRootModule):
        def __init__(self):
            super().__init__()
            self.cfg = type("cfg", (), {"n_layers": 2, "d_model": 4, "d_vocab": 3})
            self.blocks, self.ln_final = nn.ModuleList([Block(), Block()]), nn.Identity()
            self.W_U, self.b_U = nn.Parameter(torch.eye(4, 3)), nn.Parameter(torch.zeros(3))
            self.unembed = nn.Module()
            self.unembed.hook_in = HookPoint()
            self.setup()

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return self.unembed.hook_in(x) @ self.W_U + self.b_U

    model, x = Mine().eval(), torch.ones(5, 4)
    assert torch.allclose(ms.logit_lens(model, x)["blocks.1.hook_out"], model(x))
    found = ms.direct_logit_attribution(model, x, [0, 2])
    assert torch.allclose(found.values.sum(-1), model(x)[:, [0, 2]])


def test_the_way_onward_is_a_patched_run(toy):
    from mechsub.designs import population as toys

    x = torch.rand(20, toy.cfg.d_in, generator=torch.Generator().manual_seed(5))
    for layer, (name, hidden) in enumerate(ms.cache_activations(toy, 0.5 * x).items()):
        assert torch.allclose(toys.onward(toy, layer, hidden), ms.run_patched(toy, x, {name: hidden}), atol=1e-6)


def test_broken_patches_and_batches_are_refused(case):
    model, make, _ = case
    inputs = make(5)
    name = ms.hidden_names(model)[0]
    hidden = ms.cache_activations(model, inputs, [name, name])[name]
    assert torch.equal(hidden, ms.cache_activations(model, inputs, [name])[name])
    with pytest.raises(ValueError, match="NaN"):
        ms.run_patched(model, inputs, {name: torch.full_like(hidden, torch.nan)})
    with pytest.raises(ValueError, match="batch_size"):
        ms.cache_activations(model, inputs, batch_size=0)


def test_a_direction_is_taken_from_rows_or_from_the_hidden_vector(case):
    model, make, pos = case
    h = ms.cache_activations(model, make(4), ["unembed.hook_in"], pos=pos)["unembed.hook_in"]
    basis, scored = ms.direction_basis(model, [1, 2]), [3, 4, 5]
    with torch.no_grad():
        rows = h @ ms.ablated_columns(model, scored, basis)
        mirror = (ms.ablated_hidden(model, h, basis) @ model.W_U)[..., scored]
        before = (h @ model.W_U)[..., scored]
    rows, mirror, before = (x - x.mean(-1, keepdim=True) for x in (rows, mirror, before))
    assert torch.allclose(rows, mirror, atol=1e-5)
    assert not torch.allclose(rows, before, atol=1e-3)


def test_an_output_rises_and_others_are_held(case):
    model, make, pos = case
    name = "ln_final.hook_in" if "ln_final.hook_in" in model.hook_dict else ms.hidden_names(model)[-1]
    x = ms.cache_activations(model, make(4), [name], pos=pos)[name]
    concepts, held = [1, 2, 3], [4, 5, 6]
    price = ms.price(model, concepts, held)
    assert price.shape == (*x.shape[:-2], 3) and bool((price >= 1).all())
    found = ms.cheapest_change(model, x, concepts, held, among=concepts)
    free = ms.cheapest_change(model, x, concepts, among=concepts)
    assert found.length.shape == (*x.shape[:-1], 3) and bool((found.length >= free.length - 1e-9).all())
    with torch.no_grad():
        before, after = (ms.unembed(model, h).double() for h in (x, found.resid.flatten(-3, -2)))
    after = after.reshape(*found.resid.shape[:-1], -1)
    moved = after - before[..., None, :]
    rise = moved[..., concepts] - moved[..., concepts].mean(-1, keepdim=True)
    reached = rise.diagonal(dim1=-2, dim2=-1)[found.reached]
    assert torch.allclose(reached, torch.ones_like(reached), atol=1e-4) and found.reached.any()
    others = (moved[..., held] - moved[..., held].mean(-1, keepdim=True))[found.reached]
    assert others.abs().max() < 1e-4


def test_what_reads_one_language_model_refuses_stacked_members():
    """Its last position is on another axis there: the wrong prompt's logits would be read."""
    shape = tiny_transformer.Shape(d_model=16, n_heads=2, n_layers=2, d_vocab=13)
    for members in ((0,), (0, 1, 2)):
        model, x = tiny_transformer.EnsembleTransformer(shape, members), tokens(4)
        for call in (
            lambda m=model, x=x: ms.scores.next_token_log_probs(m, list(x), tokens=[1, 2]),
            lambda m=model, x=x: ms.steered_logits(m, x[0], [0], torch.ones(1, 16), [1, 2]),
            lambda m=model, x=x: ms.prompt_divergence(m, list(x[:2]), x[2], x[3]),
            lambda m=model, x=x: ms.direct_logit_attribution(m, x, [1, 2], pos=-1, unit="component"),
            lambda m=model, x=x: ms.direct_logit_attribution(m, x, [1, 2], pos=-1, unit="head"),
        ):
            with pytest.raises(ValueError, match=f"this model holds {len(members)} members, and one language model"):
                call()
