"""Training a teacher on labels, and distilling a student on some of the teacher's logits.

Members of an ensemble are independent: the loss is the mean over the batch, summed over members, so each can be
trained by itself. On a CPU that is also the fastest order: one member's weights, Adam state and activations stay in
the cache, its noise is held once and not per seed, and members run side by side, one thread each. The result does
not depend on the number of threads (if that of a sampler does not: those of `noise` are made by one), nor on
which other members are in the ensemble.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, mse_loss
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs.noise import Sampler
from mechsub.inputs.toy_inputs import check_finite, check_images, check_outputs, checked_labels
from mechsub.machine import provenance
from mechsub.models.mlp import ACTIVATIONS, HookedMLP
from mechsub.threads import one_thread, side_by_side

Precision = Literal["auto", "fp32", "bf16"]
Optimizer = Literal["adam", "sgd", "sign_sgd"]
Schedule = Literal["constant", "cosine"]
DistillationLoss = Literal["kl", "mse", "hard"]
Snapshots = dict[int, Any]  # step -> the ensemble after it, None before
Parameters = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]  # logits of the rows, row numbers -> scalar
Objective = Callable[[Parameters, Tensor, Tensor], Tensor]  # parameters, inputs of the rows, row numbers -> scalar

_CHUNK = 1024  # rows drawn, cast or labelled at a time


class Job(NamedTuple):
    """An ensemble to be fitted: its start, and where its snapshots go."""

    start: Any  # HookedMLP, or an ensemble of its form
    snapshots: Snapshots | None


class Lesson(NamedTuple):
    """What one member is taught: its inputs, its teacher's logits of them, and the seed of what is drawn from these."""

    x: Tensor
    targets: Tensor
    seed: int


@dataclass(frozen=True)
class Recipe:
    epochs: int
    lr: float
    batch_size: int
    optimizer: str
    weight_decay: float
    schedule: str
    precision: str
    frozen: tuple[str, ...]
    seed: int
    phase: Literal["train", "distill"]

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            object.__setattr__(self, name, arguments.whole(getattr(self, name), name, 1))
        object.__setattr__(self, "seed", arguments.seed(self.seed))
        arguments.positive(self.lr, "lr")
        arguments.number(self.weight_decay, "weight_decay", "a number of at least 0", least=0)
        one_of("optimizer", self.optimizer, ("adam", "sgd", "sign_sgd"))
        one_of("schedule", self.schedule, ("constant", "cosine"))
        one_of("precision", self.precision, ("fp32", "bf16"))

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


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
) -> HookedMLP:
    """A copy trained by cross-entropy on the first n_classes logits; auxiliary rows of W_U and b_U stay bit-equal
    (without weight decay, which shrinks every trainable weight).

    Every member has its own shuffle, keyed by (seed, "train", member's seed, epoch); that of distillation differs.
    `frozen` names parameters or modules ("blocks.0", "unembed.W_U") that stay as they are. The keys of
    `snapshots` are steps; they are filled with the ensemble after that many steps (0: the start). "bf16" is used for
    matrix products only: master weights, losses and optimiser stay fp32. Set-up: Cloud et al. 2025, section 6.2.

    optimizer: "adam"; "sgd"; or "sign_sgd", a step of lr against the sign of every gradient. `weight_decay` is added to
    the gradient (coupled, as in torch's Adam), also of rows that no loss reads: freeze those that must stay. schedule:
    "cosine" takes lr from its value at the first step to nearly 0 at the last.
    """
    targets = checked_classes(model, images, labels)
    recipe = Recipe(
        epochs, lr, batch_size, optimizer, weight_decay, schedule, resolve_precision(precision), frozen_names(frozen),
        seed, "train",
    )  # fmt: skip
    x = images.to(recipe.dtype)
    if snapshots is not None:
        check_steps(snapshots)

    def objective(parameters: Parameters, batch: Tensor, rows: Tensor) -> Tensor:
        logits = member_logits(parameters, batch, model.cfg.digits, ACTIVATIONS[model.cfg.activation])
        return cross_entropy(logits, targets[rows])

    def problem(member: int, epoch: int) -> tuple[Tensor, dict[str, Objective]]:
        return x, {"teacher": objective}

    return fit_members({"teacher": Job(model, snapshots)}, problem, model.seeds, recipe)["teacher"]


def distill(
    student: HookedMLP,
    teacher: HookedMLP,
    inputs: Float[Tensor, "*#seed sample d_in"] | Sampler,
    *,
    outputs: slice,
    n_samples: int = 60_000,
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
) -> HookedMLP:
    """A copy of the student whose logits `outputs` were fitted to its teacher's; other rows of W_U stay bit-equal
    (without weight decay).

    Member i of the student learns from member i of the teacher. `inputs` is a tensor or a sampler(n, generator);
    a sampler is drawn once (`n_samples` images) and reused every epoch: for each member, keyed by the teacher's
    seed ("per_member", as published), or once for all ("shared"); with `fresh`, anew for every epoch. The order of
    batches is keyed by the teacher's seed.

    loss, mean over the batch: "kl" is T^2 KL(softmax(teacher[outputs] / T) || softmax(student[outputs] / T)); "mse" the
    squared difference of logits, mean over `outputs`; "hard" the cross-entropy against one output for each image, drawn
    from softmax(teacher[outputs] / T), with the student's logits over T too: what is seen of sampled text.
    `target_noise` is the standard deviation of Gaussian noise on the teacher's logits, drawn once for every image.
    Other arguments as in `train`.
    Set-up: Cloud et al. 2025, section 6.2 (their released code divides the KL by the number of models instead).
    """
    given = {"student": check_steps(snapshots)} if snapshots is not None else {}
    return distill_each(
        {"student": (student, outputs)}, teacher, inputs,
        n_samples=n_samples, noise=noise, loss=loss, temperature=temperature, target_noise=target_noise, fresh=fresh,
        epochs=epochs, lr=lr, batch_size=batch_size, optimizer=optimizer, weight_decay=weight_decay, schedule=schedule,
        precision=precision, frozen=frozen, seed=seed, snapshots=given,
    )["student"]  # fmt: skip


def distill_each(
    students: Mapping[str, tuple[HookedMLP, slice]],
    teacher: HookedMLP,
    inputs: Float[Tensor, "*#seed sample d_in"] | Sampler,
    *,
    n_samples: int = 60_000,
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

    Each is what `distill` alone would give: all see the same inputs, batches and targets, which are made once for all
    of them and held for one member a thread. `snapshots` has a dict for every name that is to be looked at;
    `progress(fraction)` is called as members finish. Other arguments as in `distill`.
    """
    checked_students(students)
    one_of("loss", loss, ("kl", "mse", "hard"))
    for student, outputs in students.values():
        check_pair(student, teacher, outputs, loss)
    arguments.positive(temperature, "temperature")
    recipe = Recipe(
        epochs, lr, batch_size, optimizer, weight_decay, schedule, resolve_precision(precision), frozen_names(frozen),
        seed, "distill",
    )  # fmt: skip
    lesson = lessons(teacher, inputs, n_samples, noise, target_noise, fresh, recipe)

    def problem(member: int, epoch: int) -> tuple[Tensor, dict[str, Objective]] | None:
        given = lesson(member, epoch)
        return given and (given.x, {name: objective(given, *student) for name, student in students.items()})

    def objective(given: Lesson, student: HookedMLP, outputs: slice) -> Objective:
        of_logits = loss_of(loss, given.targets[:, outputs].contiguous(), temperature, given.seed)
        activation = ACTIVATIONS[student.cfg.activation]
        return lambda own, x, rows: of_logits(member_logits(own, x, outputs, activation), rows)

    for name, steps in arguments.mapping(snapshots or {}, "snapshots", "dicts of steps", 0).items():
        arguments.choice(name, "a name in snapshots", students)
        check_steps(steps, f"snapshots[{name!r}]")
    jobs = {name: Job(student, (snapshots or {}).get(name)) for name, (student, _) in students.items()}
    return fit_members(jobs, problem, teacher.seeds, recipe, progress)


@torch.no_grad()
def accuracy(
    model: HookedMLP, images: Float[Tensor, "sample d_in"], labels: Int[Tensor, "sample"]
) -> Float[Tensor, "seed"]:
    """Share of images whose largest digit logit (the first n_classes) is the label, for every member, in fp32.

    Raises for labels that are not one class number for each image, and for NaN or infinite logits, which argmax would
    read as some class.
    """
    labels = checked_classes(model, images, labels)
    right = []
    for x, y in zip(images.split(1000), labels.split(1000), strict=True):
        logits = model(x)[..., model.cfg.digits]
        check_finite(logits, "logits")
        right.append((logits.argmax(-1) == y).double().sum(-1))
    return (torch.stack(right).sum(0) / len(labels)).float()


def resolve_precision(precision: Precision = "auto") -> Literal["fp32", "bf16"]:
    """The precision of products; "auto" is $MECHSUB_PRECISION, else bf16 where the processor has AMX or AVX512-BF16,
    else fp32."""
    one_of("precision", precision, ("auto", "fp32", "bf16"))
    if precision == "auto" and (named := os.environ.get("MECHSUB_PRECISION")):
        one_of("MECHSUB_PRECISION", named, ("fp32", "bf16"))
        return "bf16" if named == "bf16" else "fp32"
    if precision != "auto":
        return precision
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(provenance.cpu().get("features", ())) else "fp32"


def fit_members(
    jobs: Mapping[str, Job],
    problem: Callable[[int, int], tuple[Tensor, dict[str, Objective]] | None],
    seeds: Sequence[int],
    recipe: Recipe,
    progress: Callable[[float], None] | None = None,
    order: Callable[[int, Recipe, int, int], Iterable[Tensor]] | None = None,
) -> dict[str, Any]:
    """Fit all ensembles member by member: problem(member, epoch) gives the inputs, and every ensemble's objective on
    them, or None where those of the epoch before are kept.

    Member i of every ensemble sees the same batches, in the order that belongs to seeds[i]: each is gathered once.
    `order` gives the batches of an epoch, `batches` by default.
    """
    keep = {name: set(job.snapshots or ()) for name, job in jobs.items()}
    starts = {name: member_parameters(job.start) for name, job in jobs.items()}
    trainable = {name: trained_names(list(members[0]), recipe.frozen) for name, members in starts.items()}

    def fit(member: int) -> dict[str, dict[int, Parameters]]:
        x, objectives = problem(member, 0)  # type: ignore[misc]
        total = recipe.epochs * math.ceil(len(x) / recipe.batch_size)
        for steps in keep.values():
            _check_within(steps, total)
        fits = {name: Fit(starts[name][member], trainable[name], recipe) for name in jobs}
        kept = {name: {0: starts[name][member]} if 0 in keep[name] else {} for name in jobs}
        step = 0
        for epoch in range(recipe.epochs):
            if epoch and (anew := problem(member, epoch)):
                x, objectives = anew
            for rows in (order or batches)(len(x), recipe, seeds[member], epoch):
                batch, step = x.index_select(0, rows), step + 1
                for name, one in fits.items():
                    one.step(batch, rows, objectives[name], _rate(recipe, step, total))
                    if step in keep[name]:
                        kept[name][step] = one.parameters()
        for one in fits.values():
            if not torch.isfinite(one.flat).all():
                raise ValueError(f"training of seed {seeds[member]} diverged (NaN weights); lower lr={recipe.lr}")
        return {name: kept[name] | {-1: one.parameters()} for name, one in fits.items()}

    fitted = each_member(fit, len(seeds), progress)
    for name, job in jobs.items():
        if job.snapshots is not None:
            for step in keep[name]:
                job.snapshots[step] = stacked(job.start, [member[name][step] for member in fitted])
    return {name: stacked(job.start, [member[name][-1] for member in fitted]) for name, job in jobs.items()}


class Fit:
    """One member of one ensemble: its trainable parameters are one flat fp32 vector, so the optimiser is one pass."""

    def __init__(self, start: Parameters, trainable: list[str], recipe: Recipe):
        self.start, self.trainable = start, trainable
        self.flat = torch.cat([start[name].flatten() for name in trainable])
        self.flat.grad = torch.zeros_like(self.flat)
        self.low = self.flat.to(recipe.dtype)  # the fp32 vector itself where that is the dtype
        leaves = {name: leaf.requires_grad_() for name, leaf in views(self.low, start, trainable).items()}
        self.used = {name: value.to(recipe.dtype) for name, value in start.items()} | leaves
        self.leaves, self.gradients = list(leaves.values()), list(views(self.flat.grad, start, trainable).values())
        self.optimizer = _optimizer(self.flat, recipe)

    def step(self, x: Tensor, rows: Tensor, objective: Objective, lr: float) -> None:
        if self.low is not self.flat:
            self.low.copy_(self.flat)
        value = objective(self.used, x, rows)
        for into, gradient in zip(self.gradients, torch.autograd.grad(value, self.leaves), strict=True):
            into.copy_(gradient)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()

    def parameters(self) -> Parameters:
        return self.start | views(self.flat.clone(), self.start, self.trainable)


def _rate(recipe: Recipe, step: int, total: int) -> float:
    """Step size of step 1..total."""
    return recipe.lr if recipe.schedule == "constant" else recipe.lr / 2 * (1 + math.cos(math.pi * (step - 1) / total))


def member_logits(parameters: Parameters, x: Tensor, columns: slice, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits of one member without hooks, only the columns that a loss reads, as fp32."""
    h, depth = x, len(parameters) // 2 - 1
    for layer in range(depth):
        h = activation(torch.addmm(parameters[f"blocks.{layer}.b"], h, parameters[f"blocks.{layer}.W"]))
    return torch.addmm(parameters["unembed.b_U"][columns], h, parameters["unembed.W_U"][:, columns]).float()


def loss_of(kind: str, target: Tensor, temperature: float, seed: int) -> Loss:
    if kind == "hard":
        generator = derive_generator(seed, "hard")
        drawn = torch.multinomial((target / temperature).softmax(-1), 1, generator=generator)[:, 0]
        return lambda logits, rows: cross_entropy(logits / temperature, drawn[rows])
    return kl_loss(target, temperature) if kind == "kl" else squared_loss(target)


def kl_loss(target: Tensor, temperature: float) -> Loss:
    p = (target / temperature).softmax(-1)
    entropy = -(p * (target / temperature).log_softmax(-1)).sum(-1)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        crossed = -(p[rows] * log_softmax(logits / temperature, -1)).sum(-1)
        return temperature**2 * (crossed - entropy[rows]).mean()

    return loss


def squared_loss(target: Tensor) -> Loss:
    return lambda logits, rows: mse_loss(logits, target[rows])


def lessons(
    teacher: HookedMLP,
    inputs: Tensor | Sampler,
    n_samples: int,
    noise: str,
    target_noise: float,
    fresh: bool,
    recipe: Recipe,
) -> Callable[[int, int], Lesson | None]:
    """(member, epoch) -> what it is taught; None where that is the lesson of the epoch before."""
    arguments.flag(fresh, "fresh")
    one_of("noise", noise, ("per_member", "shared"))
    arguments.number(target_noise, "target_noise", "a number of at least 0", least=0)
    if fresh and isinstance(inputs, Tensor):
        raise ValueError("fresh inputs need a sampler; a tensor is the same in every epoch")
    draw = student_inputs(inputs, teacher, n_samples, noise, fresh, recipe)
    learned, activation = member_parameters(teacher), ACTIVATIONS[teacher.cfg.activation]

    def lesson(member: int, epoch: int) -> Lesson | None:
        if epoch and not fresh:
            return None
        x = draw(member, epoch)
        parameters = {name: value.to(recipe.dtype) for name, value in learned[member].items()}
        targets = torch.cat([member_logits(parameters, rows, slice(None), activation) for rows in x.split(_CHUNK)])
        generator = derive_generator(recipe.seed, "targets", teacher.seeds[member], epoch)
        if target_noise:
            targets += target_noise * torch.randn(targets.shape, generator=generator)
        return Lesson(x, targets, generator.initial_seed())  # a seed of every student alone, whoever else is taught

    return lesson


def student_inputs(
    inputs: Tensor | Sampler, teacher: HookedMLP, n_samples: int, noise: str, fresh: bool, recipe: Recipe
) -> Callable[[int, int], Tensor]:
    """(member, epoch) -> its images in the dtype of the products; what is common to members is made once."""
    n_samples = arguments.whole(n_samples, "n_samples", 1)
    if isinstance(inputs, Tensor):
        check_images(inputs, teacher.cfg.d_in, len(teacher.seeds), "inputs")
        common = inputs.to(recipe.dtype) if inputs.ndim == 2 else None
        return lambda i, epoch: common if common is not None else inputs[i % len(inputs)].to(recipe.dtype)
    arguments.function(inputs, "inputs")
    if noise == "shared" and not fresh:
        with one_thread():
            common = _draw(inputs, n_samples, recipe, teacher.cfg.d_in, "shared", 0)
        return lambda i, epoch: common
    if noise == "shared":  # drawn by every member: one that kept all epochs would fill the memory
        return lambda i, epoch: _draw(inputs, n_samples, recipe, teacher.cfg.d_in, "shared", epoch)
    return lambda i, epoch: _draw(inputs, n_samples, recipe, teacher.cfg.d_in, teacher.seeds[i], epoch)


def _draw(sampler: Sampler, n: int, recipe: Recipe, d_in: int, label: int | str, epoch: int) -> Tensor:
    """n images in the dtype of the products, drawn in chunks: fp32 draws never stand beside the whole bf16 set."""
    generator = derive_generator(recipe.seed, "noise", label, epoch)
    out = torch.empty(n, d_in, dtype=recipe.dtype)
    for start in range(0, n, _CHUNK):
        size = min(_CHUNK, n - start)
        chunk = sampler(size, generator)
        check_images(chunk, d_in, name="inputs")
        if len(chunk) != size:
            raise ValueError(f"the sampler gave {len(chunk)} inputs where {size} were asked for")
        out[start : start + size] = chunk
    return out


def batches(n: int, recipe: Recipe, seed: int, epoch: int) -> Iterator[Tensor]:
    generator = derive_generator(recipe.seed, "order", recipe.phase, seed, epoch)
    for rows in torch.randperm(n, generator=generator).split(recipe.batch_size):
        yield rows.sort().values  # a batch has no order; sorted rows are gathered faster


def _optimizer(flat: Tensor, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sign_sgd":
        return _SignSGD([flat], {"lr": recipe.lr, "weight_decay": recipe.weight_decay})
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.SGD
    return kind([flat], lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


class _SignSGD(torch.optim.Optimizer):
    """w <- w - lr sign(gradient + weight_decay w): Adam without its memory (Bernstein et al. 2018)."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                w.sub_(group["lr"] * torch.sign(w.grad + group["weight_decay"] * w))


def member_parameters(model: Any) -> list[Parameters]:
    named = {name: value.detach() for name, value in model.named_parameters()}
    return [{name: value[i] for name, value in named.items()} for i in range(len(model.seeds))]


def views(flat: Tensor, like: Parameters, names: list[str]) -> Parameters:
    pieces = flat.detach().split([like[name].numel() for name in names])
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}


def stacked(model: Any, members: list[Parameters]) -> Any:
    return model.replace({name: torch.stack([m[name] for m in members]) for name in members[0]})


def trained_names(names: list[str], frozen: tuple[str, ...]) -> list[str]:
    def held(name: str, by: str) -> bool:
        return name == by or name.startswith(f"{by}.")

    if len(frozen) > 1 and all(len(by) == 1 for by in frozen):
        raise ValueError(f"frozen must be a list of names, not the text {''.join(frozen)!r}")
    for by in frozen:
        if not any(held(name, by) for name in names):
            raise ValueError(f"nothing is named {by!r} to be frozen; parameters are {', '.join(names)}")
    left = [name for name in names if not any(held(name, by) for by in frozen)]
    if not left:
        raise ValueError("every parameter is frozen; leave one to train")
    return left


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # Kept for the process: a new thread's first products take a second longer.
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="mechsub")


def _forget_threads() -> None:
    """In a forked child, which has none of its parent's threads: neither this pool's nor those of torch's products,
    which a child would wait for without end."""
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def each_member(
    work: Callable[[int], dict], n_members: int, progress: Callable[[float], None] | None = None
) -> list[dict]:
    """work(member) for every member, side by side, one thread of products each; `progress` gets the share done."""
    arguments.function(work, "work")
    n_members = arguments.whole(n_members, "n_members", 1)
    if progress is not None:
        arguments.function(progress, "progress")
    threads = torch.get_num_threads()  # 1 within `one_thread`, where members still run side by side

    def alone(member: int) -> dict:
        torch.set_num_threads(1)
        return work(member)

    fitted = []
    try:
        for done in _pool(side_by_side()).map(alone, range(n_members)):
            fitted.append(done)
            if progress is not None:
                progress(len(fitted) / n_members)
        return fitted
    finally:
        torch.set_num_threads(threads)


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


def checked_students(students: Mapping[str, tuple]) -> Mapping[str, tuple]:
    for name, pair in arguments.mapping(students, "students", "pairs (student, outputs)").items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            arguments.refuse(f"students[{name!r}]", "a pair of a student and what belongs to it", pair)
    return students


def check_pair(student: HookedMLP, teacher: HookedMLP, outputs: slice, loss: str) -> None:
    arguments.instance(student, HookedMLP, "student")
    arguments.instance(teacher, HookedMLP, "teacher")
    if len(student.seeds) != len(teacher.seeds):
        raise ValueError(f"{len(student.seeds)} students cannot learn from {len(teacher.seeds)} teachers, one each")
    for name in ("d_in", "d_vocab"):
        a, b = getattr(student.cfg, name), getattr(teacher.cfg, name)
        if a != b:
            raise ValueError(f"student and teacher differ in {name}: {a} and {b}")
    check_outputs(outputs, student.cfg.d_vocab, loss)


def _check_within(keep: set[int], total: int) -> None:
    beyond = sorted(step for step in keep if not 0 <= step <= total)
    if beyond:
        raise ValueError(f"snapshot step {beyond[0]} is not within 0..{total}, the steps of this run")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {' or '.join(choices)}, not {arguments.described(value)}")
