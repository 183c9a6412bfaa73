"""Directions of the output vocabulary: what W_U alone says about two sets of outputs."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub.hooked import HookedModel

Metric = Literal["cosine", "dot", "centered_cosine"]


def unembed(model: HookedModel, resid: Tensor) -> Float[Tensor, "... d_vocab"]:
    """Logits of final hidden states: ln_final(resid) @ W_U + b_U, for [*seed, batch, d_model] or [*lead, d_model]."""
    return model.ln_final(resid) @ model.W_U + model.b_U


def token_directions(
    model: HookedModel, tokens: Sequence[int], *, basis: Literal["raw", "centered"] = "raw"
) -> Float[Tensor, "*seed token d_model"]:
    """Columns of W_U for `tokens`, as rows.

    "raw" are the stored weights. "centered" folds the final norm's gain in and removes the mean over the vocabulary:
    softmax ignores that mean, so only centered directions are a property of the model's outputs.
    """
    W_U = model.W_U.detach()
    index = torch.as_tensor(list(tokens), device=W_U.device)
    if len(index) == 0 or int(index.min()) < 0 or int(index.max()) >= W_U.shape[-1]:
        raise ValueError(f"tokens must be ids in 0..{W_U.shape[-1] - 1}, not {list(tokens)[:5]}")
    if basis == "raw":
        return W_U[..., index].mT
    gain = getattr(model.ln_final, "weight", None)
    folded = W_U if gain is None else W_U * gain.detach()[:, None]
    return (folded[..., index] - folded.mean(-1, keepdim=True)).mT


def unembed_projection(
    model: HookedModel, source: Sequence[int], target: Sequence[int], metric: Metric = "cosine"
) -> Float[Tensor, "*seed source target"]:
    """Similarity of every source token's output direction with every target token's.

    * "cosine": cos(W_U[:, s], W_U[:, t]) of raw columns (Zur et al. 2025, Eq 1);
    * "dot": W_U[:, s] . W_U[:, t] (what Zur et al.'s released code computes);
    * "centered_cosine": the cosine with the norm's gain folded and the vocabulary mean removed.

    Null to set beside it: random directions have cosine 0 with standard deviation 1/sqrt(d_model).
    """
    if metric not in ("cosine", "dot", "centered_cosine"):
        raise ValueError(f"unknown metric {metric!r}; choose cosine, dot or centered_cosine")
    basis: Literal["raw", "centered"] = "centered" if metric == "centered_cosine" else "raw"
    a = token_directions(model, source, basis=basis)
    b = token_directions(model, target, basis=basis)
    if metric != "dot":
        a, b = (torch.nn.functional.normalize(v, dim=-1) for v in (a, b))
    return a @ b.mT
