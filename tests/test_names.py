"""What a user of TransformerLens types first: its hook names, texts for tokens, metrics by name."""

import pytest
import torch

import mechsub as ms


@pytest.fixture(scope="module")
def model():
    return ms.load_language_model("organisms/110-base")


@pytest.fixture(scope="module")
def toy():
    return ms.HookedMLP(seeds=range(2))


@pytest.fixture(params=["model", "toy"])
def hooked(request, model, toy):
    """A model, and inputs that it takes."""
    if request.param == "model":
        return model, torch.tensor([[5, 6, 7]])
    return toy, torch.rand(4, 784, generator=torch.Generator().manual_seed(0))


def test_a_hook_of_a_block_is_known_by_its_older_name_too(hooked):
    model, inputs = hooked
    names = {"blocks.1.hook_resid_post": "blocks.1.hook_out", "blocks.1.hook_resid_pre": "blocks.1.hook_in"}
    cache = ms.cache_activations(model, inputs, [*names, *names.values()])
    assert list(cache) == [*names, *names.values()]
    for older, own in names.items():
        assert torch.equal(cache[older], cache[own]), older
        alone = ms.cache_activations(model, inputs, [older])
        assert list(alone) == [older] and torch.equal(alone[older], cache[own])
        same, zero = (ms.run_patched(model, inputs, {older: x}) for x in (cache[own], torch.zeros_like(cache[own])))
        assert torch.allclose(same, model(inputs), atol=1e-5) and not torch.allclose(zero, same, atol=1e-3)


def test_one_hook_under_both_names_is_patched_once_or_refused(model):
    tokens = torch.tensor([[5, 6, 7]])
    new = ms.cache_activations(model, tokens, ["blocks.1.hook_out"])["blocks.1.hook_out"]
    with pytest.raises(ValueError, match="activations name one hook twice"):
        ms.run_patched(model, tokens, {"blocks.1.hook_out": new, "blocks.1.hook_resid_post": new})
    with pytest.raises(ValueError, match=r"unknown hook 'blocks\.99\.hook_resid_post'"):
        ms.cache_activations(model, tokens, ["blocks.99.hook_resid_post"])


def test_a_text_of_one_token_is_that_token(model):
    (owl,), (cat,) = (model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" owl", " cat"))
    prompt = torch.tensor([5, 6, 7])
    by_id, by_text = (
        {
            "projection": ms.unembed_projection(model, tokens, [cat], "causal"),
            "directions": ms.token_directions(model, tokens),
            "log_probs": ms.next_token_log_probs(model, [prompt], tokens=tokens),
            "attribution": ms.direct_logit_attribution(model, prompt[None], tokens, pos=-1).values,
            "price": ms.bottleneck.price(model, tokens, [cat + 1]),
        }
        for tokens in ([owl, cat], [" owl", " cat"])
    )
    for name, value in by_id.items():
        assert torch.equal(value, by_text[name]), name
    as_tensor = ms.unembed_projection(model, torch.tensor([owl]), [" cat"])
    assert torch.equal(as_tensor, ms.unembed_projection(model, [owl], [cat]))


def test_a_text_of_several_tokens_is_their_mean_or_refused(model):
    ids = tuple(model.tokenizer(" owl xyz", add_special_tokens=False)["input_ids"])
    assert len(ids) > 1
    assert torch.equal(ms.token_directions(model, [" owl xyz"]), ms.token_directions(model, [ids]))
    with pytest.raises(ValueError, match=f"' owl xyz', which is {len(ids)} tokens here"):
        ms.next_token_log_probs(model, [torch.tensor([5])], tokens=[" owl xyz"])


def test_an_empty_text_is_refused(model):
    with pytest.raises(ValueError, match="does not give back; give ids"):
        ms.unembed_projection(model, [""], [" cat"])


def test_a_model_without_a_tokenizer_takes_ids_alone(toy):
    with pytest.raises(ValueError, match="no tokenizer to read it; give ids"):
        ms.unembed_projection(toy, ["3"], [1])


def test_a_metric_is_known_by_its_name(toy):
    x = torch.rand(30, 784, generator=torch.Generator().manual_seed(1))
    a, b = (ms.cache_activations(model, x) for model in (toy, ms.HookedMLP(seeds=[7, 8])))
    for name, metric in ms.similarity.METRICS.items():
        if name != "gate_agreement":
            by_name, given = ms.hidden_alignment(a, b, name), ms.hidden_alignment(a, b, metric)
            assert all(torch.equal(by_name[hook], given[hook]) for hook in a), name
    with pytest.raises(ValueError, match="metric must be one of debiased_cka"):
        ms.hidden_alignment(a, b, "cka")


def test_a_cell_is_read_by_its_path_as_text():
    from pathlib import Path

    folder = Path(__file__).parent.parent / "artifacts/digits/default"
    assert ms.store.read_records(str(folder)) == ms.store.read_records(folder)
    assert ms.store.read_provenance(str(folder)) == ms.store.read_provenance(folder)


def test_batches_are_joined_along_prompts_at_any_hook(model):
    """Heads have an axis of their own: [prompt, position, head, d_head]."""
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    for name in ("blocks.0.attn.hook_z", "blocks.0.attn.hook_pattern", "blocks.0.hook_out"):
        whole, parts = (ms.cache_activations(model, tokens, [name], batch_size=size)[name] for size in (None, 1))
        assert whole.shape == parts.shape and torch.allclose(whole, parts, atol=1e-5), name
    whole, last = (
        ms.cache_activations(model, tokens, ["blocks.0.attn.hook_z"], pos=p, batch_size=1) for p in (None, -1)
    )
    assert torch.allclose(whole["blocks.0.attn.hook_z"][:, -1], last["blocks.0.attn.hook_z"], atol=1e-5)


def test_a_position_is_refused_where_the_hook_has_none_on_its_second_axis(model):
    tokens = torch.tensor([[5, 6, 7, 8]])
    name = "blocks.0.attn.hook_pattern"
    pattern = ms.cache_activations(model, tokens, [name])[name]
    for call in (
        lambda: ms.cache_activations(model, tokens, [name], pos=-1),
        lambda: ms.run_patched(model, tokens, {name: pattern[:, -1]}, pos=-1),
    ):
        with pytest.raises(ValueError, match="has no position on axis 1 "):
            call()


def test_only_blocks_have_older_names(model):
    with pytest.raises(ValueError, match=r"unknown hook 'ln_final\.hook_resid_pre'"):
        ms.cache_activations(model, torch.tensor([[5, 6]]), ["ln_final.hook_resid_pre"])
