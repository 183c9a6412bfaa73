"""The teacher's line: start + s (teacher - start), with one s for each hidden layer, and a student's place on it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.measures.spectra import displacement
from mechsub.models.mlp import HookedMLP
from mechsub.threads import one_thread


@torch.no_grad()
@one_thread()
def line_shares(student: HookedMLP, start: HookedMLP, teacher: HookedMLP) -> Float[Tensor, "seed layer"]:
    """s_l = <dW_l, delta_l> / |delta_l|^2 for every hidden layer, weights and biases. dW is the student's change from
    the
    start, delta the teacher's change. 0 where the teacher did not move."""
    _check(start=start, student=student, teacher=teacher)
    own, way = displacement(student, start), displacement(teacher, start)
    return _by_layer(start, lambda a: (own[a] * way[a]).double()) / _lengths(start, way).clamp(min=1e-30)


@torch.no_grad()
def on_line(start: HookedMLP, teacher: HookedMLP, shares: Float[Tensor, "seed layer"]) -> HookedMLP:
    """The network at start + s_l (teacher - start) in every hidden layer; its head is the start's."""
    _check(start=start, teacher=teacher)
    way = displacement(teacher, start)
    wanted = [len(start.seeds), start.cfg.n_layers]
    if list(arguments.values(shares, "shares", "seed layer", floating=True).shape) != wanted:
        raise ValueError(f"shares must have the shape {wanted}, one for each hidden layer, not {list(shares.shape)}")
    scales = {f"blocks.{i}": shares[:, i].float().to(start.device) for i in range(start.cfg.n_layers)}
    return start.replace(
        {
            name: value + way[name] * scales[name[:-2]].view(-1, *[1] * (value.ndim - 1))
            for name, value in start.named_parameters()
            if name[:-2] in scales
        }
    )


@torch.no_grad()
@one_thread()
def with_noise_of_the_rest(point: HookedMLP, student: HookedMLP, *, seed: int = 0) -> HookedMLP:
    """The point with Gaussian noise in every hidden weight, each as long as the student's distance from the point."""
    _check(point=point, student=student)
    arguments.seed(seed)
    rest = displacement(student, point)
    noisy = {}
    for name, value in point.named_parameters():
        if name.startswith("blocks."):
            draws = [
                torch.randn(v.shape, generator=derive_generator(seed, "rest", name, s), dtype=v.dtype, device="cpu").to(
                    v.device
                )
                for v, s in _members(point, value)
            ]
            sizes = [r.norm() / d.norm().clamp(min=1e-30) for r, d in zip(rest[name], draws, strict=True)]
            noisy[name] = value + torch.stack([k * d for k, d in zip(sizes, draws, strict=True)])
    return point.replace(noisy)


def _check(**models: HookedMLP) -> None:
    """Raise unless all networks have one shape, and as many members as the first."""
    first, *others = models
    arguments.instance(models[first], HookedMLP, first)
    for name in others:
        one = arguments.instance(models[name], HookedMLP, name)
        if one.cfg != models[first].cfg or len(one.seeds) != len(models[first].seeds):
            raise ValueError(f"{name} and {first} must have one shape, not {one!r} and {models[first]!r}")


def _members(model: HookedMLP, value: Tensor) -> list:
    return list(zip(value, model.seeds, strict=True))


def _lengths(start: HookedMLP, way: dict[str, Tensor]) -> Float[Tensor, "seed layer"]:
    return _by_layer(start, lambda name: way[name].double().square())


def _by_layer(start: HookedMLP, squares: Callable[[str], Tensor]) -> Float[Tensor, "seed layer"]:
    layers = [[f"blocks.{layer}.{part}" for part in "Wb"] for layer in range(start.cfg.n_layers)]
    return torch.stack([sum(squares(name).flatten(1).sum(-1) for name in names) for names in layers], -1)  # type: ignore
