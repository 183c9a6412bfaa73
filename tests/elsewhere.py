"""A device that is not here: tensors that say they are on it, and whose numbers this CPU computes.

As an accelerator does, it refuses what is given tensors of two devices, apart from what torch allows there (numbers
without axes, rows that are picked by an index on the CPU, copies). So code that mixes devices fails here, without a
GPU, and code that does not gives real numbers, which tests compare with those of the CPU. What it cannot show is
whether an accelerator's own products are right or fast.
"""

from contextlib import contextmanager

import torch
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "elsewhere"
ALLOWED = {"aten::index", "aten::_to_copy", "aten::copy_", "aten::index_put_", "aten::index_put"}  # of two devices
_ready = []


class Elsewhere(torch.Tensor):
    """A tensor of the device; `held` is the one that has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held, requires_grad=False):
        out = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=device(), requires_grad=requires_grad,
        )  # fmt: skip
        out.held = held
        return out

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *args, **options):
        raise TypeError("can't convert a tensor of another device to numpy; use .cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """What is made on the device from nothing (torch.zeros(device=...)), and what is moved there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args, kwargs):
    name, place = function._schema.name, kwargs.get("device")
    tensors = [one for one in trees.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    there = [one for one in tensors if isinstance(one, Elsewhere)]
    here = [one for one in tensors if not isinstance(one, Elsewhere) and one.ndim]
    if there and here and name not in ALLOWED:
        shapes = [list(one.shape) for one in here]
        raise RuntimeError(f"{name} got tensors of two devices, {NAME} and the CPU, the latter of the shapes {shapes}")
    stays = bool(there) if place is None else torch.device(place).type == NAME
    if name == "aten::index" and there and not isinstance(args[0], Elsewhere):
        raise RuntimeError("a tensor of the CPU is indexed by one of another device")
    held, options = trees.tree_map(lambda one: one.held if isinstance(one, Elsewhere) else one, (args, kwargs))
    if place is not None:
        options["device"] = torch.device("cpu")
    out = function(*held, **options)
    if function._schema.is_mutable and args and isinstance(args[0], torch.Tensor) and name.endswith("_"):
        return args[0]
    return trees.tree_map(lambda one: Elsewhere(one) if stays and isinstance(one, torch.Tensor) else one, out)


def device() -> torch.device:
    return torch.device(NAME, 0)


def available() -> bool:
    """Whether this torch can be told of a device by Python alone (2.9 on, tried with 2.14)."""
    from torch.utils import backend_registration

    if not _ready:
        setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
        if setup is None:
            return False
        setup(NAME)
        _ready.append(_kernels())
    return True


def _kernels() -> torch.library.Library:
    """What torch makes there where no mode sees it: indexes that are given as lists, and in other threads."""
    kernels = torch.library.Library("aten", "IMPL")

    def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        return Elsewhere(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        return Elsewhere(torch.empty(size, dtype=dtype, device="cpu"))

    def copy_from(source, target, non_blocking=False):
        (target.held if isinstance(target, Elsewhere) else target).copy_(
            source.held if isinstance(source, Elsewhere) else source
        )
        return target

    kernels.impl("empty.memory_format", empty, "PrivateUse1")
    kernels.impl("empty_strided", empty_strided, "PrivateUse1")
    kernels.impl("_copy_from", copy_from, "PrivateUse1")
    return kernels


@contextmanager
def here():
    """Within, the device is there."""
    available()
    with _Everywhere():
        yield device()
