"""The device of new networks: the CPU, an accelerator of torch, or the one that is found here.

A command chooses a device (`--device`), and runs its study within `on(device)`: networks that are made there stand on
the device, and measures follow their network. Random numbers are always drawn on the CPU, so that they are the same
everywhere.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mechsub import arguments
from mechsub.lazy import torch
from mechsub.machine import memory

NAMES = ("cpu", "cuda", "mps", "auto")

_chosen: "ContextVar[torch.device | None]" = ContextVar("chosen", default=None)
_together: ContextVar[bool | None] = ContextVar("together", default=None)


def found(name: str) -> "torch.device":
    """The device of a name, "auto" for CUDA where it is there and the CPU otherwise.

    "auto" never takes MPS, on which torch has returned wrong numbers without an error; it must be named.
    Raises ValueError for a device that is not there.
    """
    arguments.choice(name, "device", NAMES)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        built = torch.backends.cuda.is_built()
        why = "torch finds no GPU that it can use" if built else f"torch {torch.__version__} is built without CUDA"
        raise ValueError(f"there is no device cuda here: {why}; give --device cpu, or auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("there is no device mps here: torch finds no GPU of Apple's; give --device cpu, or auto")
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


@contextmanager
def on(device: "str | torch.device", *, together: bool | None = None) -> Iterator["torch.device"]:
    """A context: networks that are made within it stand on this device (torch's, or its name).

    together: whether ensembles are trained with one product for all members; by default on accelerators alone, since a
    CPU is faster member by member.
    """
    if together is not None:
        arguments.flag(together, "together")
    device = torch.device(device)
    tokens = _chosen.set(device), _together.set(together)
    try:
        yield device
    finally:
        _chosen.reset(tokens[0])
        _together.reset(tokens[1])


def chosen() -> "torch.device":
    """The device of the `on` around this call; the CPU where there is none."""
    return _chosen.get() or torch.device("cpu")


def named() -> bool:
    """Whether a device was chosen at all."""
    return _chosen.get() is not None


def only_cpu(what: str) -> None:
    """Raise where a device other than the CPU was chosen, for code that runs on the CPU alone."""
    if chosen().type != "cpu":
        raise ValueError(f"{what} runs on the CPU alone, not on {chosen()}; leave --device out")


def together(device: "torch.device") -> bool:
    """Whether members on this device train with one product for all members."""
    asked = _together.get()
    return device.type != "cpu" if asked is None else asked


def described(device: "torch.device") -> str:
    """The device in words: "cuda:0 (NVIDIA H200, 139 GiB)"."""
    if device.type != "cuda":
        return str(device)
    there = torch.cuda.get_device_properties(device)
    return f"{device} ({there.name}, {there.total_memory / 2**30:.0f} GiB)"


def free_bytes(device: "torch.device") -> int:
    """Memory of the device that this process can still take: free at the driver, or kept unused by torch."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return memory.free_bytes()


def ran_out(error: BaseException) -> str:
    """The needed and the free memory of a device, from torch's error; "" for any other error."""
    told = str(error)
    if type(error).__name__ != "OutOfMemoryError" and "backend out of memory" not in told:
        return ""
    needed = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", told)
    room = re.search(r"capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", told)
    more = f"{needed[1]} more were needed" if needed else "more was needed"
    return f"the device ran out of memory: {more}{f', and {room[2]} of {room[1]} were free' if room else ''}"
