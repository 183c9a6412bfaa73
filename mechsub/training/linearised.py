"""Predict the student that distillation would make, from a convex problem: no student is trained.

`distill` moves weights and hidden states together. Here the logits are linear in the student's move D,

    f(x) = z_0(x) + J(x) D,

with z_0 the start's own logits and J a Jacobian that stays fixed. All else is as in distillation: inputs, batches,
their order, targets, loss, optimiser, schedule. The prediction is the network at the start plus D.

In several stages, z_0 and J are taken anew where the network then stands. With a stage for every step, this is
distillation itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
_SHARES = {"start": (0.0,), "midpoint": (0.5,), "quarters": (0.25, 0.75)}  # of the way to the teacher, by `at`


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
    at: HookedMLP | Sequence[HookedMLP] | Literal["start", "midpoint", "quarters"] = "midpoint",
    relinearised: Sequence[int] = (),
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
    D = teacher - start (frozen parameters stay at the start); "start": at the start; "quarters": the mean of J at a
    quarter and at three quarters of the way; or at a network of yours, such as halfway to an earlier prediction.
    relinearised: steps after which the next stage begins. z_0 is then that of the network as moved so far, and J is
    taken at that network ("start"), halfway from it to the teacher ("midpoint"), or at the stage's own network, where
    `at` has one for each stage. The other arguments are those of `distill`; every member of start has its own teacher.
    Raises ValueError where `distill` does, for networks of different shapes, and for steps that this run does not
    have. A run has epochs x ceil(n_samples / batch_size) steps. With a stage for every step, "start" is `distill`
    itself, and "midpoint" is not: for stages take "start", then, for a second pass, networks halfway through each stage
    (`snapshots` has its ends). docs/concepts.md has the derivation.
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
    stages = _stages(relinearised, settings.epochs * math.ceil(n_inputs(inputs, n_samples) / settings.batch_size))
    points = _points(start, teacher, at, len(stages) + 1, settings.frozen)
    named, activation = dict(start.named_parameters()), ACTIVATIONS[start.cfg.activation]
    standing: dict[Members, _Standing] = {}

    def objectives(members: Members, epoch: int, inputs: Tensor) -> dict[str, Objective]:
        given = lesson(members, epoch, inputs)
        first = {n: v.detach()[members] for n, v in named.items()}
        of_logits = loss_of(loss, given.targets[..., outputs].contiguous(), temperature, given.seed)
        now = standing.setdefault(members if isinstance(members, int) else tuple(members), _Standing())
        lines: list[Linear] = []  # of these inputs, in the stage that they were made in

        def linearised() -> list[Linear]:
            own = now.moved(first)
            at_own, *at_points = (
                {n: v.to(settings.dtype) for n, v in some.items()} for some in (own, *points(now.stage, own, members))
            )
            return [linear(at_own, point, inputs, outputs, activation) for point in at_points]

        def objective(moves: Parameters, x: Tensor, rows: Tensor) -> Tensor:
            if now.steps in stages:
                now.stage, now.since = now.stage + 1, {n: v.detach().clone() for n, v in moves.items()}
                lines.clear()
            if not lines:
                lines.extend(linearised())
            now.steps += 1
            since = now.since
            more = moves if since is None else {n: v - since[n] for n, v in moves.items()}
            logits = torch.stack([linear_logits(line, more, x, rows, outputs) for line in lines]).mean(0)
            value = of_logits(logits, rows)
            if not weight_decay:
                return value
            # The optimiser adds that of the move; this is the start's.
            return value + weight_decay * sum((first[n].to(settings.dtype) * v).sum() for n, v in moves.items())

        return {"moves": objective}

    kept = None if snapshots is None else check_steps(snapshots)
    still = start.replace({name: torch.zeros_like(value) for name, value in start.named_parameters()})
    held = 2 * start.cfg.n_layers * start.cfg.d_model * settings.dtype.itemsize  # hidden states and slopes of an input
    held *= len(_SHARES[at]) if isinstance(at, str) else 1
    problem = Problem(n_inputs(inputs, n_samples), draw, objectives, is_common(inputs, noise), held)
    moves = fit_members({"moves": Job(still, kept)}, problem, teacher.seeds, settings, progress)["moves"]
    if kept is not None:
        for step in kept:
            kept[step] = _moved(start, kept[step])
    return _moved(start, moves)


def _moved(start: HookedMLP, moves: HookedMLP) -> HookedMLP:
    by = dict(moves.named_parameters())
    return start.replace({name: value + by[name] for name, value in start.named_parameters()})


@dataclass
class _Standing:
    """How far members have come: steps done, the stage, and the moves with which it began (None: none)."""

    steps: int = 0
    stage: int = 0
    since: Parameters | None = None

    def moved(self, first: Parameters) -> Parameters:
        return first if self.since is None else {n: v + self.since[n].to(v.dtype) for n, v in first.items()}


def _stages(relinearised: Sequence[int], total: int) -> list[int]:
    """The steps after which a stage begins, checked."""
    given = arguments.items(relinearised, "relinearised", "steps", 0)
    steps = [arguments.whole(step, "a step of relinearised", 1) for step in given]
    if steps and max(steps) >= total:
        allowed = f"be steps between 1 and {total - 1}" if total > 1 else "be empty in a run of one step"
        raise ValueError(f"relinearised must {allowed}, not {max(steps)}")
    if steps != sorted(set(steps)):
        raise ValueError(f"relinearised must be steps in increasing order, not {steps}")
    return steps


def _points(
    start: HookedMLP,
    teacher: HookedMLP,
    at: HookedMLP | Sequence[HookedMLP] | str,
    stages: int,
    frozen: tuple[str, ...],
) -> Callable[[int, Parameters, Members], list[Parameters]]:
    """Of a stage and the parameters that members have there: the points at which its Jacobian is taken."""
    if isinstance(at, str):
        shares = _SHARES[arguments.choice(at, "at", tuple(_SHARES))]
        learned = {n: v.detach() for n, v in teacher.named_parameters()}
        names = trained_names(list(learned), frozen)

        def along(stage: int, own: Parameters, members: Members) -> list[Parameters]:
            ends = {n: learned[n][members] if n in names else v for n, v in own.items()}
            return [{n: (1 - share) * v + share * ends[n] for n, v in own.items()} for share in shares]

        return along
    wanted = f"{', '.join(map(repr, _SHARES))}, a HookedMLP, or a list of them"
    if not isinstance(at, HookedMLP | list | tuple):
        arguments.refuse("at", wanted, at)
    networks = [at] if isinstance(at, HookedMLP) else arguments.items(at, "at", "networks")
    if len(networks) != stages:
        raise ValueError(f"at must have a network for each of the {stages} stages, not {len(networks)}")
    for network in networks:
        check_pair(arguments.instance(network, HookedMLP, "at"), start, slice(None), "mse")
        _check_shape("at", network, start)

    def given(stage: int, own: Parameters, members: Members) -> list[Parameters]:
        return [{n: v.detach()[members] for n, v in networks[stage].named_parameters()}]

    return given


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
