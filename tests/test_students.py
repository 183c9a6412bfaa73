"""Students of many families: the stacked pass, plain models and merged bridges give one model's logits, or one line."""

import pytest
import torch
from tiny_families import make_prompts, pair

from mechsub.models import students as stacked

FUSED = ("gpt_neox", "phi3, window", "bloom", "falcon", "falcon, alibi", "mpt", "glm4", "gpt_bigcode")
SPLIT = ("llama", "gemma", "gemma3, window", "qwen2", "olmo2", "opt", "llama4, chunks")


def logits(plain, ids):
    with torch.no_grad():
        return plain(input_ids=ids).logits


@pytest.mark.parametrize("name", [*FUSED, *SPLIT])
def test_the_plain_model_gives_hugging_faces_logits(name):
    """Falcon without alibi saw later tokens: its mask was that of eager attention, its attention torch's."""
    model, theirs = pair(name)
    ids = make_prompts()
    assert torch.allclose(logits(stacked.plain_model(model), ids), logits(theirs, ids), atol=2e-3)


@pytest.mark.parametrize("name", [*FUSED, *SPLIT])
def test_a_vector_steers_hugging_faces_model_as_it_steers_the_bridge(name):
    model, _ = pair(name)
    ids, plain = make_prompts(), stacked.plain_model(model)
    vector = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(1))
    hook = ("blocks.1.hook_out", lambda activation, hook: activation + vector)
    with torch.no_grad():
        expected = model.run_with_hooks(ids, fwd_hooks=[hook])
    before = logits(plain, ids)
    with stacked.steered(plain, model, (1, vector)):
        assert torch.allclose(logits(plain, ids), expected, atol=2e-3)
    assert torch.equal(logits(plain, ids), before) and not torch.allclose(before, expected, atol=0.05)


def test_a_family_that_cannot_be_plain_is_one_line():
    """The bridge of gpt-oss has no frequencies of rotary positions."""
    model, _ = pair("gpt_oss, window")
    with pytest.raises(ValueError, match="buffers cannot be found in its bridge") as caught:
        stacked.plain_model(model)
    assert "\n" not in str(caught.value)


def random_students(model, seed=3):
    """Two members with adapters of rank 2 of every linear layer, which change logits by much."""
    plain, draw = stacked.plain_model(model), torch.Generator().manual_seed(seed)
    shapes = {name: plain.get_submodule(name).weight.shape for name in stacked.linear_layers(plain, None, None, ())}
    A = {name: torch.randn(2, 2, shape[1], generator=draw) / shape[1] ** 0.5 for name, shape in shapes.items()}
    B = {name: torch.randn(2, shape[0], 2, generator=draw) / 10 for name, shape in shapes.items()}
    return stacked.Students(model, A, B)


@pytest.mark.parametrize("name", [*FUSED, *SPLIT])
def test_a_merged_member_is_hugging_faces_model_with_its_weights(name):
    """Bridges of fused weights run copies of their parts: merged weights stood beside them and were not run."""
    model, theirs = pair(name)
    students, ids = random_students(model), make_prompts()
    before = logits(theirs, ids)
    with torch.no_grad():
        for name in students.names:
            dict(theirs.named_parameters())[name] += students.update(name)[1]
        expected, merged = logits(theirs, ids), stacked.merged(students, 1)
        found = merged(ids)
    together = stacked.student_logits(students, ids, torch.arange(ids.numel()))[1].view_as(expected)
    assert torch.allclose(found, expected, atol=5e-3) and torch.allclose(together, expected, atol=5e-3)
    assert not torch.allclose(before, expected, atol=0.05)
    assert torch.allclose(model(ids), before, atol=2e-3)  # the base is as it was
    assert merged.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert merged.mechsub_source.pop("tuned_sha256") and merged.mechsub_source == model.mechsub_source


@pytest.mark.parametrize("name", ["gpt_neox", "bloom", "gpt2", "llama"])
def test_a_member_that_is_tuned_whole_is_merged_whole(name):
    model, _ = pair(name)
    values = {n: v.detach()[None] * 1.1 for n, v in stacked.plain_model(model).named_parameters() if v.ndim == 2}
    students, ids = stacked.Students(model, values=values), make_prompts()
    merged = stacked.merged(students, 0)
    expected = stacked.student_logits(students, ids, torch.arange(ids.numel()))[0]
    with torch.no_grad():
        assert torch.allclose(merged(ids).flatten(0, 1), expected, atol=5e-3)
        assert not torch.allclose(model(ids).flatten(0, 1), expected, atol=0.05)
    assert torch.allclose(logits(stacked.plain_model(merged), ids).flatten(0, 1), expected, atol=5e-3)


@pytest.mark.parametrize("name", ["jamba", "mamba", "falcon_mamba"])
def test_an_adapter_that_the_model_passes_by_is_refused(name):
    """Mamba's mixer multiplies by the weight of dt_proj itself, so that its adapters had no effect."""
    model, _ = pair(name)
    students, ids = random_students(model), make_prompts()
    with pytest.raises(ValueError, match=r"uses the weight of .*dt_proj .*frozen=\('dt_proj',\)"):
        stacked.student_logits(students, ids, torch.arange(3))
    assert stacked._Weight("a.b", torch.ones(2, 3)).shape == (2, 3)  # a type is no use of it
    others = [{name: v for name, v in part.items() if "dt_proj" not in name} for part in (students.A, students.B)]
    fewer = stacked.Students(model, *others)
    together = stacked.student_logits(fewer, ids, torch.arange(ids.numel()))
    with torch.no_grad():
        assert torch.allclose(stacked.merged(fewer, 1)(ids).flatten(0, 1), together[1], atol=5e-3)


def test_a_bridge_that_was_changed_beside_its_weights_is_refused():
    """A hook that stays on the bridge changes what it says, and not what a student is tuned from."""
    model, _ = pair("llama")
    stacked.plain_model(model)
    model.add_hook("blocks.1.hook_out", lambda value, hook: 2 * value)
    with pytest.raises(ValueError, match="has hooks, which are not run here"):
        stacked.plain_model(model)
