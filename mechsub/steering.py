"""What a vector does that is added to the residual at the end of a prompt, for many vectors and blocks in one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub.token_ids import check_prompt, check_tokens


@torch.no_grad()
def steered_logits(
    model: Any,
    prompt: Int[Tensor, "pos"],
    layers: Sequence[int],
    vectors: Float[Tensor, "edit d_model"],
    tokens: Sequence[int],
    *,
    batch_size: int = 256,
) -> Float[Tensor, "edit token"]:
    """Logits of `tokens` at the prompt's end, where vectors[i] is added to the residual after block layers[i].

    Nothing before the last position depends on it, so the prompt runs once for `batch_size` edits: each is a copy of
    the last position that attends to the prompt before it and to itself. The model must be a Hugging Face model's
    bridge: it needs `attention_mask` [1, 1, pos, pos] and `position_ids`.
    """
    if model.training:
        raise ValueError("the model is in train mode; call model.eval() first")
    prompt, tokens = check_prompt(model, prompt), check_tokens(model, tokens)
    if len(layers) != len(vectors):
        raise ValueError(f"every vector needs a block: {len(vectors)} vectors, {len(layers)} blocks")
    places = torch.as_tensor(list(layers))
    parts = [
        _steered(model, prompt, some_layers, some, tokens)
        for some_layers, some in zip(places.split(batch_size), vectors.split(batch_size), strict=True)
    ]
    return torch.cat(parts)


def _steered(model: Any, prompt: Tensor, layers: Tensor, vectors: Tensor, tokens: Sequence[int]) -> Tensor:
    before, n = len(prompt) - 1, len(vectors)

    def add(activation: Tensor, hook) -> Tensor:
        chosen = (layers == int(hook.name.split(".")[1])).nonzero()[:, 0]
        out = activation.clone()
        out[0, before + chosen.to(out.device)] += vectors[chosen].to(out)
        return out

    def end(activation: Tensor, hook) -> Tensor:
        return activation[:, before:]

    mask = torch.ones(before + n, before + n).tril().bool()
    mask[before:, before:] = torch.eye(n, dtype=torch.bool)
    positions = torch.cat([torch.arange(before), torch.full((n,), before)])
    device = model.W_U.device
    logits = model.run_with_hooks(
        torch.cat([prompt[:-1], prompt[-1:].expand(n)])[None].to(device),
        fwd_hooks=[
            *((f"blocks.{layer}.hook_out", add) for layer in layers.unique().tolist()),
            ("unembed.hook_in", end),
        ],
        attention_mask=mask[None, None].to(device),
        position_ids=positions[None].to(device),
    )
    return logits[0][:, list(tokens)].float().cpu()
