"""Train all members of an ensemble at once: every product is one batched product over members.

This is `distillation.fit_members` for accelerators, which one small network does not fill. Inputs and orders of batches
are the same as member by member: the same generators draw them on the CPU, while earlier members train. Where the
device's memory does not hold all members, as many as fit train at a time.
"""

import contextvars
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from mechsub import arguments
from mechsub.machine import devices, memory
from mechsub.training.fitting import (
    E,
    Ensemble,
    Fit,
    Job,
    Objective,
    Parameters,
    Problem,
    Settings,
    batches,
    check_within,
    each_member,
    gathered,
    rate,
    trained_names,
)

T = TypeVar("T")

_SHARE = 0.8  # of the free memory that members may take
_STATE = 6  # fp32 numbers for each trained one: itself, its rounding, its gradient, two moments, a snapshot
_FOR_LOGITS = 6  # fp32 numbers for each logit of an input: targets, their softmax, and what a loss makes of them


class Drawn(NamedTuple):
    """The inputs of several members in an epoch, on the CPU."""

    inputs: Tensor | None  # [member, sample, d_in]; [sample, d_in] where they are common; None: as before
    order: Tensor  # [member, sample]


def fit(
    jobs: Mapping[str, Job[E]],
    problem: Problem,
    seeds: Sequence[int],
    settings: Settings,
    progress: Callable[[float], None] | None = None,
) -> dict[str, E]:
    """As `fit_members`, and equal to it up to rounding. Raises ValueError where not even one member fits."""
    place = place_of(jobs)
    groups = _groups(len(seeds), problem, jobs, settings)
    epochs = [(members, epoch) for members in groups for epoch in range(settings.epochs)]
    drawn = _ahead([partial(_drawn, problem, seeds, settings, place, *each) for each in epochs])
    parts = []
    for i, members in enumerate(groups):
        done = _told(progress, i * settings.epochs, len(epochs))
        parts.append(_fit_group(jobs, problem, seeds, settings, members, drawn, done))
    for name, job in jobs.items():
        if job.snapshots is not None:
            for step in list(job.snapshots):
                job.snapshots[step] = _joined(job.start, [part[name][step] for part in parts])
    return {name: _joined(job.start, [part[name][-1] for part in parts]) for name, job in jobs.items()}


def _fit_group(
    jobs: Mapping[str, Job],
    problem: Problem,
    seeds: Sequence[int],
    settings: Settings,
    members: list[int],
    drawn: Iterator[Drawn],
    done: Callable[[int], None],
) -> dict[str, dict[int, Parameters]]:
    """Ensemble -> step -> parameters of these members after it; -1: at the end."""
    place, starts = place_of(jobs), {name: _stacked(job.start, members) for name, job in jobs.items()}
    fits = {name: Fit(start, trained_names(list(start), settings.frozen), settings) for name, start in starts.items()}
    keep = {name: set(job.snapshots or ()) for name, job in jobs.items()}
    kept = {name: {0: start} if 0 in keep[name] else {} for name, start in starts.items()}
    total = settings.epochs * math.ceil(problem.n / settings.batch_size)
    for steps in keep.values():
        check_within(steps, total)
    x, objectives, step = torch.empty(0, dtype=torch.float32), dict[str, Objective](), 0
    for epoch in range(settings.epochs):
        new, order = next(drawn)
        if new is not None:
            objectives.clear()  # what they hold of the inputs before
            x = new.to(place, non_blocking=True)
            objectives = problem.objectives(members, epoch, x)
        for rows in order.to(place, non_blocking=True).split(settings.batch_size, dim=1):
            batch, step = _batch(x, rows), step + 1
            for name, one in fits.items():
                one.step(batch, rows, objectives[name], rate(settings, step, total))
                if step in keep[name]:
                    kept[name][step] = one.parameters()
        done(epoch + 1)
    ends = {name: one.parameters() for name, one in fits.items()}
    _check_converged(ends, [seeds[member] for member in members], settings)
    return {name: kept[name] | {-1: ends[name]} for name in jobs}


def place_of(jobs: Mapping[str, Job]) -> torch.device:
    return next(iter(jobs.values())).start.W_U.device


def _stacked(model: Ensemble, members: list[int]) -> Parameters:
    return {name: value.detach()[members] for name, value in model.named_parameters()}


def _batch(x: Tensor, rows: Tensor) -> Tensor:
    """Inputs of every member, [member, batch, d_in]."""
    return x[rows] if x.ndim == 2 else gathered(x, rows)


def _check_converged(ends: Mapping[str, Parameters], seeds: Sequence[int], settings: Settings) -> None:
    for parameters in ends.values():
        finite = torch.stack([value.flatten(1).isfinite().all(1) for value in parameters.values()]).all(0)
        if not finite.all():
            seed = seeds[finite.tolist().index(False)]
            raise ValueError(f"training of seed {seed} diverged (NaN weights); lower lr={settings.lr}")


def _joined(start: E, parts: list[Parameters]) -> E:
    return start.replace({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _told(progress: Callable[[float], None] | None, before: int, total: int) -> Callable[[int], None]:
    if progress is None:
        return lambda epochs: None
    say = arguments.progress(progress)
    return lambda epochs: say((before + epochs) / total)


# How many members at a time.


def _groups(n_members: int, problem: Problem, jobs: Mapping[str, Job], settings: Settings) -> list[list[int]]:
    """Groups of members that train at a time: as many as the memory of the device, and of the machine, can hold."""
    place = place_of(jobs)
    there, here = _bytes_of_one(problem, jobs, settings)
    most = n_members
    for needed, free, where in _rooms(place, there, here):
        if needed > free:
            raise ValueError(
                f"{memory.gib(needed)} are needed on {where} to train one seed on {problem.n} inputs, and "
                f"{memory.gib(free)} are free; use fewer inputs, or smaller networks"
            )
        most = min(most, free // needed)
    n_groups = math.ceil(n_members / most)
    return [part.tolist() for part in np.array_split(np.arange(n_members), n_groups)]


def _rooms(place: torch.device, there: int, here: int) -> list[tuple[int, int, str]]:
    """(bytes that one member needs, bytes that all may take, where)."""
    free = int(_SHARE * memory.free_bytes())
    if place.type == "cpu":
        return [(there + here, free, "the machine")]
    return [(there, int(_SHARE * devices.free_bytes(place)), str(place)), (here, free, "the machine")]


def _bytes_of_one(problem: Problem, jobs: Mapping[str, Job], settings: Settings) -> tuple[int, int]:
    """Bytes of a member on its device, and where its inputs are drawn (with those of the next members)."""
    start = next(iter(jobs.values())).start
    of_inputs = 0 if problem.common else problem.n * start.cfg.d_in * settings.dtype.itemsize
    order = problem.n * 8
    for_logits = problem.n * (problem.held + 4 * _FOR_LOGITS * start.cfg.d_vocab * len(jobs))
    state = sum(value[0].numel() for job in jobs.values() for value in job.start.parameters()) * 4 * _STATE
    wide = start.cfg.d_in + 4 * start.cfg.n_layers * start.cfg.d_model  # hidden states of a batch, and their gradients
    batch = min(problem.n, settings.batch_size) * wide * settings.dtype.itemsize
    return of_inputs + order + for_logits + state + batch, 2 * (of_inputs + order)


# Inputs, drawn ahead.


def _drawn(
    problem: Problem, seeds: Sequence[int], settings: Settings, place: torch.device, members: list[int], epoch: int
) -> Drawn:
    """The same draws as of each member alone; members draw side by side."""
    pinned = place.type == "cuda"  # torch need not wait for copies of such memory
    order = torch.empty((len(members), problem.n), dtype=torch.int64, pin_memory=pinned)
    for own, member in zip(order, members, strict=True):
        torch.cat(list(batches(problem.n, settings, seeds[member], epoch)), out=own)
    if problem.common:
        return Drawn(problem.draw(members[0], epoch), order)
    first = problem.draw(members[0], epoch)
    if first is None:
        return Drawn(None, order)
    inputs = torch.empty((len(members), *first.shape), dtype=first.dtype, pin_memory=pinned)

    def draw(i: int) -> dict:
        inputs[i] = problem.draw(members[i], epoch) if i else first  # type: ignore[assignment]
        return {}

    each_member(draw, len(members))
    return Drawn(inputs, order)


def _ahead(makers: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of these functions. Another thread calls each function while the result before it is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="mechsub-ahead") as thread:
        ahead = None
        for make in makers:
            context = contextvars.copy_context()
            following = thread.submit(context.run, make)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()
