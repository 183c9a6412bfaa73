"""Distillation without a direction: at every step, what the update has along it is taken out.

The update is what the optimiser does to the weights, not the gradient: Adam divides every weight's gradient by a scale
of its own, so a gradient without a component still makes an update that has one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy
from transformer_lens.utilities import derive_generator

from mechsub.distillation import (
    DistillationLoss,
    Loss,
    Parameters,
    Precision,
    _batches,
    _check_pair,
    _Fit,
    _inputs,
    _logits,
    _loss,
    _member_parameters,
    _Recipe,
    _stack,
    _trainable,
    _views,
    each_member,
    resolve_precision,
)
from mechsub.mlp import ACTIVATIONS, HookedMLP
from mechsub.noise import Sampler

By = Literal["whole", "layer", "neuron"]
Direction = Callable[[int, int, Parameters], Parameters]  # member, step, its parameters -> the direction, by parameter


@dataclass(frozen=True)
class Removal:
    """A direction to do without, as one vector of all weights ("whole"), one for every layer (weights and biases), or
    one for every neuron (its incoming weights and its bias).

    Parameters that the direction does not name are left alone. With `control`, as much is taken out along a random
    direction, new at every step: the same length, whole by whole, layer by layer or neuron by neuron.
    """

    direction: Direction
    by: By = "neuron"
    control: bool = False

    def __post_init__(self):
        if self.by not in ("whole", "layer", "neuron"):
            raise ValueError(f"by must be whole, layer or neuron, not {self.by!r}")


def distill_without(
    students: Mapping[str, tuple[HookedMLP, Removal | None]],
    teacher: HookedMLP,
    inputs: Float[Tensor, "*#seed sample d_in"] | Sampler,
    *,
    outputs: slice,
    n_samples: int = 60_000,
    loss: DistillationLoss = "kl",
    epochs: int = 5,
    lr: float = 3e-4,
    batch_size: int = 1024,
    precision: Precision = "auto",
    frozen: tuple[str, ...] = (),
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, HookedMLP]:
    """name -> copy of the student that learned the logits `outputs`, for name -> (student, removal).

    All see the same inputs, batches and targets; one without a removal (None) is what `distill` gives. Adam's memory is
    of the whole gradients. Arguments as in `distill`.
    """
    for student, _ in students.values():
        _check_pair(student, teacher, outputs)
    recipe = _Recipe(
        epochs, lr, batch_size, "adam", 0.0, "constant", resolve_precision(precision), tuple(frozen), seed, "distill"
    )
    draw = _inputs(inputs, teacher, n_samples, "per_member", False, recipe)
    learned, activation = _member_parameters(teacher), ACTIVATIONS[teacher.cfg.activation]
    starts = {name: _member_parameters(student) for name, (student, _) in students.items()}

    def fit(member: int) -> dict[str, Parameters]:
        x = draw(member, 0)
        taught = {name: value.to(recipe.dtype) for name, value in learned[member].items()}
        target = torch.cat([_logits(taught, rows, slice(None), activation) for rows in x.split(1024)])
        draws = derive_generator(recipe.seed, "targets", teacher.seeds[member], 0).initial_seed()
        lossy = _loss(loss, target[:, outputs].contiguous(), 1.0, draws)
        controls = derive_generator(recipe.seed, "random direction", teacher.seeds[member]).initial_seed()
        fits = {
            name: _Without(_fit_of(starts[name][member], student, outputs, recipe), member, removal, lr, controls)
            for name, (student, removal) in students.items()
        }
        for epoch in range(recipe.epochs):
            for rows in _batches(len(x), recipe, teacher.seeds[member], epoch):
                batch = x.index_select(0, rows)
                for one in fits.values():
                    one.step(batch, rows, lossy)
        for one in fits.values():
            if not torch.isfinite(one.fit.flat).all():
                raise ValueError(f"training of seed {teacher.seeds[member]} diverged (NaN weights); lower lr={lr}")
        return {name: one.fit.parameters() for name, one in fits.items()}

    fitted = each_member(fit, len(teacher.seeds), progress)
    return {name: _stack(student, [member[name] for member in fitted]) for name, (student, _) in students.items()}


def _fit_of(start: Parameters, student: HookedMLP, outputs: slice, recipe: _Recipe) -> _Fit:
    return _Fit(start, _trainable(list(start), recipe.frozen), outputs, student.cfg.activation, recipe)


class _Without:
    """One member in training, and what its updates must do without."""

    def __init__(self, fit: _Fit, member: int, removal: Removal | None, lr: float, seed: int):
        self.fit, self.member, self.removal, self.lr, self.taken = fit, member, removal, lr, 0
        if removal is not None and removal.control:
            self.random = _windows(fit, torch.Generator().manual_seed(seed))

    def step(self, batch: Tensor, rows: Tensor, loss: Loss) -> None:
        fit, removal = self.fit, self.removal
        if removal is None:
            return fit.step(batch, rows, loss, self.lr)
        before = fit.parameters()
        direction = removal.direction(self.member, self.taken, before)
        fit.step(batch, rows, loss, self.lr)
        self.taken += 1
        now = _views(fit.flat, fit.start, fit.trainable)
        update = {name: now[name] - before[name] for name in direction if name in now}
        instead = next(self.random) if removal.control else None
        for name, part in component(update, direction, removal.by, instead=instead).items():
            now[name].sub_(part)


def _windows(fit: _Fit, generator: Generator) -> Iterator[Parameters]:
    """Random directions: windows of one row of normal numbers, since drawing all anew takes longer than the step."""
    n = fit.flat.numel()
    row = torch.randn(2 * n, generator=generator)
    while True:
        start = int(torch.randint(n, (), generator=generator))
        yield _views(row[start : start + n], fit.start, fit.trainable)


@torch.no_grad()
def component(
    update: Parameters, direction: Parameters, by: By = "neuron", *, instead: Parameters | None = None
) -> Parameters:
    """The part of an update along a direction, of [*seed, ...] parameters; what is left is orthogonal to it.

    `instead` names another direction that a part of the same length is taken along: a control. Parameters that the
    direction lacks, and groups in which it is 0, have no part.
    """
    direction = {name: direction[name] for name in update if name in direction}
    update = {name: update[name] for name in direction}
    length = products(direction, direction, by)
    along = products(update, direction, by)
    if instead is None:
        scale = {group: along[group] / length[group] for group in along}
    else:
        direction = {name: instead[name] for name in direction}
        other = products(direction, direction, by)
        scale = {group: along[group] / (length[group] * other[group]).sqrt() for group in along}
    scale = {group: value.nan_to_num(0.0, 0.0, 0.0) for group, value in scale.items()}
    return {
        name: value * (scale[_group(name, by)][..., None, :] if _is_matrix(name) else scale[_group(name, by)])
        for name, value in direction.items()
    }


def products(a: Parameters, b: Parameters, by: By = "neuron") -> dict[str, Tensor]:
    """Inner products group by group: [*seed, 1] for all weights together or a layer, [*seed, neuron] for neurons."""
    out: dict[str, Tensor] = {}
    for name in a:
        product = a[name] * b[name]
        each = product.sum(-2) if _is_matrix(name) else product
        each = each if by == "neuron" else each.sum(-1, keepdim=True)
        group = _group(name, by)
        out[group] = out[group] + each if group in out else each
    return out


def _group(name: str, by: str) -> str:
    return "" if by == "whole" else name.rpartition(".")[0]


def _is_matrix(name: str) -> bool:
    return name.rpartition(".")[-1].startswith("W")


def fixed(directions: Parameters) -> Direction:
    """A direction that stays as it is at all steps, from one with a leading axis of members."""
    return lambda member, step, parameters: {name: value[member] for name, value in directions.items()}


def trait_gradient(
    student: HookedMLP,
    images: Float[Tensor, "sample d_in"],
    labels: Int[Tensor, "sample"],
    *,
    batch_size: int = 1024,
    precision: Precision = "auto",
    seed: int = 0,
) -> Direction:
    """The gradient of the digit cross-entropy by the hidden layers, where the student is, on images drawn anew at every
    step."""
    dtype = torch.bfloat16 if resolve_precision(precision) == "bf16" else torch.float32
    shape, seeds, x = student.cfg, student.seeds, images.to(dtype)

    def gradient(member: int, step: int, parameters: Parameters) -> Parameters:
        generator = derive_generator(seed, "trait", seeds[member], step)
        rows = torch.randint(len(x), (batch_size,), generator=generator)
        used = {name: value.to(dtype, copy=True) for name, value in parameters.items()}
        leaves = {name: used[name].requires_grad_() for name in used if name.startswith("blocks.")}
        logits = _logits(used, x.index_select(0, rows), shape.digits, ACTIVATIONS[shape.activation])
        found = torch.autograd.grad(cross_entropy(logits, labels[rows]), list(leaves.values()))
        return {name: value.float() for name, value in zip(leaves, found, strict=True)}

    return gradient
