"""A ReLU network linearised at its parameters: the effect of a small move, and the move that a student would make.

Jacobian products are written by hand: gates and hidden states of the inputs are kept, so that one product costs a
forward pass at most.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.toy_inputs import check_finite, check_outputs
from mechsub.measures.spectra import check_direction
from mechsub.models.mlp import HookedMLP, check_plain
from mechsub.threads import one_thread

Direction = Mapping[str, Tensor]  # a value for every parameter, with the seed axis


@dataclass(frozen=True)
class Tangent:
    """A network at some inputs: hidden[l] enters block l, hidden[-1] the unembedding; gates[l] follow block l."""

    model: HookedMLP
    hidden: list[Float[Tensor, "..."]]  # [*#seed, sample, d]
    gates: list[Float[Tensor, "..."]]  # [seed, sample, d_model]
    outputs: slice
    logits: Float[Tensor, "seed sample output"]


@torch.no_grad()
def tangent(model: HookedMLP, x: Float[Tensor, "*#seed sample d_in"], outputs: slice) -> Tangent:
    """The network linearised at these inputs, for the logits `outputs` alone."""
    arguments.instance(model, HookedMLP, "model").check_images(x, "x")
    check_plain(model, "model")
    check_finite(x, "x")
    check_outputs(outputs, model.cfg.d_vocab)
    if model.cfg.activation != "relu":
        raise ValueError(f"gates are those of ReLU, and this model has {model.cfg.activation}")
    hidden, gates = [(x if x.ndim == 3 else x[None]).to(model.device)], []
    for layer in range(len(model.blocks)):
        W, b = (model.get_parameter(f"blocks.{layer}.{name}") for name in "Wb")
        pre = hidden[-1] @ W + b[:, None]
        gates.append((pre > 0).to(pre))
        hidden.append(pre * gates[-1])
    logits = hidden[-1] @ model.W_U[..., outputs] + model.b_U[..., outputs]
    return Tangent(model, hidden, gates, outputs, logits)


@torch.no_grad()
def push(at: Tangent, direction: Direction) -> Float[Tensor, "seed sample output"]:
    """J direction: how fast the logits move when the parameters move along it."""
    check_direction(direction, dict(arguments.instance(at, Tangent, "at").model.named_parameters()))
    moved = torch.zeros((), device=at.logits.device, dtype=torch.float32)
    for layer, gate in enumerate(at.gates):
        own = at.hidden[layer] @ direction[f"blocks.{layer}.W"] + direction[f"blocks.{layer}.b"][:, None]
        moved = (own + moved @ at.model.get_parameter(f"blocks.{layer}.W") if layer else own) * gate
    head = at.hidden[-1] @ direction["unembed.W_U"][..., at.outputs] + direction["unembed.b_U"][:, None, at.outputs]
    return head + moved @ at.model.W_U[..., at.outputs]


@torch.no_grad()
def pull(at: Tangent, cotangent: Float[Tensor, "seed sample output"]) -> dict[str, Tensor]:
    """J^T cotangent, summed over the inputs: the gradient by the parameters, from the gradient by the logits."""
    _like_logits(at, cotangent, "cotangent")
    found = {name: torch.zeros_like(value) for name, value in at.model.named_parameters() if name.startswith("unembed")}
    found["unembed.W_U"][..., at.outputs] = at.hidden[-1].mT @ cotangent
    found["unembed.b_U"][..., at.outputs] = cotangent.sum(-2)
    back = cotangent @ at.model.W_U[..., at.outputs].mT
    for layer in reversed(range(len(at.gates))):
        back = back * at.gates[layer]
        found[f"blocks.{layer}.W"], found[f"blocks.{layer}.b"] = at.hidden[layer].mT @ back, back.sum(-2)
        if layer:
            back = back @ at.model.get_parameter(f"blocks.{layer}.W").mT
    return found


def curved(p: Float[Tensor, "seed sample output"], moved: Float[Tensor, "seed sample output"]) -> Tensor:
    """M moved for every input, M = diag(p) - p p^T: the curvature of the divergence from softmax p."""
    for name, side in (("p", p), ("moved", moved)):
        arguments.tensor(side, name, "seed sample output", floating=True)
    arguments.same_shape(p=p, moved=moved)
    return p * (moved - (p * moved).sum(-1, keepdim=True))


def descent(at: Tangent, targets: Float[Tensor, "seed sample output"]) -> dict[str, Tensor]:
    """Minus the gradient of the mean divergence KL(softmax(targets) || softmax(logits)). Raises for one logit."""
    arguments.finite(_like_logits(at, targets, "targets"), "targets")
    check_outputs(at.outputs, at.model.cfg.d_vocab, "kl")
    return pull(at, (targets.softmax(-1) - at.logits.softmax(-1)) / targets.shape[-2])


def least_squares(at: Tangent, targets: Float[Tensor, "seed sample output"], steps: int) -> dict[str, Tensor]:
    """The move that the linearised student takes: `steps` conjugate-gradient steps, from none, to the minimum of the
    divergence's quadratic approximation (Gauss-Newton curvature at the start). Few steps are early stopping: as in
    gradient flow, directions that the inputs show most are learned first.
    """
    residual = descent(at, targets)
    p, n = at.logits.softmax(-1), targets.shape[-2]
    solution = {name: torch.zeros_like(value) for name, value in residual.items()}
    ahead, left = residual, dot(residual, residual)
    least = (16 * torch.finfo(left.dtype).eps) ** 2 * left  # below, what is left is rounding, and leads anywhere
    for _ in range(arguments.whole(steps, "steps", 0)):
        bent = pull(at, curved(p, push(at, ahead)) / n)
        size = (left / dot(ahead, bent)).nan_to_num(0.0)
        solution = _sum(solution, ahead, size)
        residual = _sum(residual, bent, -size)
        before, left = left, dot(residual, residual)
        left = torch.where((before > 0) & (left > least), left, 0.0)  # a seed that has arrived stays
        ahead = _sum(residual, ahead, (left / before).nan_to_num(0.0))
    return solution


@one_thread()
def dot(a: Direction, b: Direction) -> Float[Tensor, "seed"]:
    """Inner product over the parameters that both moves have."""
    return functools.reduce(torch.add, ((a[name] * b[name]).flatten(1).sum(-1) for name in _common(a, b)))


def cosine(a: Direction, b: Direction) -> Float[Tensor, "seed"]:
    """Cosine over the parameters that both moves have; 0 where one move is 0."""
    names = _common(a, b)
    for side, moves in (("a", a), ("b", b)):
        for name in names:
            arguments.finite(moves[name], f"{side}[{name!r}]")
    a, b = ({name: side[name] for name in names} for side in (a, b))
    squares = dot(a, a) * dot(b, b)
    if bool(((squares < torch.finfo(squares.dtype).tiny * 1e6) | ~squares.isfinite()).any()):  # beyond the type's range
        a, b = ({name: value.double() for name, value in side.items()} for side in (a, b))
        return (dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())).nan_to_num(0.0).to(squares)
    return (dot(a, b) / squares.sqrt()).nan_to_num(0.0)


def _common(a: Direction, b: Direction) -> list[str]:
    """Names in both, in the order of a: the order of a set, and so the sum's rounding, would differ from run to run."""
    arguments.mapping(a, "a", "tensors")
    arguments.mapping(b, "b", "tensors")
    names = [name for name in a if name in b]
    if not names:
        raise ValueError(f"a and b have no parameter in common: {', '.join(a)} and {', '.join(b)}")
    for name in names:
        for side, moves in (("a", a), ("b", b)):
            arguments.tensor(moves[name], f"{side}[{name!r}]", "seed *axis", floating=True)
        arguments.same_shape(**{f"a[{name!r}]": a[name], f"b[{name!r}]": b[name]})
    return names


def _like_logits(at: Tangent, x: Tensor, name: str) -> Tensor:
    """Check that there is a value for every logit of the tangent: broadcasting would mix members and inputs."""
    logits = arguments.instance(at, Tangent, "at").logits
    arguments.tensor(x, name, "seed sample output", floating=True)
    if x.shape != logits.shape:
        raise ValueError(f"{name} must have the logits' shape {list(logits.shape)}, not {list(x.shape)}")
    arguments.same_dtype(x, logits, name)
    return x


def _sum(a: Direction, b: Direction, scale: Float[Tensor, "seed"]) -> dict[str, Tensor]:
    return {name: value + scale.view(-1, *[1] * (value.ndim - 1)) * b[name] for name, value in a.items()}
