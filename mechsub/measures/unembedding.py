"""Directions of the output vocabulary: measures of two sets of outputs from W_U alone."""

import numbers
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub import arguments
from mechsub.models import checks
from mechsub.models.hooked import HookedModel
from mechsub.threads import one_thread

Metric = Literal["cosine", "dot", "centered_cosine", "number_centered", "causal"]
Basis = Literal["raw", "centered"]
Tokens = Sequence[int | str | tuple[int, ...]] | Int[Tensor, "token"]  # an output, a text, or the tokens of one

METRICS: tuple[Literal["cosine", "dot", "centered_cosine", "number_centered", "causal"], ...] = (
    *("cosine", "dot", "centered_cosine", "number_centered", "causal"),
)
_BLOCK = 2**25  # numbers of W_U that are held in fp64 at a time
SHRINKAGE = 0.1  # of the vocabulary's covariance towards its mean variance times the identity


def unembed(model: HookedModel, resid: Tensor) -> Float[Tensor, "... d_vocab"]:
    """Logits of final hidden states: ln_final(resid) @ W_U + b_U, for [*seed, batch, d_model] or [*lead, d_model].

    Logits are capped and scaled as in the model (Gemma 2, Cohere, Granite). Raises where this does not give the model's
    own logits from its last block's output; a run checks this once.
    """
    arguments.model(model, evaluated=False)
    arguments.width(arguments.tensor(resid, "resid", "*lead d_model", floating=True), model.W_U.shape[-2], "resid")
    if model.W_U.ndim == 3 and (resid.ndim != 3 or len(resid) != len(model.W_U)):
        arguments.refuse("resid", f"[{len(model.W_U)} seeds, batch, d_model] for this model", resid)
    return checks.reads(model)(resid.to(model.W_U.dtype))


def token_directions(
    model: HookedModel, tokens: Tokens, *, basis: Basis = "raw"
) -> Float[Tensor, "*seed token d_model"]:
    """Columns of W_U for `tokens`, as rows; a text, or a tuple of its tokens, gives the mean of its tokens' columns.

    "raw" are the stored weights. "centered" folds the final norm's gain in and removes the mean over the vocabulary:
    softmax ignores that mean, so only centered directions are a property of the model's outputs. Where the final norm
    subtracts the mean over d_model, they lose theirs too: no output sees it. The mean over a string's tokens is the
    rule of Zur et al. 2025, Eq 1. A soft cap or a scale of the logits does not count: directions
    belong to h @ W_U. Raises for ids outside the vocabulary and empty strings, and where W_U does not give the
    model's logits; "centered" also for a final norm that has no gain; "raw" also for a bridge whose weights
    were processed (`enable_compatibility_mode()`, `process_weights()`): its columns are no longer those of the model.
    """
    arguments.choice(basis, "basis", ("raw", "centered"))
    if basis == "raw" and _is_rewritten(model):
        raise ValueError(
            "TransformerLens has processed this bridge's weights (folded or centred), so that its raw columns may not "
            "be the model's; load the model again, use no_processing=True, or take centered directions "
            '("centered_cosine")'
        )
    W_U = arguments.model(model, evaluated=False).W_U.detach()
    strings = _strings(model, tokens, "tokens")
    checks.readout(model)
    flat = [token for string in strings for token in string]
    columns = W_U[..., torch.as_tensor(flat, device=W_U.device)]
    if basis == "centered":
        gain = final_gain(model)
        columns = columns * gain - (W_U * gain).mean(-1, keepdim=True)
        columns = _seen(model, columns)
    parts = columns.mT.split([len(string) for string in strings], dim=-2)
    return torch.stack([part.mean(-2) for part in parts], dim=-2)


def _is_rewritten(model: HookedModel) -> bool:
    """Whether a bridge's columns may be centred, or hold the final norm's gain, because its weights were processed.

    The bridge notes it; in compatibility mode columns whose mean over the vocabulary is 0 show it too, should that note
    have another name.
    """
    if getattr(arguments.model(model, evaluated=False), "_weights_processed", False):
        return True
    W_U = model.W_U.detach()
    centred = bool(W_U.mean(-1).abs().max() < 1e-3 * W_U.abs().mean())
    return centred and bool(getattr(model, "compatibility_mode", False))


def _strings(model: HookedModel, tokens: Tokens, name: str) -> list[tuple[int, ...]]:
    """Every output as a string of its own."""
    size = arguments.vocabulary(model)
    members = arguments.items(tokens, name, "ids in the vocabulary, texts, or tuples of ids")
    members = [
        arguments.pieces(model, one, f"{name}[{i}]") if isinstance(one, str) else one for i, one in enumerate(members)
    ]
    single = [isinstance(one, numbers.Integral) for one in members]
    ids = iter(arguments.ids([one for one, alone in zip(members, single, strict=True) if alone], size, name, 0))
    return [
        (next(ids),) if alone else tuple(arguments.ids(one, size, f"{name}[{i}]"))
        for i, (one, alone) in enumerate(zip(members, single, strict=True))
    ]


def _seen(model: HookedModel, columns: Float[Tensor, "*seed d_model _"]) -> Float[Tensor, "*seed d_model _"]:
    """What a state before the gain can meet: the states of a norm that centres sum to 0."""
    return checks.final_norm(model).centred(columns.mT).mT


def final_gain(model: HookedModel) -> Tensor:
    """The final norm's gain as a column, measured from the norm: 1 + weight in Gemma; ones where there is no norm."""
    return checks.final_norm(model).gain[..., None]


def unembed_projection(
    model: HookedModel, source: Tokens, target: Tokens, metric: Metric = "cosine"
) -> Float[Tensor, "*seed source target"]:
    """Similarity of every source's output direction with every target's; see `token_directions` for strings.

    * "cosine": cos(W_U[:, s], W_U[:, t]) of raw columns (Zur et al. 2025, Eq 1);
    * "dot": W_U[:, s] . W_U[:, t] (what Zur et al.'s released code computes);
    * "centered_cosine": the cosine with the norm's gain folded and the vocabulary mean removed;
    * "number_centered": (u_s - mean over the sources) . (u_t - mean over the targets), u folded: only differences
      among the sources decide which source wins, so this is the effect of a write along u_t on them, to first order;
    * "causal": u_s^T C^-1 u_t of centered directions, C the covariance of the vocabulary's directions, shrunk by 0.1
      towards its mean variance (Park et al. 2024, "The linear representation hypothesis", section 3.2), fp64.

    Null to set beside it: random directions have cosine 0 with standard deviation 1/sqrt(d_model).
    """
    arguments.choice(metric, "metric", METRICS)
    for name, tokens in (("source", source), ("target", target)):
        strings = _strings(arguments.model(model, evaluated=False), tokens, name)
        if metric == "number_centered":  # a mean over them counts one that is there twice twice
            arguments.distinct(strings, name)
    basis: Basis = "raw" if metric in ("cosine", "dot") else "centered"
    a, b = (token_directions(model, tokens, basis=basis) for tokens in (source, target))
    if metric == "number_centered":
        a, b = (v - v.mean(-2, keepdim=True) for v in (a, b))
    if metric in ("cosine", "centered_cosine"):
        a, b = (torch.nn.functional.normalize(v, dim=-1) for v in (a, b))
    if metric == "causal":
        return _causal(model, a.double(), b.double()).to(a.dtype)
    return a @ b.mT


@one_thread()
def _causal(model: HookedModel, a: Tensor, b: Tensor) -> Tensor:
    return a @ torch.cholesky_solve(b.mT, _covariance_root(model))


def _covariance_root(model: HookedModel) -> Float[Tensor, "*seed d_model d_model"]:
    """Cholesky factor of the shrunk covariance of all centered directions, fp64; blocks of the vocabulary at a time."""
    gain, W_U = final_gain(model), model.W_U.detach()
    parts = W_U.split(max(1, _BLOCK // W_U[..., 0].numel()), dim=-1)
    mean = sum((part * gain).double().sum(-1, keepdim=True) for part in parts) / W_U.shape[-1]
    covariance = torch.zeros((), dtype=torch.float64, device=W_U.device)
    for part in parts:
        centered = _seen(model, (part * gain).double() - mean)
        covariance = covariance + centered @ centered.mT
    covariance = covariance / W_U.shape[-1]
    scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * scale * identity)
