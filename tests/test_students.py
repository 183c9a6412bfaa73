"""Students of many families: the stacked pass, plain models and merged bridges give one model's logits, or one line."""

import pytest
import torch
from tiny_families import FAMILIES, TOKENIZER, Draw, make_prompts, pair

import mechsub as ms
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


def test_a_family_that_cannot_be_plain_is_one_line():
    """The bridge of gpt-oss has no frequencies of rotary positions."""
    model, _ = pair("gpt_oss, window")
    with pytest.raises(ValueError, match="buffers cannot be found in its bridge") as caught:
        stacked.plain_model(model)
    assert "\n" not in str(caught.value)


def test_a_bridge_that_was_changed_beside_its_weights_is_refused():
    """A hook that stays on the bridge changes what it says, and not what a student is tuned from."""
    model, _ = pair("llama")
    stacked.plain_model(model)
    model.add_hook("blocks.1.hook_out", lambda value, hook: 2 * value)
    with pytest.raises(ValueError, match="take off hooks"):
        stacked.plain_model(model)
