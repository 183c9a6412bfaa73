"""Predict the student that distillation would make, from a convex problem: no student is trained.

`distill` moves weights and hidden states together. Here the logits are linear in the student's move D,

    f(x) = z_0(x) + J(x) D,

with z_0 the start's own logits and J a Jacobian that stays fixed. All else is as in distillation: inputs, batches,
their order, targets, loss, optimiser, schedule. The prediction is the network at the start plus D.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.noise import Sampler
from mechsub.models.mlp import ACTIVATIONS, HookedMLP
from mechsub.training.distillation import (
    DistillationLoss,
    Optimizer,
    Schedule,
    check_pair,
    check_steps,
    check_temperature,
    fit_members,
    frozen_names,
    is_common,
    lessons,
    loss_of,
    member_logits,
    n_inputs,
)
from mechsub.training.fitting import (
    Job,
    Members,
    Objective,
    Parameters,
    Precision,
    Problem,
    Settings,
    Snapshots,
    affine,
    gathered,
    one_of,
    resolve_precision,
    trained_names,
)

_CHUNK = 1024  # inputs at a time


class Linear(NamedTuple):
    """One member at its inputs, or several stacked members: the start's logits, and the parts of the Jacobian."""

    logits: Tensor  # [sample, output], behind an axis of members where they are several, as all below
    weights: Parameters  # of the point where the Jacobian is taken, as are hidden and slopes
    hidden: list[Tensor]  # [sample, d] into block l, the last into the unembedding
    slopes: list[Tensor]  # [sample, d_model], of the activations


def linearised_student(
    start: HookedMLP,
    teacher: HookedMLP,
    inputs: Float[Tensor, "*#seed sample d_in"] | Sampler,
    *,
    outputs: slice,
    at: HookedMLP | Literal["start", "midpoint"] = "midpoint",
    n_samples: int | None = None,
    noise: Literal["per_member", "shared"] = "per_member",
    loss: DistillationLoss = "kl",
    temperature: float = 1.0,
    target_noise: float = 0.0,
    fresh: bool = False,
    epochs: int = 5,
    lr: float = 3e-4,
    batch_size: int = 1024,
    optimizer: Optimizer = "adam",
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    precision: Precision = "auto",
    frozen: Sequence[str] = (),
    seed: int = 0,
    snapshots: Snapshots | None = None,
    progress: Callable[[float], None] | None = None,
) -> HookedMLP:
    """The network at start + D. D is the move that `distill` would find with these arguments if logits were linear in
    D.

    at: the point of the Jacobian J. "midpoint": halfway to the teacher, where J D is exact to second order for
    D = teacher - start (frozen parameters stay at the start); "start": at the start; or at a network of yours, such as
    halfway to an earlier prediction. The other arguments are those of `distill`; every member of start has its own
    teacher. Raises ValueError where `distill` does, and for networks of different shapes. docs/concepts.md has the
    derivation.
    """
    one_of("loss", loss, ("kl", "mse", "hard"))
    check_pair(start, teacher, outputs, loss)
    _check_shape("teacher", teacher, start)
    check_temperature(temperature, loss)
    settings = Settings(
        epochs, lr, batch_size, optimizer, weight_decay, schedule, resolve_precision(precision, start.device),
        frozen_names(frozen), seed, "distill",
    )  # fmt: skip
    draw, lesson = lessons(teacher, inputs, n_samples, noise, target_noise, fresh, settings)
    ends = [dict(m.named_parameters()) for m in (start, _point(start, teacher, at, settings.frozen))]
    activation = ACTIVATIONS[start.cfg.activation]

    def objectives(members: Members, epoch: int, inputs: Tensor) -> dict[str, Objective]:
        given = lesson(members, epoch, inputs)
        own, point = ({n: v.detach()[members].to(settings.dtype) for n, v in some.items()} for some in ends)
        line = linear(own, point, inputs, outputs, activation)
        of_logits = loss_of(loss, given.targets[..., outputs].contiguous(), temperature, given.seed)

        def objective(moves: Parameters, x: Tensor, rows: Tensor) -> Tensor:
            value = of_logits(linear_logits(line, moves, x, rows, outputs), rows)
            if not weight_decay:
                return value
            # The optimiser adds that of the move; this is the start's.
            return value + weight_decay * sum((own[n] * v).sum() for n, v in moves.items())

        return {"moves": objective}

    kept = None if snapshots is None else check_steps(snapshots)
    still = start.replace({name: torch.zeros_like(value) for name, value in start.named_parameters()})
    held = 2 * start.cfg.n_layers * start.cfg.d_model * settings.dtype.itemsize  # hidden states and slopes of an input
    problem = Problem(n_inputs(inputs, n_samples), draw, objectives, is_common(inputs, noise), held)
    moves = fit_members({"moves": Job(still, kept)}, problem, teacher.seeds, settings, progress)["moves"]
    if kept is not None:
        for step in kept:
            kept[step] = _moved(start, kept[step])
    return _moved(start, moves)


def _moved(start: HookedMLP, moves: HookedMLP) -> HookedMLP:
    by = dict(moves.named_parameters())
    return start.replace({name: value + by[name] for name, value in start.named_parameters()})


def _point(start: HookedMLP, teacher: HookedMLP, at: HookedMLP | str, frozen: tuple[str, ...]) -> HookedMLP:
    """The network at the point of the Jacobian."""
    if isinstance(at, HookedMLP):
        check_pair(at, start, slice(None), "mse")
        return _check_shape("at", at, start)
    if arguments.choice(at, "at", ("start", "midpoint")) == "start":
        return start
    learned = dict(teacher.named_parameters())
    names = trained_names(list(learned), frozen)
    return start.replace({n: (v + learned[n]) / 2 for n, v in start.named_parameters() if n in names})


def _check_shape(name: str, model: HookedMLP, start: HookedMLP) -> HookedMLP:
    if model.cfg != start.cfg:
        raise ValueError(f"start and {name} must have the same shape, not {start.cfg} and {model.cfg}")
    return model


@torch.no_grad()
def linear(
    start: Parameters, point: Parameters, x: Tensor, outputs: slice, activation: Callable[[Tensor], Tensor]
) -> Linear:
    """Logits `outputs` of the start at every input, and their Jacobian at the point."""
    depth = len(start) // 2 - 1
    logits, hidden, slopes = [], [[] for _ in range(depth)], [[] for _ in range(depth)]
    for h in x.split(_CHUNK, dim=-2):
        logits.append(member_logits(start, h, slice(None), activation)[..., outputs])  # rounded as the teacher's are
        for layer in range(depth):
            pre = affine(point[f"blocks.{layer}.b"], h, point[f"blocks.{layer}.W"])
            slopes[layer].append(_slope(activation, pre))
            h = activation(pre)
            hidden[layer].append(h)
    seen = [x, *(torch.cat(some, dim=-2) for some in hidden)]
    return Linear(torch.cat(logits, dim=-2), point, seen, [torch.cat(some, dim=-2) for some in slopes])


def _slope(activation: Callable[[Tensor], Tensor], pre: Tensor) -> Tensor:
    with torch.enable_grad():
        at = pre.detach().requires_grad_()
        return torch.autograd.grad(activation(at).sum(), at)[0]


def linear_logits(
    line: Linear, moves: Parameters, x: Tensor, rows: Tensor, outputs: slice
) -> Float[Tensor, "*member sample output"]:
    """z_0 + J moves for rows x of the inputs."""
    moved: Tensor | None = None
    for layer, slopes in enumerate(line.slopes):
        W, b = f"blocks.{layer}.W", f"blocks.{layer}.b"
        own = affine(moves[b], gathered(line.hidden[layer], rows) if layer else x, moves[W])
        moved = (own if moved is None else affine(own, moved, line.weights[W])) * gathered(slopes, rows)
    last = gathered(line.hidden[-1], rows)
    head = affine(moves["unembed.b_U"][..., outputs], last, moves["unembed.W_U"][..., outputs])
    through = moved @ line.weights["unembed.W_U"][..., outputs]  # type: ignore[operator]
    return gathered(line.logits, rows) + (head + through).float()
