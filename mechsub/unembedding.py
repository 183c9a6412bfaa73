"""Directions of the output vocabulary: what W_U alone says about two sets of outputs."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub.hooked import HookedModel
from mechsub.token_ids import listed

Metric = Literal["cosine", "dot", "centered_cosine", "number_centered", "causal"]
Basis = Literal["raw", "centered"]
Tokens = Sequence[int | tuple[int, ...]]  # an output, or the tokens of a string

METRICS = ("cosine", "dot", "centered_cosine", "number_centered", "causal")
SHRINKAGE = 0.1  # of the vocabulary's covariance towards its mean variance times the identity


def unembed(model: HookedModel, resid: Tensor) -> Float[Tensor, "... d_vocab"]:
    """Logits of final hidden states: ln_final(resid) @ W_U + b_U, for [*seed, batch, d_model] or [*lead, d_model]."""
    return model.ln_final(resid) @ model.W_U + model.b_U


def token_directions(
    model: HookedModel, tokens: Tokens, *, basis: Basis = "raw"
) -> Float[Tensor, "*seed token d_model"]:
    """Columns of W_U for `tokens`, as rows; a tuple of tokens is a string and gives the mean of its columns.

    "raw" are the stored weights. "centered" folds the final norm's gain in and removes the mean over the vocabulary:
    softmax ignores that mean, so only centered directions are a property of the model's outputs. The mean over a
    string's tokens is the rule of Zur et al. 2025, Eq 1. Raises for ids outside the vocabulary and empty strings.
    """
    W_U = model.W_U.detach()
    strings = [(token,) if isinstance(token, int) else tuple(token) for token in listed(tokens, "the tokens")]
    flat = [token for string in strings for token in string]
    if not strings or not all(strings) or min(flat) < 0 or max(flat) >= W_U.shape[-1]:
        raise ValueError(f"tokens must be ids in 0..{W_U.shape[-1] - 1}, or strings of them, not {list(tokens)[:5]}")
    columns = W_U[..., torch.as_tensor(flat, device=W_U.device)]
    if basis == "centered":
        gain = _gain(model)
        columns = columns * gain - (W_U * gain).mean(-1, keepdim=True)
    parts = columns.mT.split([len(string) for string in strings], dim=-2)
    return torch.stack([part.mean(-2) for part in parts], dim=-2)


def _gain(model: HookedModel) -> Tensor:
    """The final norm's gain as a column; ones where there is no norm."""
    weight = getattr(model.ln_final, "weight", None)
    W_U = model.W_U
    return (W_U.new_ones(W_U.shape[-2]) if weight is None else weight.detach())[:, None]


def unembed_projection(
    model: HookedModel, source: Tokens, target: Tokens, metric: Metric = "cosine"
) -> Float[Tensor, "*seed source target"]:
    """Similarity of every source's output direction with every target's; see `token_directions` for strings.

    * "cosine": cos(W_U[:, s], W_U[:, t]) of raw columns (Zur et al. 2025, Eq 1);
    * "dot": W_U[:, s] . W_U[:, t] (what Zur et al.'s released code computes);
    * "centered_cosine": the cosine with the norm's gain folded and the vocabulary mean removed;
    * "number_centered": (u_s - mean over the sources) . (u_t - mean over the targets), u folded: only differences
      among the sources decide which of them wins, so this is what a write along u_t does to them, to first order;
    * "causal": u_s^T C^-1 u_t of centered directions, C the covariance of the vocabulary's directions, shrunk by 0.1
      towards its mean variance (Park et al. 2024, "The linear representation hypothesis", section 3.2), fp64.

    Null to set beside it: random directions have cosine 0 with standard deviation 1/sqrt(d_model).
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose {', '.join(METRICS)}")
    basis: Basis = "raw" if metric in ("cosine", "dot") else "centered"
    a, b = (token_directions(model, tokens, basis=basis) for tokens in (source, target))
    if metric == "number_centered":
        a, b = (v - v.mean(-2, keepdim=True) for v in (a, b))
    if metric in ("cosine", "centered_cosine"):
        a, b = (torch.nn.functional.normalize(v, dim=-1) for v in (a, b))
    if metric == "causal":
        return (a.double() @ torch.cholesky_solve(b.double().mT, _covariance_root(model))).to(a.dtype)
    return a @ b.mT


def _covariance_root(model: HookedModel) -> Float[Tensor, "*seed d_model d_model"]:
    """Cholesky factor of the shrunk covariance of all centered directions, fp64."""
    folded = (model.W_U.detach() * _gain(model)).double()
    centered = folded - folded.mean(-1, keepdim=True)
    covariance = centered @ centered.mT / centered.shape[-1]
    scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * scale * identity)
