"""Properties of an input distribution for the toy: its spectrum, the gates that it opens, the drive of Theorem 1."""

import math
import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, jvp

from mechsub import arguments
from mechsub.inputs.toy_inputs import check_finite, check_outputs
from mechsub.models.hooked import cache_activations
from mechsub.models.mlp import HookedMLP
from mechsub.threads import one_thread

_BATCH = 1000  # inputs a forward pass


@one_thread()
def covariance_spectrum(x: Float[Tensor, "*seed sample d"]) -> Float[Tensor, "*seed d"]:
    """Eigenvalues of the covariance of the samples, largest first, in fp64."""
    arguments.values(x, "x", "*seed sample d")
    if x.shape[-2] < 2:
        raise ValueError(f"a covariance of x needs at least 2 samples, not {x.shape[-2]}")
    c = x.double() - x.double().mean(-2, keepdim=True)
    return torch.linalg.eigvalsh(c.mT @ c / (x.shape[-2] - 1)).flip(-1).clamp(min=0)


def participation_ratio(spectrum: Float[Tensor, "*seed d"]) -> Float[Tensor, "*seed"]:
    """(sum e)^2 / sum e^2: d for a flat spectrum, 1 for a single direction, 0 where nothing varies.

    White noise has d / (1 + d / n) in n samples, so compare spectra of equal n.
    """
    spectrum = _check_spectrum(spectrum)
    return (spectrum.sum(-1).square() / spectrum.square().sum(-1)).nan_to_num(0.0)


def dimension(spectrum: Float[Tensor, "*seed d"], share: float = 0.95) -> Float[Tensor, "*seed"]:
    """How many of the largest eigenvalues hold `share` of the variance; eigenvalues in any order."""
    arguments.share(share, "share")
    held = _check_spectrum(spectrum).sort(-1, descending=True).values.cumsum(-1)
    return (held < share * held[..., -1:]).sum(-1).to(spectrum) + (held[..., -1] > 0)


def _check_spectrum(spectrum: Tensor) -> Tensor:
    arguments.values(spectrum, "spectrum", "*seed d", floating=True)
    if bool((spectrum < 0).any()):
        raise ValueError("spectrum holds negative eigenvalues; a covariance has none")
    return spectrum.float() if spectrum.itemsize < 4 else spectrum  # sums and squares leave half precision


@one_thread()
def mean_share(x: Float[Tensor, "sample d"]) -> float:
    """||mean x||^2 / mean ||x||^2: the mean image's share of the second moment. Raises where every x is 0."""
    arguments.values(x, "x", "sample d")
    if not bool((x != 0).any()):
        raise ValueError("x is 0 everywhere: it has no second moment to share")
    return float(x.double().mean(0).square().sum() / x.double().square().sum(-1).mean())


def radial_power(x: Float[Tensor, "sample d"]) -> Float[Tensor, "frequency"]:
    """Mean power of the Fourier modes of each radial frequency 0..side/2 (cycles an image, rounded).

    White noise of variance v has v at every frequency. Modes beyond side/2, the corners, are left out.
    """
    side = math.isqrt(arguments.values(x, "x", "sample d").shape[-1])
    if side**2 != x.shape[-1]:
        raise ValueError(f"x must be square images; {x.shape[-1]} pixels are not")
    power = torch.fft.fft2(x.double().reshape(-1, side, side)).abs().square().mean(0) / side**2
    one = torch.fft.fftfreq(side, 1 / side, device=power.device)
    radius = torch.hypot(one[:, None], one[None]).round().long()
    total = power.new_zeros(int(radius.max()) + 1).index_add_(0, radius.flatten(), power.flatten())
    return (total / radius.flatten().bincount())[: side // 2 + 1]


def gate_spectrum(model: HookedMLP, x: Float[Tensor, "*#seed sample d_in"]) -> Float[Tensor, "seed d_model"]:
    """Eigenvalues of the covariance of the first layer's ReLU gates (0 or 1), largest first."""
    _check_toy(model, x)
    if model.cfg.activation != "relu":
        raise ValueError(f"gates are those of ReLU, and this model has {model.cfg.activation}")
    pre = cache_activations(model, x, ["blocks.0.hook_pre"], batch_size=_BATCH)["blocks.0.hook_pre"]
    return covariance_spectrum((pre > 0).float())


@torch.no_grad()
def logit_correlation(
    model: HookedMLP, x: Float[Tensor, "*#seed sample d_in"]
) -> Float[Tensor, "seed n_aux n_classes"]:
    """Pearson correlation, over the inputs, of every auxiliary with every digit logit; 0 where one is constant.

    For a teacher this is about its trained digit head; for a reference, about the initial head, which a student keeps.
    """
    _check_toy(model, x)
    check_outputs(model.cfg.aux, model.cfg.d_vocab)
    logits = torch.cat([model(some) for some in x.split(_BATCH, dim=-2)], dim=-2).double()
    z = logits - logits.mean(-2, keepdim=True)
    z = (z / z.norm(dim=-2, keepdim=True)).nan_to_num(0.0)
    return z[..., model.cfg.aux].mT @ z[..., model.cfg.digits]


def displacement(model: HookedMLP, start: HookedMLP) -> dict[str, Tensor]:
    """model - start for every parameter, member by member; of other seeds, the way from one network to another."""
    for name, one in (("model", model), ("start", start)):
        arguments.instance(one, HookedMLP, name)
    if len(model.seeds) != len(start.seeds):
        raise ValueError(f"model and start must have as many members, not {len(model.seeds)} and {len(start.seeds)}")
    if model.cfg != start.cfg:
        raise ValueError(f"model and start must have the same shape, not {model.cfg} and {start.cfg}")
    before = dict(start.named_parameters())
    if any(value.shape != before[name].shape for name, value in model.named_parameters()):
        raise ValueError(f"{model!r} and {start!r} differ in shape: the one is not the start of the other")
    return {name: (value - before[name]).detach() for name, value in model.named_parameters()}


@torch.no_grad()
def drive(
    reference: HookedMLP,
    direction: Mapping[str, Tensor],
    x: Float[Tensor, "*#seed sample d_in"],
    *,
    loss: Literal["kl", "mse"] = "kl",
    temperature: float = 1.0,
) -> Float[Tensor, "seed"]:
    """E_x || M(x)^(1/2) J_aux(x) direction ||^2 at the reference, of every member.

    J_aux is the Jacobian of the auxiliary logits by all parameters, M the curvature of the distillation loss:
    diag(p) - p p^T of p = softmax(aux / temperature) for T^2 KL, 2/n I for the mean square over n logits. With the
    teacher's displacement as direction it is, to leading order, the product of that displacement and the student's
    first step of gradient descent, and twice the loss at the start (Cloud et al. 2025, Theorem 1, appendix C).
    """
    _check_toy(reference, x, "reference")
    arguments.choice(loss, "loss", ("kl", "mse"))
    arguments.positive(temperature, "temperature")
    if loss == "mse" and temperature != 1:
        raise ValueError(f"temperature must be 1 with the loss mse, which has none, not {temperature}")
    check_outputs(reference.cfg.aux, reference.cfg.d_vocab, loss)
    at = {name: value.detach() for name, value in reference.named_parameters()}
    if set(arguments.mapping(direction, "direction", "tensors")) != set(at):
        raise ValueError(f"direction must have the parameters {', '.join(at)}; it has {', '.join(direction)}")
    check_direction(direction, at)
    for name, value in direction.items():
        arguments.finite(value, f"direction[{name!r}]")
    total = torch.zeros(len(reference.seeds), dtype=torch.float64, device=reference.device)
    for some in x.split(_BATCH, dim=-2):
        logits, moved = _directional(reference, at, dict(direction), some)
        total += _squared(logits.double(), moved.double(), loss, temperature).sum(-1)
    return (total / x.shape[-2]).float()


def check_direction(direction: Mapping[str, Tensor], parameters: Mapping[str, Tensor], name: str = "direction") -> None:
    """Raise for a move that lacks one of these parameters, or has one in another shape or dtype."""
    arguments.mapping(direction, name, "tensors")
    for key, value in parameters.items():
        if key not in direction:
            raise ValueError(f"{name} lacks the parameter {key}; it has {', '.join(direction)}")
        given = arguments.tensor(direction[key], f"{name}[{key!r}]", "*axis", floating=True)
        if given.shape != value.shape:
            raise ValueError(f"{name}[{key!r}] must have shape {list(value.shape)}, not {list(given.shape)}")
        arguments.same_dtype(given, value, f"{name}[{key!r}]")


def _check_toy(model: HookedMLP, x: Tensor, name: str = "model") -> None:
    arguments.instance(model, HookedMLP, name)
    model.check_images(x, "x")
    check_finite(x, "x")


def _directional(model: HookedMLP, at: dict, direction: dict, x: Tensor) -> tuple[Tensor, Tensor]:
    """Auxiliary logits, and their derivative along the direction, by forward mode."""

    def aux(parameters: dict) -> Tensor:
        return functional_call(model, parameters, (x,))[..., model.cfg.aux]

    with warnings.catch_warnings():  # torch's forward mode sets itself up with parts that torch deprecates
        warnings.simplefilter("ignore", FutureWarning)
        return jvp(aux, (at,), (direction,))  # type: ignore[return-value]


def _squared(logits: Tensor, moved: Tensor, loss: str, temperature: float) -> Tensor:
    """moved^T M moved for every input."""
    if loss == "mse":
        return 2 * moved.square().mean(-1)
    p = (logits / temperature).softmax(-1)
    return (p * (moved - (p * moved).sum(-1, keepdim=True)).square()).sum(-1)
