"""Threads of products and sums: numbers must not depend on the number of a process's threads.

With more threads, torch cuts some operations at other places, and then rounds differently: LAPACK (eigh, svd, qr,
solve, ...), sums of all entries of a large tensor, and functions of every entry whose vectorised and plain code differ
(pow, sigmoid, products and signs of complex numbers). These operations run within `one_thread`. Matrix products came
out equal with 1 to 4 threads at every shape that was tried; docs/reliability.md has the list.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from mechsub import arguments
from mechsub.lazy import torch

P = ParamSpec("P")
T = TypeVar("T")

_outside: ContextVar[int | None] = ContextVar("outside", default=None)  # threads before `one_thread`


@contextmanager
def one_thread() -> Iterator[None]:
    """Give torch one thread in the calling thread; also a decorator of functions (of generators: `made_by_one`)."""
    n = torch.get_num_threads()
    if n == 1:
        yield
        return
    _outside.set(n)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
        _outside.set(None)


def made_by_one(generator: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """A generator function that runs within `one_thread`; members of an ensemble still run side by side."""
    arguments.function(generator, "generator")

    @functools.wraps(generator)
    def made(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        with one_thread():
            yield from generator(*args, **kwargs)

    return made


def side_by_side() -> int:
    """The number of threads that may work at once: torch's, or, within `one_thread`, torch's number before."""
    return _outside.get() or torch.get_num_threads()
