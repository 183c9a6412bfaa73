"""Training a teacher on labels, and distilling a student on some of the teacher's logits.

Members of an ensemble are independent: the loss is the mean over the batch, summed over members, so each member can
train by itself. On a CPU this is also the fastest order: the weights, Adam state and activations of one member stay in
the cache, its noise is held once and not per seed, and members run side by side, one thread each. The result does not
depend on the other members of the ensemble, nor on the number of threads (if a sampler does not: the samplers of
`noise` use one thread).

One member is too small to fill an accelerator. There all members train with one product (`mechsub.training.together`),
on the same inputs in the same order, and the result is the same up to rounding.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, mse_loss
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs.noise import Sampler, draws_by_rows
from mechsub.inputs.toy_inputs import check_finite, check_images, check_outputs, checked_labels
from mechsub.machine import devices
from mechsub.models.mlp import ACTIVATIONS, HookedMLP, check_plain
from mechsub.threads import one_thread
from mechsub.training import together
from mechsub.training.fitting import (
    E,
    Fit,
    Job,
    Members,
    Objective,
    Parameters,
    Precision,
    Problem,
    Settings,
    Snapshots,
    affine,
    batches,
    check_within,
    each_in_parts,
    each_member,  # noqa: F401 - as studies call it
    gathered,
    member_parameters,
    one_of,
    rate,
    resolve_precision,
    stacked,
    trained_names,
)

Optimizer = Literal["adam", "sgd", "sign_sgd"]
Schedule = Literal["constant", "cosine"]
DistillationLoss = Literal["kl", "mse", "hard"]
Loss = Callable[[Tensor, Tensor], Tensor]  # logits of the rows, row numbers -> scalar

_CHUNK = 1024  # rows drawn, cast or labelled at a time
N_SAMPLES = 60_000  # that a sampler draws where nobody says how many


class Lesson(NamedTuple):
    """The targets of members: their teachers' logits of their inputs, and the seed of draws from these logits."""

    targets: Tensor
    seed: int | list[int]


def train(
    model: HookedMLP,
    images: Float[Tensor, "sample d_in"],
    labels: Int[Tensor, "sample"],
    *,
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
    """A copy trained by cross-entropy on the first n_classes logits; auxiliary rows of W_U and b_U stay bit-equal
    (without weight decay, which shrinks every trainable weight).

    Every member has its own shuffle, keyed by (seed, "train", member's seed, epoch); distillation shuffles differently.
    `frozen` names parameters or modules ("blocks.0", "unembed.W_U") that do not change. The keys of `snapshots` are
    steps; each value becomes the ensemble after so many steps (0: the start). "bf16" is used for
    matrix products only: master weights, losses and optimiser stay fp32. Set-up: Cloud et al. 2025, section 6.2.

    optimizer: "adam"; "sgd"; or "sign_sgd", a step of lr against the sign of every gradient. `weight_decay` is added to
    the gradient (coupled, as in torch's Adam), also for rows that no loss reads: freeze rows that must stay. schedule:
    "cosine" takes lr from its value at the first step to nearly 0 at the last. `progress(fraction)` is called after
    every epoch of a member, as `progress_bar` makes one.
    """
    targets = checked_classes(model, images, labels)
    _check_trained(model, "model")
    settings = Settings(
        epochs, lr, batch_size, optimizer, weight_decay, schedule, resolve_precision(precision, model.device),
        frozen_names(frozen), seed, "train",
    )  # fmt: skip
    x, targets = images.to(model.device, settings.dtype), targets.to(model.device)
    if snapshots is not None:
        check_steps(snapshots)

    def objective(parameters: Parameters, batch: Tensor, rows: Tensor) -> Tensor:
        logits = member_logits(parameters, batch, model.cfg.digits, ACTIVATIONS[model.cfg.activation])
        return class_loss(logits, targets[rows])

    problem = Problem(
        len(x), lambda member, epoch: None if epoch else x, lambda *_: {"teacher": objective}, common=True
    )
    return fit_members({"teacher": Job(model, snapshots)}, problem, model.seeds, settings, progress)["teacher"]


def distill(
    student: HookedMLP,
    teacher: HookedMLP,
    inputs: Float[Tensor, "*#seed sample d_in"] | Sampler,
    *,
    outputs: slice,
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
    """A copy of the student whose logits `outputs` are fitted to its teacher's; other rows of W_U stay bit-equal
    (without weight decay).

    Member i of the student learns from member i of the teacher. `inputs` is a tensor or a sampler(n, generator).
    A sampler draws `n_samples` images (60,000 where none are given) once and reuses them every epoch: for each member,
    keyed by the teacher's seed ("per_member", as published), or once for all members ("shared"). With `fresh`, it draws
    anew for every epoch. It is asked for all of them at once, or in parts where `noise.by_rows` was said of it. The
    order of batches is keyed by the teacher's seed. Raises where a network has hooks, which training does not run.

    loss, mean over the batch: "kl" is T^2 KL(softmax(teacher[outputs] / T) || softmax(student[outputs] / T)); "mse" the
    squared difference of logits, mean over `outputs`; "hard" the cross-entropy against one output for each image, drawn
    from softmax(teacher[outputs] / T), with the student's logits over T too: as a student sees sampled text.
    "mse" has no temperature. `target_noise` is the standard deviation of Gaussian noise on the teacher's logits, drawn
    once for every image.
    Other arguments as in `train`.
    Set-up: Cloud et al. 2025, section 6.2 (their released code divides the KL by the number of models instead).
    """
    given = {"student": check_steps(snapshots)} if snapshots is not None else {}
    return distill_each(
        {"student": (student, outputs)}, teacher, inputs,
        n_samples=n_samples, noise=noise, loss=loss, temperature=temperature, target_noise=target_noise, fresh=fresh,
        epochs=epochs, lr=lr, batch_size=batch_size, optimizer=optimizer, weight_decay=weight_decay, schedule=schedule,
        precision=precision, frozen=frozen, seed=seed, snapshots=given, progress=progress,
    )["student"]  # fmt: skip


def distill_each(
    students: Mapping[str, tuple[HookedMLP, slice]],
    teacher: HookedMLP,
    inputs: Float[Tensor, "*#seed sample d_in"] | Sampler,
    *,
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
    snapshots: Mapping[str, Snapshots] | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, HookedMLP]:
    """name -> copy of the student that learned the logits `outputs`, for name -> (student, outputs).

    Each is the student that `distill` alone would return: all see the same inputs, batches and targets, which are made
    once for all students and held for one member a thread. `snapshots` has a dict for every name of interest. Other
    arguments as in `distill`.
    """
    checked_students(students)
    one_of("loss", loss, ("kl", "mse", "hard"))
    for student, outputs in students.values():
        check_pair(student, teacher, outputs, loss)
    check_temperature(temperature, loss)
    settings = Settings(
        epochs, lr, batch_size, optimizer, weight_decay, schedule, resolve_precision(precision, teacher.device),
        frozen_names(frozen), seed, "distill",
    )  # fmt: skip
    draw, lesson = lessons(teacher, inputs, n_samples, noise, target_noise, fresh, settings)

    def objectives(members: Members, epoch: int, x: Tensor) -> dict[str, Objective]:
        given = lesson(members, epoch, x)
        return {name: objective(given, *student) for name, student in students.items()}

    def objective(given: Lesson, student: HookedMLP, outputs: slice) -> Objective:
        of_logits = loss_of(loss, given.targets[..., outputs].contiguous(), temperature, given.seed)
        activation = ACTIVATIONS[student.cfg.activation]
        return lambda own, x, rows: of_logits(member_logits(own, x, outputs, activation), rows)

    for name, steps in arguments.mapping(snapshots or {}, "snapshots", "dicts of steps", 0).items():
        arguments.choice(name, "a name in snapshots", students)
        check_steps(steps, f"snapshots[{name!r}]")
    check_apart(snapshots or {})
    jobs = {name: Job(student, (snapshots or {}).get(name)) for name, (student, _) in students.items()}
    problem = Problem(n_inputs(inputs, n_samples), draw, objectives, is_common(inputs, noise))
    return fit_members(jobs, problem, teacher.seeds, settings, progress)


@torch.no_grad()
def accuracy(
    model: HookedMLP, images: Float[Tensor, "sample d_in"], labels: Int[Tensor, "sample"]
) -> Float[Tensor, "seed"]:
    """Share of images whose largest digit logit (the first n_classes) is the label, for every member, in fp32.

    Raises for labels that are not one class number for each image, and for NaN or infinite logits, because argmax would
    return some class for them.
    """
    labels = checked_classes(model, images, labels)
    right = []
    for x, y in zip(images.split(1000), labels.split(1000), strict=True):
        logits = model(x)[..., model.cfg.digits]
        check_finite(logits, "logits")
        right.append((logits.argmax(-1) == y.to(logits.device)).double().sum(-1))
    return (torch.stack(right).sum(0) / len(labels)).float()


def fit_members(
    jobs: Mapping[str, Job[E]],
    problem: Problem,
    seeds: Sequence[int],
    settings: Settings,
    progress: Callable[[float], None] | None = None,
    order: Callable[[int, Settings, int, int], Iterable[Tensor]] | None = None,
) -> dict[str, E]:
    """Fit all ensembles, on a CPU member by member, on an accelerator all members together.

    Member i of every ensemble sees the same batches, in the order that belongs to seeds[i]: each batch is gathered
    once. `order` gives the batches of an epoch, by default `batches`; with another order, members train one by one.
    """
    place = together.place_of(jobs)
    if order is None and devices.together(place):
        return together.fit(jobs, problem, seeds, settings, progress)
    keep = {name: set(job.snapshots or ()) for name, job in jobs.items()}
    starts = {name: member_parameters(job.start) for name, job in jobs.items()}
    trainable = {name: trained_names(list(members[0]), settings.frozen) for name, members in starts.items()}

    def fit(member: int, done: Callable[[], None]) -> dict[str, dict[int, Parameters]]:
        x = problem.draw(member, 0).to(place)  # type: ignore[union-attr]
        objectives = problem.objectives(member, 0, x)
        total = settings.epochs * math.ceil(len(x) / settings.batch_size)
        for steps in keep.values():
            check_within(steps, total)
        fits = {name: Fit(starts[name][member], trainable[name], settings) for name in jobs}
        kept = {name: {0: starts[name][member]} if 0 in keep[name] else {} for name in jobs}
        step = 0
        for epoch in range(settings.epochs):
            if epoch and (anew := problem.draw(member, epoch)) is not None:
                x = anew.to(place)
                objectives = problem.objectives(member, epoch, x)
            for order_of_draw in (order or batches)(len(x), settings, seeds[member], epoch):
                rows = order_of_draw.to(place)
                batch, step = x.index_select(0, rows), step + 1
                for name, one in fits.items():
                    one.step(batch, rows, objectives[name], rate(settings, step, total))
                    if step in keep[name]:
                        kept[name][step] = one.parameters()
            done()
        for one in fits.values():
            if not torch.isfinite(one.flat).all():
                raise ValueError(f"training of seed {seeds[member]} diverged (NaN weights); lower lr={settings.lr}")
        return {name: kept[name] | {-1: one.parameters()} for name, one in fits.items()}

    fitted = each_in_parts(fit, len(seeds), settings.epochs, progress)
    for name, job in jobs.items():
        if job.snapshots is not None:
            for step in keep[name]:
                job.snapshots[step] = stacked(job.start, [member[name][step] for member in fitted])
    return {name: stacked(job.start, [member[name][-1] for member in fitted]) for name, job in jobs.items()}


def member_logits(parameters: Parameters, x: Tensor, columns: slice, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits of one member, or of several stacked members, without hooks, fp32; only columns that a loss reads."""
    h, depth = x, len(parameters) // 2 - 1
    for layer in range(depth):
        h = activation(affine(parameters[f"blocks.{layer}.b"], h, parameters[f"blocks.{layer}.W"]))
    return affine(parameters["unembed.b_U"][..., columns], h, parameters["unembed.W_U"][..., columns]).float()


# Losses: the mean over a batch, summed over members where there are several.


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]


def loss_of(kind: str, target: Tensor, temperature: float, seed: int | Sequence[int]) -> Loss:
    if kind == "hard":
        drawn = _drawn((target / temperature).softmax(-1), seed)
        return lambda logits, rows: class_loss(logits / temperature, gathered(drawn, rows))
    return kl_loss(target, temperature) if kind == "kl" else squared_loss(target)


def _drawn(p: Tensor, seed: int | Sequence[int]) -> Tensor:
    """An output for each row of p; it is drawn on the CPU, as everything is."""
    if isinstance(seed, int):
        return torch.multinomial(p.cpu(), 1, generator=derive_generator(seed, "hard"))[:, 0].to(p.device)
    return torch.stack([_drawn(own, one) for own, one in zip(p.cpu(), seed, strict=True)]).to(p.device)


def kl_loss(target: Tensor, temperature: float) -> Loss:
    p = (target / temperature).softmax(-1)
    entropy = -(p * (target / temperature).log_softmax(-1)).sum(-1)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        crossed = -(gathered(p, rows) * log_softmax(logits / temperature, -1)).sum(-1)
        return temperature**2 * (crossed - gathered(entropy, rows)).mean(-1).sum()

    return loss


def squared_loss(target: Tensor) -> Loss:
    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        wanted = gathered(target, rows)
        if rows.ndim == 1:
            return mse_loss(logits, wanted)
        return mse_loss(logits, wanted, reduction="sum") / wanted[0].numel()

    return loss


def lessons(
    teacher: HookedMLP,
    inputs: Tensor | Sampler,
    n_samples: int | None,
    noise: str,
    target_noise: float,
    fresh: bool,
    settings: Settings,
) -> tuple[Callable[[int, int], Tensor | None], Callable[[Members, int, Tensor], Lesson]]:
    """draw(member, epoch): its inputs, or None to keep those of the last epoch; and lesson(members, epoch, inputs)."""
    arguments.flag(fresh, "fresh")
    one_of("noise", noise, ("per_member", "shared"))
    arguments.number(target_noise, "target_noise", "a number of at least 0", least=0)
    if fresh and isinstance(inputs, Tensor):
        raise ValueError("fresh inputs need a sampler; a tensor is the same in every epoch")
    drawn = student_inputs(inputs, teacher, n_samples, noise, fresh, settings)
    learned, activation = dict(teacher.named_parameters()), ACTIVATIONS[teacher.cfg.activation]

    def draw(member: int, epoch: int) -> Tensor | None:
        return None if epoch and not fresh else drawn(member, epoch)

    @torch.no_grad()
    def lesson(members: Members, epoch: int, x: Tensor) -> Lesson:
        parameters = {name: value[members].to(settings.dtype) for name, value in learned.items()}
        parts = [member_logits(parameters, rows, slice(None), activation) for rows in x.split(_CHUNK, dim=-2)]
        targets = torch.cat(parts, dim=-2)
        of_all = [members] if isinstance(members, int) else members
        draws = [derive_generator(settings.seed, "targets", teacher.seeds[one], epoch) for one in of_all]
        if target_noise:
            shape, dtype = targets.shape[-2:], torch.float32
            added = torch.stack([torch.randn(shape, generator=one, dtype=dtype, device="cpu") for one in draws])
            targets += target_noise * added.view(targets.shape).to(targets.device)
        seeds = [one.initial_seed() for one in draws]  # of every student alone, whoever else is taught
        return Lesson(targets, seeds[0] if isinstance(members, int) else seeds)

    return draw, lesson


def is_common(inputs: Tensor | Sampler, noise: str) -> bool:
    """Whether all members have the same inputs."""
    if isinstance(inputs, Tensor):
        return inputs.ndim == 2 or len(inputs) == 1
    return noise == "shared"


def n_inputs(inputs: Tensor | Sampler, n_samples: int | None) -> int:
    """The number of inputs of each member."""
    return inputs.shape[-2] if isinstance(inputs, Tensor) else N_SAMPLES if n_samples is None else n_samples


def student_inputs(
    inputs: Tensor | Sampler, teacher: HookedMLP, n_samples: int | None, noise: str, fresh: bool, settings: Settings
) -> Callable[[int, int], Tensor]:
    """(member, epoch) -> its images in the dtype of the products; common images are made once."""
    n_samples = None if n_samples is None else arguments.whole(n_samples, "n_samples", 1)
    if isinstance(inputs, Tensor):
        check_images(inputs, teacher.cfg.d_in, len(teacher.seeds), "inputs")
        if n_samples not in (None, inputs.shape[-2]):
            raise ValueError(f"n_samples={n_samples} is for samplers, and these are {inputs.shape[-2]} inputs")
        if noise == "shared" and inputs.ndim == 3 and len(inputs) > 1:
            raise ValueError("noise='shared' is for samplers; inputs of every member cannot be shared")
        common = inputs.to(teacher.device, settings.dtype) if inputs.ndim == 2 else None
        return lambda i, epoch: common if common is not None else inputs[i % len(inputs)].to(settings.dtype)
    if not callable(inputs):
        arguments.refuse("inputs", "a tensor, or a sampler such as ms.noise.uniform", inputs)
    n_samples = n_inputs(inputs, n_samples)
    if noise == "shared" and not fresh:
        with one_thread():
            common = _draw(inputs, n_samples, settings, teacher.cfg.d_in, "shared", 0).to(teacher.device)
        return lambda i, epoch: common
    if noise == "shared":  # drawn by every member: one that kept all epochs would fill the memory
        return lambda i, epoch: _draw(inputs, n_samples, settings, teacher.cfg.d_in, "shared", epoch)
    return lambda i, epoch: _draw(inputs, n_samples, settings, teacher.cfg.d_in, teacher.seeds[i], epoch)


def _draw(sampler: Sampler, n: int, settings: Settings, d_in: int, label: int | str, epoch: int) -> Tensor:
    """n images in the dtype of the products; rows that are independent are drawn in parts, so that all fp32 draws never
    stand beside the bf16 set."""
    generator = derive_generator(settings.seed, "noise", label, epoch)
    out, chunk_size = torch.empty(n, d_in, dtype=settings.dtype), _CHUNK if draws_by_rows(sampler) else n
    for start in range(0, n, chunk_size):
        size = min(chunk_size, n - start)
        chunk = sampler(size, generator)
        check_images(chunk, d_in, name="inputs")
        if len(chunk) != size:
            raise ValueError(f"the sampler gave {len(chunk)} inputs where {size} were asked for")
        out[start : start + size] = chunk
    return out


def checked_classes(model: HookedMLP, images: Tensor, labels: Tensor, name: str = "model") -> Tensor:
    """The labels as int64; raises unless every image has one."""
    arguments.instance(model, HookedMLP, name)
    check_images(images, model.cfg.d_in)
    return checked_labels(labels, len(images), model.cfg.n_classes)


def frozen_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(arguments.texts(names, "frozen", 0))


def check_steps(snapshots: Snapshots, name: str = "snapshots") -> Snapshots:
    if not isinstance(snapshots, dict):
        arguments.refuse(name, "a dict by steps, as {0: None, 100: None}, which is filled", snapshots)
    for step in snapshots:
        arguments.whole(step, f"a step of {name}", 0)
    return snapshots


def check_apart(snapshots: Mapping[str, Snapshots]) -> None:
    """Raise where two students would fill one dict."""
    for (a, one), (b, other) in itertools.combinations(snapshots.items(), 2):
        if one is other:
            raise ValueError(f"snapshots of {a!r} and {b!r} are one dict; give each student its own")


def checked_students(students: Mapping[str, tuple]) -> Mapping[str, tuple]:
    for name, pair in arguments.mapping(students, "students", "pairs (student, outputs)").items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            arguments.refuse(f"students[{name!r}]", "a pair of a student and what belongs to it", pair)
    return students


def _check_trained(model: HookedMLP, name: str) -> None:
    """Raise for hooks and parts that training does not run, and for weights that are not fp32: small steps would be
    lost."""
    check_plain(model, name)
    if other := {value.dtype for value in model.parameters()} - {torch.float32}:
        raise ValueError(f"{name} must have fp32 weights to be trained, not {other.pop()}; use .float()")


def check_temperature(temperature: float, loss: str) -> None:
    if arguments.positive(temperature, "temperature") != 1 and loss == "mse":
        raise ValueError(
            f"temperature must be 1 with loss 'mse', which has no softmax, not {temperature}; leave it out"
        )


def check_pair(student: HookedMLP, teacher: HookedMLP, outputs: slice, loss: str) -> None:
    arguments.instance(student, HookedMLP, "student")
    arguments.instance(teacher, HookedMLP, "teacher")
    check_plain(teacher, "teacher")
    _check_trained(student, "student")
    if len(student.seeds) != len(teacher.seeds):
        raise ValueError(f"{len(student.seeds)} students cannot learn from {len(teacher.seeds)} teachers, one each")
    if student.device != teacher.device:
        raise ValueError(f"student and teacher are on {student.device} and {teacher.device}; move one with .to(device)")
    for name in ("d_in", "d_vocab"):
        a, b = getattr(student.cfg, name), getattr(teacher.cfg, name)
        if a != b:
            raise ValueError(f"student and teacher differ in {name}: {a} and {b}")
    check_outputs(outputs, student.cfg.d_vocab, loss)
