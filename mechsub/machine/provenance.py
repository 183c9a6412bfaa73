"""Machine, versions and commit that made a cell: a reader needs them to judge a difference in numbers."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from mechsub.machine import devices

PACKAGES = ("mechsub", "torch", "transformer-lens", "numpy")
CPU_FEATURES = {"avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "sve"}


def environment(folder: Path) -> dict:
    """The commit of the code in a folder, the versions and the machine."""
    return {"git": git_state(folder), "versions": versions(), **_torch_state(), "cpu": cpu()}


def git_state(folder: Path) -> dict | None:
    """Commit of the checkout that holds the source, and whether its code was changed since; None outside git."""
    commit = _git(folder, "rev-parse", "HEAD")
    # An environment inside a checkout of something else is ignored by it, and is no part of its commit.
    if commit is None or _git(folder, "check-ignore", "--quiet", ".") is not None:
        return None
    # Results are written into the same checkout, so only changed code makes it dirty.
    changed = _git(folder, "status", "--porcelain", "--", ":/*.py", ":/pyproject.toml")
    return {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str | None]:
    from importlib import metadata

    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = getattr(sys.modules.get(name), "__version__", None)
    return found


def _torch_state() -> dict:
    """Torch's device and threads, if the run used torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"device": "cpu", "threads": os.cpu_count()}
    return {**_device(torch), "threads": torch.get_num_threads()}


def _device(torch: ModuleType) -> dict:
    """The device that a command chose; else the GPU where it was used, and the CPU where it was not."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {"device": devices.described(devices.chosen())}
    place = devices.chosen() if devices.named() else torch.device("cuda", torch.cuda.current_device())
    peak = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return {"device": devices.described(place), "peak_device_memory_mb": peak}


@cache
def cpu() -> dict:
    """Model and the features that change numbers or speed of bfloat16 (from Linux; empty elsewhere)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {"model": fields.get("model name"), "features": sorted(CPU_FEATURES.intersection(flags))}


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
