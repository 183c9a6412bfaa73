"""The effect of a vector added to the residual at the end of a prompt, for many vectors and blocks in one pass."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.token_ids import Outputs, check_prompt
from mechsub.models import checks
from mechsub.models.hooked import LAST_ONLY

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_ONE_BY_ONE = 16  # prompts of a run, where edits run in copies of the whole prompt


@torch.no_grad()
def steered_logits(
    model: "TransformerBridge",
    prompt: Int[Tensor, "pos"],
    layers: Sequence[int],
    vectors: Float[Tensor, "edit d_model"],
    tokens: Outputs,
    *,
    batch_size: int = 256,
) -> Float[Tensor, "edit token"]:
    """Logits of `tokens` at the prompt's end, where vectors[i] is added to the residual after block layers[i].

    No earlier position depends on the last one, so the prompt runs once for `batch_size` edits: each edit is a copy of
    the last position that attends to the prompt before it and to itself. A trial run, with a prompt of this length,
    shows whether this gives the same logits as a plain run with the edit. Where it does not (an attention window,
    ALiBi, a model that takes no mask), and in a model with hooks of someone's own, every edit runs in a copy of the
    whole prompt: slower, with a warning.
    Raises ValueError for a model in which a change after a block changes nothing, because its hook never fires.
    """
    prompt = check_prompt(arguments.model(model), prompt)
    arguments.width(arguments.values(vectors, "vectors", "edit d_model", floating=True), model.cfg.d_model, "vectors")
    layers = arguments.ids(layers, model.cfg.n_layers, "layers")
    tokens = arguments.outputs(model, tokens)
    batch_size = arguments.whole(batch_size, "batch_size", 1)
    if len(layers) != len(vectors):
        raise ValueError(f"layers must be as many as vectors: {len(vectors)} vectors, {len(layers)} blocks")
    places = torch.as_tensor(layers)
    copies = checks.same_place(prompt[-1:], min(batch_size, len(places)))
    # Hooks may act on some tokens or positions alone: with them every edit has its own run.
    beside = checks.holds_edited(model) and not checks.is_hooked(model)
    if beside and checks.holds_beside(model, len(prompt) - 1, copies):
        steer = _steered
    else:
        steer, batch_size = _copied, min(batch_size, _ONE_BY_ONE)
        checks.warn_once(model, ONE_BY_ONE)
    parts = [
        steer(model, prompt, some_layers, some, tokens)
        for some_layers, some in zip(places.split(batch_size), vectors.split(batch_size), strict=True)
    ]
    return torch.cat(parts)


ONE_BY_ONE = (
    "this model does not give an edit's own logits beside others (hooks, an attention window, ALiBi, or a mask or "
    "positions that it does not take): every edit runs with the whole prompt, which is slower"
)


def _steered(
    model: "TransformerBridge", prompt: Tensor, layers: Tensor, vectors: Tensor, tokens: Sequence[int]
) -> Tensor:
    before = len(prompt) - 1

    def add(activation: Tensor, hook) -> Tensor:
        chosen = (layers == int(hook.name.split(".")[1])).nonzero()[:, 0]
        out = activation.clone()
        out[0, before + chosen.to(out.device)] += vectors[chosen].to(out)
        return out

    def end(activation: Tensor, hook) -> Tensor:
        return activation[:, before:]

    hooks = [*((f"blocks.{layer}.hook_out", add) for layer in layers.unique().tolist()), ("unembed.hook_in", end)]
    logits = checks.run_beside(model, prompt[None, :-1], checks.same_place(prompt[-1:], len(vectors)), hooks)
    return logits[0][:, list(tokens)].float().cpu()


def _copied(
    model: "TransformerBridge", prompt: Tensor, layers: Tensor, vectors: Tensor, tokens: Sequence[int]
) -> Tensor:
    """As `steered_logits`, with a copy of the whole prompt for every edit."""

    def add(activation: Tensor, hook) -> Tensor:
        chosen = (layers == int(hook.name.split(".")[1])).nonzero()[:, 0]
        out = activation.clone()
        out[chosen.to(out.device), -1] += vectors[chosen].to(out)
        return out

    hooks = [*((f"blocks.{layer}.hook_out", add) for layer in layers.unique().tolist()), LAST_ONLY]
    logits = model.run_with_hooks(prompt.expand(len(vectors), -1).to(model.W_U.device), fwd_hooks=hooks)
    return logits[:, -1][:, list(tokens)].float().cpu()
