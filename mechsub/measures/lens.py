"""Logit lens: the output that a hidden state would give if it were the last one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub import arguments
from mechsub.models import checks
from mechsub.models.hooked import HookedModel, cache_activations


@torch.no_grad()
def logit_lens(
    model: HookedModel, inputs: Tensor, *, pos: int | None = None, batch_size: int | None = None
) -> dict[str, Float[Tensor, "..."]]:
    """Logits read from every block's output: ln_final(h_l) @ W_U + b_U, the norm recomputed per layer.

    Logits are capped and scaled as the model's own logits (`unembed`, which raises the same errors).

    Returns hook name -> [*seed, batch, d_vocab] (toy), [batch, d_vocab] at `pos`, or [batch, pos, d_vocab].
    The last block's entry equals the model's logits. In the toy, earlier blocks were never trained to be read by
    W_U: their honest readout is stitching (`run_patched`). Source: nostalgebraist 2020, "interpreting GPT".
    """
    hidden = cache_activations(model, inputs, pos=pos, batch_size=batch_size)
    for batch in inputs.split(batch_size or inputs.shape[-2], dim=-2) if checks.is_hooked(model) else (inputs,):
        with checks.measured_on(model, batch, pos):
            read = checks.reads(model)
    if pos is not None and checks.is_hooked(
        model
    ):  # someone's hook sees an axis of positions, as in the model's own run
        return {name: read(h.unsqueeze(-2)).squeeze(-2) for name, h in hidden.items()}
    return {name: read(h) for name, h in hidden.items()}


def token_rank(logits: Float[Tensor, "*lead d_vocab"], token: int) -> Int[Tensor, "*lead"]:
    """Number of outputs with a strictly larger logit: 0 is the top."""
    _check_logits(logits, token)
    return (logits > logits[..., token, None]).sum(-1)


def _check_logits(logits: Tensor, token: int) -> None:
    """Raise for NaN: every comparison with NaN is false, so that its rank would be 0, the top."""
    arguments.values(logits, "logits", "*lead d_vocab", floating=True)
    token = arguments.whole(token, "token", 0, logits.shape[-1] - 1)


def kl_to_final(lens: dict[str, Tensor], final: Float[Tensor, "*lead d_vocab"]) -> dict[str, Float[Tensor, "..."]]:
    """KL(final || lens_l) in nats per hidden state, for every entry of a lens."""
    arguments.values(final, "final", "*lead d_vocab", floating=True)
    for name, logits in arguments.mapping(lens, "lens", "logits").items():
        arguments.values(logits, f"lens[{name!r}]", "*lead d_vocab", floating=True)
        arguments.same_shape(**{f"lens[{name!r}]": logits, "final": final})
    log_p = _full(final).log_softmax(-1)
    return {name: (log_p.exp() * (log_p - _full(logits).log_softmax(-1))).sum(-1) for name, logits in lens.items()}


def _full(logits: Tensor) -> Tensor:
    """In fp32 at least: sums over a vocabulary in half precision are noise."""
    return logits.float() if logits.itemsize < 4 else logits
