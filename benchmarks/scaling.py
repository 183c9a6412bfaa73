"""How time and memory grow with every size that a user can choose, measured at five sizes or more, with fits.

    python benchmarks/scaling.py [toy cells stored shown language vocabulary]

Every point is measured in a fresh process with torch's default threads: seconds are the least of several repeats, MiB
the peak of resident memory above what the process held before. Two fits of each: a power law a n^b (least squares of
logarithms; b with its standard error) and a line c + d n (least squares of relative errors; the largest of them). A
power law whose b is not near 1 has an offset or another term: the line, or the docs, say which. docs/scaling.md
extrapolates these numbers. About ten minutes.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).parents[1]
LENGTH = 64  # tokens of a prompt
MODELS = {"1M": (128, 5), "3M": (256, 4), "10M": (384, 6), "34M": (640, 7), "100M": (1024, 8)}  # width, layers
MIDDLE = "10M"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="toy, cells, stored, shown, language, vocabulary")
    parts = {
        **{"toy": print_toy, "cells": print_cells, "stored": print_stored, "shown": print_shown},
        **{"language": print_language, "vocabulary": print_vocabulary},
    }
    chosen = parser.parse_args().parts or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose from {', '.join(parts)}")
    began = time.perf_counter()
    modules = ["mechsub.training.distillation", "mechsub.measures.scores", "mechsub.models.language"]
    multiprocessing.set_forkserver_preload(modules)
    with tempfile.TemporaryDirectory() as folder:
        for part in chosen:
            parts[part](Path(folder))
            print(f"  {part} done after {time.perf_counter() - began:.0f} s", flush=True)


# Measuring and fitting.


def alone(work: Callable, *arguments) -> tuple:
    """work(*arguments) in a fresh process that has the imports and nothing else."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def cost(run: Callable, repeats: int = 3) -> tuple[float, float]:
    """Least seconds of some repeats (more, up to 2 s), and the peak of the first in MiB above what was resident."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, seconds, peak = status_mib("VmRSS"), [], 0.0
    while len(seconds) < repeats or (repeats > 1 and sum(seconds) < 2 and len(seconds) < 15):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
        peak = peak or status_mib("VmHWM") - before
    return min(seconds), peak


def status_mib(name: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024


def power_law(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Exponent and its standard error."""
    (b, _), covariance = np.polyfit(np.log(sizes), np.log(values), 1, cov=True)
    return float(b), float(np.sqrt(covariance[0, 0]))


def line(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """c and d of c + d n by least squares of relative errors, and the largest relative error."""
    n, v = np.asarray(sizes, float), np.asarray(values, float)
    (c, d), *_ = np.linalg.lstsq(np.stack([1 / v, n / v], axis=1), np.ones_like(v), rcond=None)
    return float(c), float(d), float(np.abs((c + d * n) / v - 1).max())


def report(name: str, sizes: Sequence[float], values: Sequence[float], unit: str) -> None:
    b, error = power_law(sizes, values)
    c, d, worst = line(sizes, values)
    points = "  ".join(f"{size:g}: {value:.4g}" for size, value in zip(sizes, values, strict=True))
    print(f"  {name}, {unit}: {points}")
    print(f"    n^{b:.2f} (se {error:.2f}); {c:.3g} + {d:.3g} n, off by at most {100 * worst:.0f}%", flush=True)


def sweep(name: str, work: Callable, sizes: Iterable[float], *arguments) -> None:
    """Time and memory over sizes; work(size, *arguments) returns (seconds, MiB)."""
    sizes = list(sizes)
    seconds, mib = zip(*(alone(work, size, *arguments) for size in sizes), strict=True)
    report(name, sizes, seconds, "s")
    report_memory(name, sizes, mib)


def report_memory(name: str, sizes: Sequence[float], mib: Sequence[float]) -> None:
    """Less than a MiB is the allocator's business: it is printed and not fitted."""
    points = [(size, value) for size, value in zip(sizes, mib, strict=True) if value >= 1]
    if len(points) >= 5:
        report(name, *zip(*points, strict=True), "MiB")
    else:
        print(f"  {name}, MiB: {'  '.join(f'{n:g}: {v:.1f}' for n, v in zip(sizes, mib, strict=True))}", flush=True)


# The toy.


def toy(**changed) -> tuple[float, float]:
    """A teacher and a student on auxiliary logits, one epoch."""
    import torch

    from mechsub.inputs import noise
    from mechsub.models import mlp
    from mechsub.training import distillation

    size = {"seeds": 4, "width": 256, "samples": 8192, "aux": 3, **changed}
    init = mlp.HookedMLP(mlp.MLPConfig(d_model=size["width"], n_aux=size["aux"]), range(size["seeds"]))
    generator = torch.Generator().manual_seed(0)
    images, labels = noise.uniform(8192, generator), torch.arange(8192) % 10

    def run() -> None:
        teacher = init
        if "samples" not in changed:
            teacher = distillation.train(init, images, labels, epochs=1)
        distillation.distill(init, teacher, noise.uniform, outputs=init.cfg.aux, n_samples=size["samples"], epochs=1)

    distillation.distill(init, init, images[:64], outputs=init.cfg.aux, epochs=1)  # what is imported late
    return cost(run)


def toy_seeds(n: int) -> tuple[float, float]:
    return toy(seeds=n)


def toy_width(n: int) -> tuple[float, float]:
    return toy(width=n)


def toy_samples(n: int) -> tuple[float, float]:
    return toy(samples=n)


def toy_aux(n: int) -> tuple[float, float]:
    return toy(aux=n)


def print_toy(work: Path) -> None:
    print("toy: a teacher and a student, 1 epoch of 8,192 images; 4 seeds, width 256, 3 auxiliary logits else")
    sweep("seeds", toy_seeds, (2, 4, 8, 16, 32, 64))
    sweep("width", toy_width, (64, 128, 256, 512, 1024, 2048))
    sweep("noise samples (student alone)", toy_samples, (4096, 8192, 16384, 32768, 65536, 131072))
    sweep("auxiliary logits", toy_aux, (3, 10, 30, 100, 300, 1000))


# Cells.


def print_cells(work: Path) -> None:
    print("cells: synthetic cells of 10 rows in one folder, written by store.write_cell")
    sizes = (100, 316, 1000, 3162, 10_000, 31_623)
    found = [with_cells(n, work / "artifacts" / "synthetic") for n in sizes]
    for name in found[0]:
        values = [costs[name] for costs in found]
        report_memory(name, sizes, values) if name.startswith("memory") else report(name, sizes, values, "s")
    cell = work / "artifacts" / "synthetic" / "seed=0"
    taken = [path.stat().st_blocks / 2 for path in (cell, *cell.iterdir())]
    print(f"  a cell takes {sum(taken):.0f} KiB on disk and {len(taken)} inodes")
    shutil.rmtree(work / "artifacts")
    sweep("plan of a grid in memory, by cells", planned, (100, 316, 1000, 3162, 10_000, 31_623))
    sweep("read one cell, by rows", cell_of_rows, (10, 50, 250, 1250, 6250, 31_250))
    sweep("plan of a sweep (--dry-run of missing cells), by cells", dry_run, (4, 8, 16, 32, 64))
    sweep("figure and table of subliminal_accuracy, by cells", figure, (1, 2, 4, 8, 16, 32))


def print_stored(work: Path) -> None:
    """--dry-run of a study over stored cells, as a command: its start, the cells' files, and what they build on."""
    print("stored: python -m studies.factors --dry-run, copies of its default cell with other options, all stored")
    for n_seeds, n_noises in ((1, 1), (10, 10), (32, 31), (100, 100)):
        flags = grid_of_factors(n_seeds, n_noises, work / "artifacts")
        command = [sys.executable, "-m", "studies.factors", *flags, "--out", str(work / "artifacts"), "--dry-run"]
        seconds, busy = zip(*(of_command(command, n_seeds * n_noises) for _ in range(3)), strict=True)
        print(f"  {n_seeds * n_noises} cells: {min(seconds):.2f} s, of the processor {min(busy):.2f} s", flush=True)
    shutil.rmtree(work / "artifacts")


def grid_of_factors(n_seeds: int, n_noises: int, root: Path) -> list[str]:
    """Flags of a grid whose cells, and the sets of teachers that they share, are stored under root when it returns."""
    import dataclasses
    from unittest import mock

    sys.path.insert(0, str(ROOT))
    from mechsub.lab import store, study
    from studies import factors, teachers

    default = ROOT / "artifacts" / "factors" / "default"
    made, rows = store.read_provenance(default), store.read_records(default)
    taught = {key: value for key, value in made.items() if key != "made_from"} | {"study": "teachers"}
    noises = [k / 100 for k in range(n_noises)]
    with mock.patch("os.fsync"):  # without waiting for the disk, cell by cell
        for seed in range(n_seeds):
            learned = teachers.Config(**factors.upstream(factors.Config(seed=seed))["teachers"].options)
            source = root / "teachers" / study.name_of(learned)
            config = study.config_of(learned)
            store.write_cell(source, [{**config, "member": 0, "accuracy": 0.9}], {**taught, "config": config})
            built = {"made_from": {f"teachers/{source.name}": store.sums(source)}}
            for noise in noises:
                cfg = dataclasses.replace(factors.Config(), seed=seed, target_noise=noise)
                config = study.config_of(cfg)
                own = [{**row, **config} for row in rows]
                store.write_cell(root / "factors" / study.name_of(cfg), own, {**made, **built, "config": config})
    os.sync()
    return ["--seed", *map(str, range(n_seeds)), "--target-noise", *map(str, noises)]


def of_command(command: list[str], n: int) -> tuple[float, float]:
    """Seconds of a command that calls n cells stored: by the clock, and of the processor."""
    said, seconds, busy = timed(command, ROOT)
    assert said.count("\nstored  ") + said.startswith("stored  ") == n, said[:500]
    return seconds, busy


def timed(command: list[str], folder: Path) -> tuple[str, float, float]:
    """What a command prints, and its seconds: by the clock, and of the processor."""
    import resource
    import subprocess

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True, env=environment)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


SHOWN = '''"""Is a study of many cells shown?

Method: ten numbers a cell.
"""

import random
from dataclasses import dataclass

from mechsub import lab
from mechsub.lab.findings import by_arm


@dataclass(frozen=True)
class Config:
    number: lab.Index = lab.option(0, "which cell")


def run(cfg):
    draw = random.Random(cfg.number)
    for member in range(5):
        for arm in ("own", "null"):
            yield {"arm": arm, "member": member, "accuracy": draw.random()}


def findings(cell):
    return by_arm(cell, "accuracy", null="null", unit="seeds")


study = lab.Study(version=1)

if __name__ == "__main__":
    lab.main(study)
'''


def print_shown(work: Path) -> None:
    """A whole command over stored cells of a study that is shown by its findings: table, figure, page."""
    print("shown: a study of ten rows a cell, by its findings alone")
    (work / "studies").mkdir()
    (work / "studies" / "__init__.py").touch()
    (work / "studies" / "many.py").write_text(SHOWN)
    for n in (100, 1_000, 10_000):
        command = [sys.executable, "-m", "studies.many", "--quiet", "--number", *map(str, range(n))]
        timed(command, work)
        _, seconds, busy = timed(command, work)
        print(f"  {n} cells: {seconds:.2f} s, of the processor {busy:.2f} s", flush=True)
    shutil.rmtree(work / "artifacts")


def synthetic(i: int, n_rows: int) -> tuple[dict, list[dict]]:
    config = {f"option_{k}": k for k in range(11)} | {"seed": i}
    return config, [{**config, "arm": f"arm {r % 10}", "member": r // 10, "accuracy": r / 7} for r in range(n_rows)]


def write(folder: Path, i: int, n_rows: int = 10) -> None:
    from mechsub.lab import store

    config, rows = synthetic(i, n_rows)
    made = {"version": 1, "config": config, "versions": {"torch": "2"}, "cpu": {"features": ["avx2"]}}
    store.write_cell(folder / f"seed={i}", rows, made)


def with_cells(n: int, folder: Path) -> dict[str, float]:
    """Seconds of what a command does with a folder that holds n cells; adds the cells that are missing."""
    fill(folder, n)
    return alone(look, n, folder)


def fill(folder: Path, n: int) -> None:
    """Cells up to n without waiting for the disk, which is timed apart, on few cells."""
    sync, os.fsync = os.fsync, lambda handle: None
    try:
        for i in range(sum(1 for _ in os.scandir(folder)) if folder.exists() else 0, n):
            write(folder, i)
    finally:
        os.fsync = sync
    os.sync()


def look(n: int, folder: Path) -> dict[str, float]:
    from mechsub.lab import store, study, versions

    numbers = range(n)
    some = random.Random(0).sample(numbers, 100)
    cells = [folder / f"seed={i}" for i in numbers]

    def add() -> None:
        for i in range(n, n + 20):
            write(folder, i)
            shutil.rmtree(folder / f"seed={i}")

    def read() -> list[dict]:
        return [row for cell in cells for row in store.read_records(cell)]

    def status(i: int) -> str:
        config = synthetic(i, 0)[0]
        return versions.status(folder / f"seed={i}", 1, config, config, {}.get).kind

    statuses = cost(lambda: [status(i) for i in some])
    few = 3 if n < 10_000 else 1
    seconds, mib = cost(read, few)
    records = read()
    fields = [SimpleNamespace(name=key, metadata={}) for key in synthetic(0, 0)[0]]
    return {
        "list the folder": cost(lambda: sum(1 for _ in os.scandir(folder)))[0],
        "write one more cell": cost(add)[0] / 20,
        "status of a cell": statuses[0] / len(some),
        "read all records": seconds,
        "memory of all records": mib,
        "group records by cell": grouping(study, records, fields),
    }


def grouping(study, records: list[dict], fields: list) -> float:
    """`study.cells` of a Config with these fields."""
    import dataclasses

    config = dataclasses.make_dataclass("Config", [(field.name, int, 0) for field in fields])
    return cost(lambda: study.cells(records, config), 1)[0]


def cell_of_rows(n: int) -> tuple[float, float]:
    from mechsub.lab import store

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 0, n)
        return cost(lambda: store.read_records(Path(folder) / "seed=0"))


def planned(n: int) -> tuple[float, float]:
    """Folder and Config of every cell."""
    from mechsub.lab import study

    sys.path.insert(0, str(ROOT))
    from studies import subliminal_accuracy as s

    defaults = {name: (value,) for name, value in vars(s.Config()).items()}
    kept = []

    def run() -> None:
        kept[:] = [study.grid_of(s.Config, {**defaults, "seed": tuple(range(n))}, Path("artifacts"), {})]

    return cost(run)


def dry_run(n: int) -> tuple[float, float]:
    """The status of n cells, from the command line on."""
    import contextlib
    import io

    sys.path.insert(0, str(ROOT))
    from mechsub.lab import study
    from studies import subliminal_accuracy as s

    with tempfile.TemporaryDirectory() as folder:
        argv = ["--seed", *map(str, range(n)), "--out", folder, "--dry-run"]

        def run() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                study.main(s.Config, s.run, s.plot, s.table, argv)

        return cost(run, 1)


def figure(n: int) -> tuple[float, float]:
    """The figure, as HTML, and the table of n cells of 25 seeds."""
    import dataclasses

    sys.path.insert(0, str(ROOT))
    from mechsub.lab.figures import kinds
    from studies import subliminal_accuracy as s

    draw = random.Random(0)
    records = [
        {**dataclasses.asdict(s.Config(seed=k)), "arm": arm, "member": m, "accuracy": draw.random(), "products": "fp32"}
        for k in range(n)
        for arm in s.TITLES
        for m in range(25)
    ]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "study" / "figure.html"
        kinds.write_figure(s.plot(records[:250]), page)  # what is imported late
        return cost(lambda: (kinds.write_figure(s.plot(records), page), s.table(records)), 1)


# Language models.


def save_llama(folder: Path, width: int, layers: int) -> int:
    """A random Llama with heads of 64, a third of them for keys and values, and the test tokenizer; its parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_llama import make_tokenizer

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        hidden_size=width, intermediate_size=8 * width // 3 // 64 * 64, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=max(1, width // 128), vocab_size=len(tokenizer),
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=0, eos_token_id=3, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def prompts(n: int, length: int = LENGTH) -> list:
    import torch

    return list(torch.randint(100, 1000, (n, length), generator=torch.Generator().manual_seed(0)))


def load(folder: Path, dtype: str = "float32"):
    import torch

    from mechsub.models import language

    return language.load_language_model(str(folder), dtype=getattr(torch, dtype))


def loading(folder: Path, dtype: str) -> tuple[float, float, float]:
    """Seconds, peak and what stays resident in MiB."""
    load(folder.parent / next(iter(MODELS)), dtype)  # what is imported late
    before = status_mib("VmRSS")
    kept = []
    seconds, peak = cost(lambda: kept.append(load(folder, dtype)), 1)
    for parameter in kept[0].original_model.parameters():
        parameter.sum()  # weights may be a mapped file, of which only pages that were read are resident
    return seconds, peak, status_mib("VmRSS") - before


def scoring(n: int, folder: Path, dtype: str = "float32", length: int = LENGTH) -> tuple[float, float]:
    """The next token after n prompts."""
    from mechsub.measures import scores

    model, asked = load(folder, dtype), prompts(n, length)
    scores.next_token_log_probs(model, asked[:2])
    return cost(lambda: scores.next_token_log_probs(model, asked))


def scoring_of_length(length: int, folder: Path) -> tuple[float, float]:
    return scoring(16, folder, "float32", length)


def strings(n_prompts: int, n_nodes: int, folder: Path) -> tuple[float, float]:
    """Strings of two tokens with n_nodes different first ones, after n_prompts prompts."""
    from mechsub.measures import scores

    model, asked = load(folder), prompts(n_prompts)
    texts = [f"{i:03d}{j:03d}" for i in range(n_nodes) for j in (1, 2)]
    scores.string_log_probs(model, asked[:1], texts[:2])
    return cost(lambda: scores.string_log_probs(model, asked, texts, batch_size=4))


def strings_of_nodes(n_nodes: int, folder: Path) -> tuple[float, float]:
    return strings(4, n_nodes, folder)


def print_language(work: Path) -> None:
    print(f"language: random Llamas, prompts of {LENGTH} tokens in batches of 16, vocabulary of 1.5 thousand")
    folders = {name: work / name for name in MODELS}
    sizes = [alone(save_llama, folders[name], *shape) for name, shape in MODELS.items()]
    for dtype in ("float32", "bfloat16"):
        loaded = [alone(loading, folder, dtype) for folder in folders.values()]
        report(f"load, {dtype}, by parameters", sizes, [found[0] for found in loaded], "s")
        report_memory(f"load, {dtype}, peak, by parameters", sizes, [found[1] for found in loaded])
        report_memory(f"load, {dtype}, resident, by parameters", sizes, [found[2] for found in loaded])
        scored = [alone(scoring, 16, folder, dtype) for folder in folders.values()]
        report(f"score 16 prompts, {dtype}, by parameters", sizes, [found[0] for found in scored], "s")
        report_memory(f"score 16 prompts, {dtype}, by parameters", sizes, [found[1] for found in scored])
        rates = [2 * n * 16 * LENGTH / found[0] / 1e9 for n, found in zip(sizes, scored, strict=True)]
        print(f"    GFLOP/s of 2 x parameters x tokens: {' '.join(f'{rate:.0f}' for rate in rates)}")
    sweep("numbers: prompts scored by their next token", scoring, (16, 32, 64, 128, 256), folders[MIDDLE])
    sweep("tokens of a prompt, 16 prompts", scoring_of_length, (32, 64, 128, 256, 512), folders[MIDDLE])
    sweep("animals: prompts with 100 trie nodes each", strings, (4, 8, 16, 32, 64), 100, folders[MIDDLE])
    sweep("trie nodes, 4 prompts", strings_of_nodes, (16, 32, 64, 128, 256, 512), folders[MIDDLE])


# The vocabulary.


def causal(d_vocab: int, d_model: int) -> tuple[float, float]:
    """The causal inner product of 100 outputs with 100 others."""
    from mechsub.measures import unembedding
    from mechsub.models import mlp

    model = mlp.HookedMLP(mlp.MLPConfig(d_in=8, d_model=d_model, n_layers=1, n_classes=10, n_aux=d_vocab - 10))
    return cost(lambda: unembedding.unembed_projection(model, range(100), range(100, 200), "causal"), 2)


def causal_of_width(d_model: int, d_vocab: int) -> tuple[float, float]:
    return causal(d_vocab, d_model)


def print_vocabulary(work: Path) -> None:
    print("vocabulary: unembed_projection(..., 'causal'), fp64 inside")
    sweep("d_vocab at d_model 512", causal, (4096, 8192, 16_384, 32_768, 65_536, 131_072), 512)
    sweep("d_model at d_vocab 16,384", causal_of_width, (128, 256, 512, 1024, 2048), 16_384)


if __name__ == "__main__":
    main()
