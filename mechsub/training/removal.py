"""Distillation without a direction: every step loses the component of its update along the direction.

The update is the change of the weights by the optimiser, not the gradient. Adam divides every weight's gradient by a
scale of its own, so a gradient without the component can still give an update with it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs.noise import Sampler
from mechsub.models.mlp import ACTIVATIONS, HookedMLP, check_plain
from mechsub.threads import one_thread
from mechsub.training.distillation import (
    DistillationLoss,
    Loss,
    check_pair,
    checked_classes,
    checked_students,
    frozen_names,
    lessons,
    loss_of,
    member_logits,
)
from mechsub.training.fitting import (
    Fit,
    Objective,
    Parameters,
    Precision,
    Settings,
    batches,
    each_in_parts,
    member_parameters,
    one_of,
    resolve_precision,
    stacked,
    trained_names,
    views,
)

By = Literal["whole", "layer", "neuron"]
Direction = Callable[[int, int, Parameters], Parameters]  # member, step, its parameters -> the direction, by parameter
F = TypeVar("F", bound=Callable)
Removal = Callable[[int, int, Parameters, Parameters], Parameters]  # the same and its update -> what is taken out of it

_ORTHONORMAL = 1e-3  # what products of columns may be off: those of an SVD in fp32 are 1e-6 off


def distill_without(
    students: Mapping[str, tuple[HookedMLP, Removal | None]],
    teacher: HookedMLP,
    inputs: Float[Tensor, "*#seed sample d_in"] | Sampler,
    *,
    outputs: slice,
    n_samples: int | None = None,
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

    All students see the same inputs, batches and targets. A student without a removal (None) is the one that `distill`
    returns. Adam's memory is of the whole gradients. Arguments as in `distill`. Raises ValueError for a removal of what
    is no parameter of the student.
    """
    for name, (_, removal) in checked_students(students).items():
        if removal is not None:
            arguments.function(removal, f"the removal of students[{name!r}]")
    one_of("loss", loss, ("kl", "mse", "hard"))
    for name, (student, removal) in students.items():
        check_pair(student, teacher, outputs, loss)
        _check_members(removal, student, name)
    settings = Settings(
        epochs,
        lr,
        batch_size,
        "adam",
        0.0,
        "constant",
        resolve_precision(precision, teacher.device),
        frozen_names(frozen),
        seed,
        "distill",
    )
    draw, lesson = lessons(teacher, inputs, n_samples, "per_member", 0.0, False, settings)
    starts = {name: member_parameters(student) for name, (student, _) in students.items()}

    def fit(member: int, done: Callable[[], None]) -> dict[str, Parameters]:
        x = draw(member, 0).to(teacher.device)  # type: ignore[union-attr]
        target, draws = lesson(member, 0, x)
        lossy = loss_of(loss, target[:, outputs].contiguous(), 1.0, draws)
        fits = {
            name: (_fit_of(starts[name][member], settings), removal, _objective(lossy, student, outputs))
            for name, (student, removal) in students.items()
        }
        step = 0
        for epoch in range(settings.epochs):
            for order in batches(len(x), settings, teacher.seeds[member], epoch):
                rows = order.to(x.device)
                batch = x.index_select(0, rows)
                for one, removal, objective in fits.values():
                    _step(one, batch, rows, objective, lr, removal and partial(removal, member, step))
                step += 1
            done()
        for one, *_ in fits.values():
            if not torch.isfinite(one.flat).all():
                raise ValueError(f"training of seed {teacher.seeds[member]} diverged (NaN weights); lower lr={lr}")
        return {name: one.parameters() for name, (one, *_) in fits.items()}

    fitted = each_in_parts(fit, len(teacher.seeds), settings.epochs, progress)
    return {name: stacked(student, [member[name] for member in fitted]) for name, (student, _) in students.items()}


def _objective(lossy: Loss, student: HookedMLP, outputs: slice) -> Objective:
    activation = ACTIVATIONS[student.cfg.activation]
    return lambda own, batch, rows: lossy(member_logits(own, batch, outputs, activation), rows)


def _fit_of(start: Parameters, settings: Settings) -> Fit:
    return Fit(start, trained_names(list(start), settings.frozen), settings)


def _step(
    fit: Fit, batch: Tensor, rows: Tensor, objective: Objective, lr: float, removed: Callable[..., Parameters] | None
) -> None:
    if removed is None:
        return fit.step(batch, rows, objective, lr)
    before = fit.parameters()
    fit.step(batch, rows, objective, lr)
    now = views(fit.flat, fit.start, fit.trainable)
    parts = removed(before, {name: now[name] - before[name] for name in now})
    for name, part in _among(parts, now, "trained parameter").items():
        now[name].sub_(part)


def _among(parts: Parameters, known: Parameters, kind: str = "parameter of the student") -> Parameters:
    """The parts; raises for a name that is not known, of which nothing would be removed."""
    if unknown := [name for name in parts if name not in known]:
        raise ValueError(f"{unknown[0]!r} in a removal is no {kind}; those are {', '.join(known)}")
    return parts


# What can be removed.


def along(direction: Direction, by: By = "neuron") -> Removal:
    """The component along a direction, as one vector of all weights ("whole"), one for every layer (weights and
    biases), or one for every neuron (its incoming weights and its bias)."""
    _check_by(by)
    arguments.function(direction, "direction")

    def removed(member: int, step: int, before: Parameters, update: Parameters) -> Parameters:
        return component(update, _among(direction(member, step, before), before), by)

    return _made_of(removed, getattr(direction, "made_of", {}))


def elsewhere(direction: Direction, student: HookedMLP, by: By = "neuron", *, seed: int = 0) -> Removal:
    """The control of `along`: it takes as much of the same tensors along a random direction, which is new at every
    step.

    Random directions are windows of one row of normal numbers: new draws would take longer than the step.
    """
    _check_by(by)
    arguments.function(direction, "direction")
    arguments.instance(student, HookedMLP, "student")
    seed = arguments.seed(seed)
    sizes = {name: value[0].numel() for name, value in student.named_parameters()}
    n, shapes = sum(sizes.values()), {name: value[0] for name, value in student.named_parameters()}
    draw = derive_generator(seed, "random direction")
    row = torch.randn(2 * n, generator=draw, dtype=torch.float32, device="cpu").to(student.device)

    def removed(member: int, step: int, before: Parameters, update: Parameters) -> Parameters:
        generator = derive_generator(seed, "random direction", student.seeds[member], step)
        start = int(torch.randint(n, (), generator=generator, device="cpu"))
        random = views(row[start : start + n], shapes, list(shapes))
        return component(update, _among(direction(member, step, before), before), by, instead=random)

    return _made_of(removed, getattr(direction, "made_of", {}))


def within(inputs: Mapping[str, Float[Tensor, "seed d_in k"]]) -> Removal:
    """All changes in how a weight matrix reads these directions of its inputs (orthonormal columns, by parameter)."""
    for name, basis in arguments.mapping(inputs, "inputs", "tensors").items():
        _check_orthonormal(arguments.values(basis, f"inputs[{name!r}]", "seed d_in k", floating=True), name)

    def removed(member: int, step: int, before: Parameters, update: Parameters) -> Parameters:
        own = {name: basis[member] for name, basis in _among(dict(inputs), before).items() if name in update}
        return {name: basis @ (basis.mT @ update[name]) for name, basis in own.items()}

    return _made_of(removed, {name: basis.shape[:-1] for name, basis in inputs.items()})


def _check_orthonormal(basis: Tensor, name: str) -> None:
    """Raise for columns whose projection would remove more than, or something else than, what lies within them."""
    basis = basis.double()
    off = float((basis.mT @ basis - torch.eye(basis.shape[-1], device=basis.device, dtype=torch.float32)).abs().max())
    if not off <= _ORTHONORMAL:
        raise ValueError(
            f"inputs[{name!r}] must have orthonormal columns (they are {off:.2g} off); torch.linalg.qr has them"
        )


@one_thread()
def inputs_of(change: Parameters, k: int) -> dict[str, Float[Tensor, "seed d_in k"]]:
    """The k input directions along which a change of weight matrices is largest (its left singular vectors)."""
    for name, value in arguments.mapping(change, "change", "tensors").items():
        arguments.values(value, f"change[{name!r}]", "seed d_in d_out", full=True)
        k = arguments.whole(k, "k", 1, min(value.shape[-2:]))
    return {name: torch.linalg.svd(value, full_matrices=False).U[..., :k] for name, value in change.items()}


def _check_by(by: str) -> None:
    arguments.choice(by, "by", ("whole", "layer", "neuron"))


@torch.no_grad()
def component(
    update: Parameters, direction: Parameters, by: By = "neuron", *, instead: Parameters | None = None
) -> Parameters:
    """The part of an update of [*seed, ...] parameters along a direction; the rest of the update is orthogonal to it.

    `instead`, a control, is another direction: the part has the same length and lies along `instead`. Parameters that
    the direction lacks, and groups in which it is 0, have no part.
    """
    _check_by(by)
    _check_parameters(update=update, direction=direction, **({} if instead is None else {"instead": instead}))
    direction = _scaled_up({name: direction[name] for name in update if name in direction}, by)
    update = {name: update[name] for name in direction}
    length = _products(direction, direction, by)
    along = _products(update, direction, by)
    if instead is None:
        scale = {group: along[group] / length[group] for group in along}
    else:
        if lacking := [name for name in direction if name not in instead]:
            raise ValueError(f"instead lacks the parameter {lacking[0]}; it must have all that direction has")
        direction = _scaled_up({name: instead[name] for name in direction}, by)
        other = _products(direction, direction, by)
        scale = {group: along[group] / (length[group] * other[group]).sqrt() for group in along}
    if length:  # below, NaN would become 0, as the scale of what has no length is
        lengths = torch.cat([value.flatten() for value in (*length.values(), *along.values())])
        arguments.finite(lengths, "update or direction")
    scale = {group: value.nan_to_num(0.0, 0.0, 0.0) for group, value in scale.items()}
    return {
        name: value * (scale[_group(name, by)][..., None, :] if _is_matrix(name) else scale[_group(name, by)])
        for name, value in direction.items()
    }


def _scaled_up(direction: Parameters, by: str) -> Parameters:
    """A direction has no scale: a group of it whose squares would be 0 is as good as any."""
    sizes: dict[str, float] = {}
    for name, value in direction.items():
        group = _group(name, by)
        sizes[group] = max(sizes.get(group, 0.0), float(value.abs().max()) if value.numel() else 0.0)
    small = {group: size for group, size in sizes.items() if 0 < size < 1e-12}
    return {name: value / small.get(_group(name, by), 1.0) for name, value in direction.items()} if small else direction


def products(a: Parameters, b: Parameters, by: By = "neuron") -> dict[str, Tensor]:
    """Inner products by group: [*seed, 1] for all weights together or for a layer, [*seed, neuron] for neurons."""
    _check_by(by)
    _check_parameters(a=a, b=b)
    if lacking := [name for name in a if name not in b]:
        raise ValueError(f"b lacks the parameter {lacking[0]}; it has {', '.join(b)}")
    return _products(a, b, by)


def _products(a: Parameters, b: Parameters, by: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name in a:
        product = a[name] * b[name]
        each = product.sum(-2) if _is_matrix(name) else product
        each = each if by == "neuron" else each.sum(-1, keepdim=True)
        group = _group(name, by)
        out[group] = out[group] + each if group in out else each
    return out


def _check_parameters(**sides: Parameters) -> None:
    """Check dicts of tensors: a parameter that both hold must have one shape."""
    first = next(iter(sides.values()))
    for side, parameters in sides.items():
        for name, value in arguments.mapping(parameters, side, "tensors", 0).items():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                arguments.refuse(f"{side}[{name!r}]", "a tensor of floating-point numbers", value)
            if name in first and value.shape != first[name].shape:
                wanted = list(first[name].shape)
                raise ValueError(f"{side}[{name!r}] must have shape {wanted}, not {list(value.shape)}")


def _group(name: str, by: str) -> str:
    return "" if by == "whole" else name.rpartition(".")[0]


def _is_matrix(name: str) -> bool:
    return name.rpartition(".")[-1].startswith("W")


def fixed(directions: Parameters) -> Direction:
    """A direction that is the same at all steps, from a direction with a leading axis of members."""
    for name, value in arguments.mapping(directions, "directions", "tensors", 0).items():
        arguments.values(value, f"directions[{name!r}]", "seed *axis", floating=True)

    def direction(member: int, step: int, parameters: Parameters) -> Parameters:
        return {name: value[member] for name, value in directions.items()}

    return _made_of(direction, {name: value.shape for name, value in directions.items()})


def _made_of(function: F, shapes: Mapping[str, Sequence[int]]) -> F:
    """Keep beside a removal or a direction the shapes, with their members, of the tensors that it takes members of."""
    function.made_of = shapes  # type: ignore[attr-defined]
    return function


def _check_members(removal: Removal | None, student: HookedMLP, name: str) -> None:
    """Raise for a removal that is made of tensors of other members than the student's, or of another shape."""
    own = {key: value.shape for key, value in student.named_parameters()}
    for key, shape in getattr(removal, "made_of", {}).items():
        if key in own and own[key][: len(shape)] != tuple(shape):
            raise ValueError(
                f"the removal of students[{name!r}] is made of {list(shape)} for {key}, and the student has "
                f"{list(own[key])}, members first"
            )


def trait_gradient(
    student: HookedMLP,
    images: Float[Tensor, "sample d_in"],
    labels: Int[Tensor, "sample"],
    *,
    batch_size: int = 1024,
    precision: Precision = "auto",
    seed: int = 0,
) -> Direction:
    """The gradient of the digit cross-entropy by the hidden layers, at the student's weights, on images that are drawn
    anew
    at every step."""
    classes = checked_classes(student, images, labels, "student")
    check_plain(student, "student")
    batch_size = arguments.whole(batch_size, "batch_size", 1)
    seed = arguments.seed(seed)
    dtype = torch.bfloat16 if resolve_precision(precision, student.device) == "bf16" else torch.float32
    shape, seeds, x = student.cfg, student.seeds, images.to(student.device, dtype)
    classes = classes.to(student.device)

    def gradient(member: int, step: int, parameters: Parameters) -> Parameters:
        generator = derive_generator(seed, "trait", seeds[member], step)
        rows = torch.randint(len(x), (batch_size,), generator=generator, device="cpu").to(x.device)
        used = {name: value.to(dtype, copy=True) for name, value in parameters.items()}
        leaves = {name: used[name].requires_grad_() for name in used if name.startswith("blocks.")}
        with torch.enable_grad():  # whatever the caller is in
            logits = member_logits(used, x.index_select(0, rows), shape.digits, ACTIVATIONS[shape.activation])
            found = torch.autograd.grad(cross_entropy(logits, classes[rows]), list(leaves.values()))
        return {name: value.float() for name, value in zip(leaves, found, strict=True)}

    return gradient
