"""What mechsub does without, since TransformerLens does not give it: the day that one of these fails, it can be had."""

import pytest
import torch
from transformers import DynamicCache

import mechsub as ms


@pytest.fixture(scope="module")
def model():
    return ms.load_language_model("organisms/110-base")


@torch.no_grad()
def test_a_bridge_keeps_no_keys_and_values(model):
    """docs/speed.md: so every run computes its prompt anew."""
    tokens = torch.randint(5, 90, (1, 40), generator=torch.Generator().manual_seed(0))
    whole = model.run_with_hooks(tokens, fwd_hooks=[])[:, 30:].log_softmax(-1)
    cache = DynamicCache(config=model.original_model.config)
    model.run_with_hooks(tokens[:, :30], fwd_hooks=[], past_key_values=cache, use_cache=True)
    behind = {"past_key_values": cache, "use_cache": True, "position_ids": torch.arange(30, 40)[None]}
    rest = model.run_with_hooks(tokens[:, 30:], fwd_hooks=[], **behind).log_softmax(-1)
    assert cache.get_seq_length() == 0 and float((whole - rest).abs().max()) > 1


@torch.no_grad()
def test_a_bridge_generates_as_if_it_had_no_prompt(model):
    """docs/speed.md: nothing in mechsub calls it."""
    tokens = torch.randint(5, 90, (1, 20), generator=torch.Generator().manual_seed(1))
    plain = model.generate(tokens, max_new_tokens=12, do_sample=False, use_past_kv_cache=False, verbose=False)
    cached = model.generate(tokens, max_new_tokens=12, do_sample=False, verbose=False)
    assert plain.shape == cached.shape and not torch.equal(plain, cached)


def test_another_tokenizer_changes_a_size_in_the_configuration_and_no_model(model):
    """A bridge writes the tokenizer's size into cfg.d_vocab; the weights have more rows where these are padded."""
    from mechsub.measures import exchange

    other = ms.load_language_model("organisms/110-instruct")
    other.cfg.d_vocab = len(other.tokenizer) - 10
    exchange.check_shapes(model, other)
    with pytest.raises(ValueError, match="cannot exchange parts: d_vocab is 4760 in one and 5760 in the other"):
        exchange.check_shapes(model, ms.load_language_model("organisms/1110-base"))
