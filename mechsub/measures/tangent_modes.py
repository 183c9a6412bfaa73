"""The linearised student in closed form: one eigendecomposition of a kernel on the inputs, and all numbers of steps.

Logits that are linear in the move, f = z_0 + J D, and gradient descent on their squared distance to z_0 + r give

    D(t) = P J' M^1/2 K^-1 (1 - (1 - rate K)^t) M^1/2 r,    K = M^1/2 J P J' M^1/2 / n,

with M the curvature of the loss for each input, and P the factor of the optimiser for the gradient of each weight.
These inputs never teach the part of the teacher's displacement outside the row space of M^1/2 J (identifiability); the
part along small eigenvalues of K is learned late (conditioning).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.measures.spectra import check_direction
from mechsub.measures.tangent import Direction, Tangent, dot, pull, push
from mechsub.threads import one_thread

Scales = Mapping[str, tuple[Tensor, Tensor]]  # layer -> of what it reads [seed, d + 1], the bias last; of its neurons
_SMALLEST = 1e-9  # eigenvalues, relative to the largest, below which nothing is learned


@dataclass(frozen=True)
class Modes:
    """Eigenvalues of the kernel, its eigenvectors, and the target along each."""

    at: Tangent
    scales: Scales | None
    root: Float[Tensor, "seed sample output output"]  # of the loss's curvature
    values: Float[Tensor, "seed mode"]
    vectors: Float[Tensor, "seed entry mode"]  # entries are inputs times outputs
    wanted: Float[Tensor, "seed mode"]


@torch.no_grad()
@one_thread()
def tangent_modes(
    at: Tangent,
    residual: Float[Tensor, "seed sample output"],
    p: Float[Tensor, "seed sample output"] | None = None,
    scales: Scales | None = None,
) -> Modes:
    """Modes of the squared error; with p = softmax of the start's logits, modes of the divergence's curvature.

    residual: the teacher's logits less the start's. scales: of the optimiser, as `adam_scales` returns. In fp64; n
    inputs with k outputs take (n k)^3 operations.
    """
    arguments.instance(at, Tangent, "at")
    for name, value in ({"residual": residual} | ({} if p is None else {"p": p})).items():
        if arguments.values(value, name, "seed sample output", floating=True).shape != at.logits.shape:
            raise ValueError(f"{name} must have the logits' shape {list(at.logits.shape)}, not {list(value.shape)}")
    n_seeds, n, k = residual.shape
    if scales is not None:
        _check_scales(scales, at)
    root = _root(residual.double(), p)
    kernel = torch.einsum("sxoi,sxiyj,syjp->sxoyp", root, _kernel(at, scales), root)
    values, vectors = torch.linalg.eigh(kernel.reshape(n_seeds, n * k, n * k) / n)
    wanted = torch.einsum("sxoi,sxi->sxo", root, residual.double()).reshape(n_seeds, n * k)
    along = (vectors.mT @ wanted[..., None])[..., 0]
    return Modes(at, scales, root, values.clamp(min=0), vectors, along)


def _check_scales(scales: Scales, at: Tangent) -> None:
    wanted = {name: [(len(into), into.shape[-1]), (len(back), back.shape[-1])] for name, into, back in _layers(at)}
    given = arguments.mapping(scales, "scales", "pairs of tensors")
    for name, shapes in wanted.items():
        pair = given.get(name)
        if not isinstance(pair, tuple) or [tuple(getattr(side, "shape", ())) for side in pair] != shapes:
            raise ValueError(
                f"scales must have two tensors of {name}, of the shapes {shapes}, as adam_scales gives them"
            )


def _root(residual: Tensor, p: Tensor | None) -> Tensor:
    """M^1/2 for every input: for the mean square over outputs, or for the divergence at p."""
    k = residual.shape[-1]
    if p is None:
        own = torch.eye(k, dtype=torch.float64, device=residual.device)
        return own.mul(math.sqrt(2 / k)).expand(*residual.shape, k)
    p, off = p.double(), 1e-3 if p.itemsize >= 4 else 3e-2
    if bool((p < 0).any()) or bool(((p.sum(-1) - 1).abs() > off).any()):
        raise ValueError("p must hold probabilities, of each input's outputs: at.logits.softmax(-1)")
    values, vectors = torch.linalg.eigh(torch.diag_embed(p) - p[..., None] * p[..., None, :])
    return vectors @ (values.clamp(min=0).sqrt()[..., None] * vectors.mT)


def _kernel(at: Tangent, scales: Scales | None) -> Float[Tensor, "seed sample output sample output"]:
    """J P J': the sum over layers of the product of layer inputs and of derivatives by layer outputs."""
    total = torch.zeros(1, dtype=torch.float64, device=at.logits.device)
    for name, into, back in _layers(at):
        if scales is not None:
            into, back = (
                into * scales[name][0].double().sqrt()[:, None],
                back * scales[name][1].double().sqrt()[:, None, None],
            )
        read = into @ into.mT
        n_seeds, n, k, d = back.shape
        wrote = (flat := back.reshape(n_seeds, n * k, d)) @ flat.mT
        total = total + read[:, :, None, :, None] * wrote.view(n_seeds, n, k, n, k)
    return total


def _layers(at: Tangent) -> list[tuple[str, Tensor, Tensor]]:
    """Every layer: its name, its input with a 1 for the bias, and the derivative of each output by its neurons."""
    n_seeds, n, k = at.logits.shape
    back = at.model.W_U[..., at.outputs].double().mT[:, None].expand(n_seeds, n, k, -1)
    own = torch.eye(k, dtype=torch.float64, device=back.device).expand(n_seeds, n, k, k)
    found = [("unembed", _with_one(at.hidden[-1], n_seeds), own)]
    for layer in reversed(range(len(at.gates))):
        back = back * at.gates[layer].double()[:, :, None]
        found.append((f"blocks.{layer}", _with_one(at.hidden[layer], n_seeds), back))
        if layer:
            back = back @ at.model.get_parameter(f"blocks.{layer}.W").double().mT[:, None]
    return found


def _with_one(h: Tensor, n_seeds: int) -> Tensor:
    h = h.double().expand(n_seeds, -1, -1)
    return torch.cat([h, torch.ones_like(h[..., :1])], -1)


@torch.no_grad()
@one_thread()
def tangent_move(found: Modes, steps: float | int, rate: float) -> dict[str, Tensor]:
    """D after `steps` steps of gradient descent with this rate; with math.inf, the limit."""
    learned = _learned(arguments.instance(found, Modes, "found"), _steps(steps), arguments.positive(rate, "rate"))
    inverse = torch.where(_seen(found), 1 / found.values.clamp(min=1e-300), 0.0)
    n_seeds, n, k = found.at.logits.shape
    entries = (found.vectors @ (learned * inverse * found.wanted)[..., None]).reshape(n_seeds, n, k)
    back = torch.einsum("sxoi,sxi->sxo", found.root, entries) / n
    return _scaled(pull(found.at, back.to(found.at.logits)), found.scales, found.at.outputs)


@torch.no_grad()
@one_thread()
def way_learned(found: Modes, way: Direction, steps: float | int, rate: float) -> Float[Tensor, "seed"]:
    """<D(steps), way> / |way|^2 for a student whose targets are the linearised network's at the end of the way.

    With steps = math.inf it is the share of the way that these inputs show at all (identifiability). The part of this
    share that is missing after fewer steps is due to conditioning.
    """
    learned = _learned(arguments.instance(found, Modes, "found"), _steps(steps), arguments.positive(rate, "rate"))
    check_direction(way, dict(found.at.model.named_parameters()), "way")
    inverse = torch.where(_seen(found), 1 / found.values.clamp(min=1e-300), 0.0)
    targets, shown = (_along(found, way), _along(found, _scaled(way, found.scales, found.at.outputs)))
    n = found.at.logits.shape[-2]
    return (learned * inverse * targets * shown).sum(-1) / n / dot(way, way).double()


def _along(found: Modes, way: Direction) -> Float[Tensor, "seed mode"]:
    moved = torch.einsum("sxoi,sxi->sxo", found.root, push(found.at, way).double())
    return (found.vectors.mT @ moved.flatten(1)[..., None])[..., 0]


def _steps(steps: float | int) -> float | int:
    if steps != math.inf:
        arguments.number(steps, "steps", "a number of at least 0, or math.inf", least=0)
    return steps


def _seen(found: Modes) -> Tensor:
    return found.values > _SMALLEST * found.values[..., -1:]


def _learned(found: Modes, steps: float | int, rate: float) -> Float[Tensor, "seed mode"]:
    """Share of every mode that is learned: 1 - (1 - rate value)^steps."""
    if steps == math.inf:
        return _seen(found).double()
    if float(found.values.max()) * rate >= 2:
        raise ValueError(
            f"gradient descent with rate {rate:g} diverges; the largest is {2 / float(found.values.max()):.3g}"
        )
    left = 1 - rate * found.values
    if steps % 1 and bool((left < 0).any()):
        raise ValueError(f"steps must be whole with rate {rate:g}, at which the first modes overshoot, not {steps:g}")
    return 1 - left.abs().pow(steps) * torch.where(left < 0, 1 - 2 * (steps % 2), 1.0)


def _scaled(direction: Mapping[str, Tensor], scales: Scales | None, outputs: slice) -> dict[str, Tensor]:
    """P direction: every weight times the scale of its input and the scale of its neuron."""
    out = {name: value.clone() for name, value in direction.items()}
    for name, (read, wrote) in (scales or {}).items():
        W, b = ("unembed.W_U", "unembed.b_U") if name == "unembed" else (f"{name}.W", f"{name}.b")
        columns = outputs if name == "unembed" else slice(None)
        out[W][..., columns] *= (read[:, :-1, None] * wrote[:, None]).to(out[W])
        out[b][..., columns] *= (read[:, -1:] * wrote).to(out[b])
    return out


@torch.no_grad()
@one_thread()
def adam_scales(
    at: Tangent, error: Float[Tensor, "seed sample output"], batch_size: int = 1024
) -> dict[str, tuple[Tensor, Tensor]]:
    """Adam's factor of gradients, 1 / sqrt(v), for every layer as a product of a scale of the input and one of the
    neuron.

    error: the loss's derivative by every logit, for each input alone. v is the mean square of a batch's gradient; the
    product of its rows' and columns' means approximates v, as in Adafactor. Without a gradient the scale is 0.
    """
    arguments.instance(at, Tangent, "at")
    batch_size = arguments.whole(batch_size, "batch_size", 1)
    if arguments.values(error, "error", "seed sample output", floating=True).shape != at.logits.shape:
        raise ValueError(f"error must have the logits' shape {list(at.logits.shape)}, not {list(error.shape)}")
    found, n = {}, error.shape[-2]
    for name, into, back in _layers(at):
        own = torch.einsum("sxo,sxod->sxd", error.double(), back)
        mean, square = into.mT @ own / n, into.square().mT @ own.square() / n
        v = mean.square() + (square - mean.square()) / batch_size
        rows, columns = v.mean(-1), v.mean(-2) / v.mean((-1, -2))[:, None].clamp(min=1e-300)
        read, wrote = (torch.where(side > 0, side.clamp(min=1e-300).rsqrt(), 0.0) for side in (rows, columns))
        found[name] = (read, wrote)
    return found
