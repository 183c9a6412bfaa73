"""The parts of fitting an ensemble: settings, batches, the optimiser's step, and members side by side.

`mechsub.training.distillation` uses them for one member at a time, `mechsub.training.together` for all at once.
"""

import functools
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.machine import devices, provenance
from mechsub.threads import side_by_side

if TYPE_CHECKING:
    from mechsub.models.mlp import MLPConfig

Precision = Literal["auto", "fp32", "bf16"]
Snapshots = dict[int, Any]  # step -> the ensemble after it, None before
Parameters = dict[str, Tensor]
Objective = Callable[[Parameters, Tensor, Tensor], Tensor]  # parameters, inputs of the rows, row numbers -> scalar
Members = int | Sequence[int]  # one, whose tensors have no axis of members, or several, which are stacked


_Self = TypeVar("_Self")


@runtime_checkable
class Ensemble(Protocol):
    """An ensemble that can be fitted: HookedMLP, and networks of its form."""

    cfg: "MLPConfig"
    seeds: Sequence[int]

    @property
    def W_U(self) -> Tensor: ...
    def parameters(self) -> Iterator[Tensor]: ...
    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...
    def replace(self: _Self, parameters: Parameters) -> _Self: ...


E = TypeVar("E", bound=Ensemble)


@dataclass(frozen=True)
class Job(Generic[E]):
    """An ensemble to be fitted: its start, and the dict of its snapshots."""

    start: E
    snapshots: Snapshots | None


class Problem(NamedTuple):
    """The data and losses of a fit: n inputs for each member.

    draw(member, epoch): the member's inputs [sample, d_in], on the CPU or on the members' device; None keeps the inputs
    of the epoch before. objectives(members, epoch, inputs): losses by ensemble. common: whether all members have the
    same inputs. held: bytes per input that objectives keep, beside the inputs and a few numbers for each logit.
    """

    n: int
    draw: Callable[[int, int], Tensor | None]
    objectives: Callable[[Members, int, Tensor], dict[str, Objective]]
    common: bool = False
    held: int = 0


@dataclass(frozen=True)
class Settings:
    """How an ensemble is fitted. `mechsub.designs.recipes.Recipe` describes a whole teacher and student."""

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


def resolve_precision(precision: Precision = "auto", device: torch.device | None = None) -> Literal["fp32", "bf16"]:
    """The precision of products; "auto" is $MECHSUB_PRECISION, else bf16 where the device has units for it, else fp32.

    Units for bf16 are AMX or AVX512-BF16 of a processor, and NVIDIA's from compute capability 8.0 on. The default
    device is the one that a command chose.
    """
    one_of("precision", precision, ("auto", "fp32", "bf16"))
    if precision == "auto" and (named := os.environ.get("MECHSUB_PRECISION")):
        one_of("MECHSUB_PRECISION", named, ("fp32", "bf16"))
        return "bf16" if named == "bf16" else "fp32"
    if precision != "auto":
        return precision
    place = devices.chosen() if device is None else arguments.instance(device, torch.device, "device")
    if place.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(place) >= (8, 0) else "fp32"
    if place.type != "cpu":
        return "fp32"
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(provenance.cpu().get("features", ())) else "fp32"


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {' or '.join(choices)}, not {arguments.described(value)}")


def check_within(keep: set[int], total: int) -> None:
    beyond = sorted(step for step in keep if not 0 <= step <= total)
    if beyond:
        raise ValueError(f"snapshot step {beyond[0]} is not within 0..{total}, the steps of this run")


class Fit:
    """One member of an ensemble, or several stacked members. All trained parameters are one flat fp32 vector, so that
    the
    optimiser is one pass."""

    def __init__(self, start: Parameters, trainable: list[str], settings: Settings):
        self.start, self.trainable = start, trainable
        self.flat = torch.cat([start[name].flatten() for name in trainable])
        self.flat.grad = torch.zeros_like(self.flat)
        self.low = self.flat.to(settings.dtype)  # the fp32 vector itself where that is the dtype
        leaves = {name: leaf.requires_grad_() for name, leaf in views(self.low, start, trainable).items()}
        self.used = {name: value.to(settings.dtype) for name, value in start.items()} | leaves
        self.leaves, self.gradients = list(leaves.values()), list(views(self.flat.grad, start, trainable).values())
        self.optimizer = _optimizer(self.flat, settings)

    def step(self, x: Tensor, rows: Tensor, objective: Objective, lr: float) -> None:
        if self.low is not self.flat:
            self.low.copy_(self.flat)
        with torch.enable_grad():  # whatever the caller is in
            gradients = torch.autograd.grad(objective(self.used, x, rows), self.leaves)
        for into, gradient in zip(self.gradients, gradients, strict=True):
            into.copy_(gradient)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()

    def parameters(self) -> Parameters:
        return self.start | views(self.flat.clone(), self.start, self.trainable)


def rate(settings: Settings, step: int, total: int) -> float:
    """Step size of step 1..total."""
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr / 2 * (1 + math.cos(math.pi * (step - 1) / total))


def batches(n: int, settings: Settings, seed: int, epoch: int) -> Iterator[Tensor]:
    generator = derive_generator(settings.seed, "order", settings.phase, seed, epoch)
    for rows in torch.randperm(n, generator=generator, device="cpu").split(settings.batch_size):
        yield rows.sort().values  # a batch has no order; sorted rows are gathered faster


def _optimizer(flat: Tensor, settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer == "sign_sgd":
        return _SignSGD([flat], {"lr": settings.lr, "weight_decay": settings.weight_decay})
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.SGD
    fused = flat.device.type in ("cpu", "cuda", "mps")
    return kind([flat], lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)


class _SignSGD(torch.optim.Optimizer):
    """w <- w - lr sign(gradient + weight_decay w): Adam without its memory (Bernstein et al. 2018)."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                w.sub_(group["lr"] * torch.sign(w.grad + group["weight_decay"] * w))


def affine(b: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """x @ W + b for one member, W [d_in, d_out], or several, W [member, d_in, d_out]; b may have a row for each x."""
    if W.ndim == 2:
        return torch.addmm(b, x, W)
    x = x if x.ndim == 3 else x.expand(len(W), *x.shape)
    return torch.baddbmm(b if b.ndim == 3 else b[:, None], x, W)


def gathered(values: Tensor, rows: Tensor) -> Tensor:
    """values [sample, ...] at rows [batch] for one member; [member, sample, ...] at [member, batch] for several."""
    if rows.ndim == 1:
        return values[rows]
    offsets = torch.arange(len(values), device=rows.device)[:, None] * values.shape[1]
    return values.flatten(0, 1).index_select(0, (rows + offsets).flatten()).view(*rows.shape, *values.shape[2:])


def member_parameters(model: Ensemble) -> list[Parameters]:
    named = {name: value.detach() for name, value in model.named_parameters()}
    return [{name: value[i] for name, value in named.items()} for i in range(len(model.seeds))]


def views(flat: Tensor, like: Parameters, names: list[str]) -> Parameters:
    pieces = flat.detach().split([like[name].numel() for name in names])
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}


def stacked(model: E, members: list[Parameters]) -> E:
    return model.replace({name: torch.stack([m[name] for m in members]) for name in members[0]})


def trained_names(names: list[str], frozen: tuple[str, ...]) -> list[str]:
    def held(name: str, by: str) -> bool:
        return name == by or name.startswith(f"{by}.")

    if len(frozen) > 1 and all(len(by) == 1 for by in frozen):
        raise ValueError(f"frozen must be a list of names, not the text {''.join(frozen)!r}")
    for by in frozen:
        if not any(held(name, by) for name in names):
            raise ValueError(f"no parameter is named {by!r}, so it cannot be frozen; parameters are {', '.join(names)}")
    left = [name for name in names if not any(held(name, by) for by in frozen)]
    if not left:
        raise ValueError("every parameter is frozen; leave one to train")
    return left


_here = threading.local()  # `is_worker` in the threads of a pool


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # Kept for the process: a new thread's first products take a second longer.
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="mechsub", initializer=_say_worker)


def _say_worker() -> None:
    _here.is_worker = True


def _forget_threads() -> None:
    """Forget threads in a forked child. The child has no threads of its parent, neither of this pool nor of torch's
    products, and would wait for them without end."""
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def each_member(
    work: Callable[[int], dict], n_members: int, progress: Callable[[float], None] | None = None
) -> list[dict]:
    """work(member) for every member, side by side, each with one thread of products; `progress` gets the share done."""
    arguments.function(work, "work")

    def whole(member: int, done: Callable[[], None]) -> dict:
        made = work(member)
        done()
        return made

    return each_in_parts(whole, n_members, 1, progress)


def each_in_parts(
    work: Callable[[int, Callable[[], None]], dict],
    n_members: int,
    n_parts: int,
    progress: Callable[[float], None] | None = None,
) -> list[dict]:
    """As `each_member`, of a work(member, done) that calls done() after each of its equal parts.

    `progress` is called in the calling thread, so that it may itself train. Once this has raised, done() raises too.
    """
    n_members = arguments.whole(n_members, "n_members", 1)
    if progress is not None:
        arguments.progress(progress)
    if getattr(_here, "is_worker", False):  # the pool's threads may all wait for this one
        return _in_turn(work, n_members, n_parts, progress)
    threads = torch.get_num_threads()  # 1 within `one_thread`, where members still run side by side
    told, stopped, shares = SimpleQueue[bool](), threading.Event(), _shares(progress, n_members * n_parts)

    def done() -> None:
        if stopped.is_set():
            raise CancelledError("another member, or the caller's progress, has raised")
        told.put(True)

    def alone(member: int) -> dict:
        torch.set_num_threads(1)
        return work(member, done)

    futures = [_pool(side_by_side()).submit(alone, member) for member in range(n_members)]
    for future in futures:
        future.add_done_callback(lambda _: told.put(False))  # wakes this thread
    try:
        for future in futures:
            while not (future.done() and told.empty()):  # of later members too
                shares(told.get())
            future.result()
        return [future.result() for future in futures]
    finally:
        stopped.set()
        for future in futures:
            future.cancel()
        torch.set_num_threads(threads)


def _in_turn(
    work: Callable[[int, Callable[[], None]], dict],
    n_members: int,
    n_parts: int,
    progress: Callable[[float], None] | None,
) -> list[dict]:
    """The members one after another, in this thread."""
    shares = _shares(progress, n_members * n_parts)
    return [work(member, lambda: shares(True)) for member in range(n_members)]


def _shares(progress: Callable[[float], None] | None, total: int) -> Callable[[bool], None]:
    """A function to be called with True when one of `total` equal parts is done; `progress` gets the share."""
    done = itertools.count(1)

    def one_more(part: bool) -> None:
        if part and progress is not None:
            progress(next(done) / total)

    return one_more
