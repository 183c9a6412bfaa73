"""Does a process that runs a thousand cells grow?

    python benchmarks/soak.py [--cells 1000]

Each cell is one `study.main`: read flags, train a tiny student by distillation, store records and tensors, write the
figure, print the table. After every cell this process's resident memory, open files and threads are read from /proc
(Linux), and what malloc has given out (glibc) and the number of Python objects, which tell a leak from free memory that
the allocator keeps. Printed: slopes after warm-up (least squares, with standard errors), growth within each tenth,
every number of open files and threads seen, and what the garbage collector still finds at the end: Python collects
its oldest generation only when a quarter as many objects wait as live, so cycles pile up to that bound, not beyond.
Goal: less than 1 MB resident per 100 cells.
"""

import argparse
import contextlib
import ctypes
import gc
import io
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mechsub.lab import study

WARM_UP = 0.2  # share of the cells that is not fitted: caches, thread pools and the allocator's arenas fill


@dataclass(frozen=True)
class Config:
    seed: study.Index = study.option(0, "first seed")
    d_model: study.Count = study.option(16, "neurons of a hidden layer")


def run(cfg: Config) -> Iterator[dict]:
    import torch

    from mechsub.measures import similarity
    from mechsub.models import mlp
    from mechsub.models.hooked import cache_activations
    from mechsub.training import distillation

    init = mlp.HookedMLP(mlp.MLPConfig(d_in=32, d_model=cfg.d_model), (cfg.seed, cfg.seed + 1))
    x = torch.randn(512, 32, generator=torch.Generator().manual_seed(cfg.seed))
    teacher = distillation.train(init, x, torch.arange(512) % 10, epochs=1, batch_size=128)
    student = distillation.distill(init, teacher, x, outputs=init.cfg.aux, epochs=1, batch_size=128)
    caches = [cache_activations(model, x) for model in (student, teacher)]
    for name, values in similarity.hidden_alignment(*caches).items():
        for member, value in zip(init.seeds, values.tolist(), strict=True):
            yield {"layer": name, "member": member, "cka": value}
    yield {"tensors": {"W_U": student.W_U}}


def plot(records: list[dict]):
    from mechsub.lab.figures import kinds as figures

    return figures.interval_bars(
        records, value="cka", label="layer", facet=None, title="Soak", axis="debiased CKA", caption="", null=0.0
    )


def table(records: list[dict]) -> list[dict]:
    return [{"layer": record["layer"], "cka": record["cka"]} for record in records]


# The process that runs it.


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def n_threads() -> int:
    return int(Path("/proc/self/status").read_text().split("Threads:")[1].split()[0])


def allocated_mb() -> float:
    """What malloc has given out and not got back: grows with a leak, and not with free memory that is kept."""
    sizes = type("MallInfo2", (ctypes.Structure,), {"_fields_": [(f"f{i}", ctypes.c_size_t) for i in range(10)]})
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = sizes
    found = mallinfo()
    return (found.f4 + found.f7) / 1e6  # hblkhd: mapped apart; uordblks: in the arenas


def soak(n_cells: int, out: Path) -> list[tuple[float, float, int, int, int]]:
    """Resident and allocated MB, Python objects, open files and threads after every cell."""
    seen = []
    for seed in range(n_cells):
        with contextlib.redirect_stdout(io.StringIO()):
            study.main(Config, run, plot, table, ["--seed", str(seed), "--out", str(out)])
        files = len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them
        seen.append((resident_mb(), allocated_mb(), len(gc.get_objects()), files, n_threads()))
    return seen


def slope(values: list[float]) -> tuple[float, float]:
    """Least-squares slope per 100 values, and its standard error (which takes residuals as independent)."""
    import numpy as np

    x = np.arange(len(values)) / 100
    (rate, _), covariance = np.polyfit(x, values, 1, cov=True)
    return float(rate), float(np.sqrt(covariance[0, 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    n = parser.parse_args().cells
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        seen = soak(n, Path(folder))
        seconds = time.perf_counter() - began
        stored = sum(1 for _ in Path(folder).glob("*/*/provenance.json"))
    memory, allocated, objects, files, threads = (list(column) for column in zip(*seen, strict=True))
    warm = round(WARM_UP * n)
    print(f"{stored} cells stored in {seconds:.0f} s, {1e3 * seconds / n:.0f} ms each")
    print(f"resident MB: {memory[0]:.1f} after cell 1, {memory[warm]:.1f} after {warm + 1}, {memory[-1]:.1f} after {n}")
    for name, values in (("MB resident", memory), ("MB allocated", allocated), ("Python objects", objects)):
        rate, error = slope(values[warm:])
        print(f"slope after {warm} cells: {rate:+.3f} {name} per 100 cells (standard error {error:.3f})")
    edges = [round(n * k / 10) for k in range(11)]
    grown = [memory[b - 1] - memory[a] for a, b in itertools.pairwise(edges)]
    print("within each tenth:", " ".join(f"{mb:+.2f}" for mb in grown), "MB")
    print(f"open files seen: {sorted(set(files[warm:]))}; threads seen: {sorted(set(threads[warm:]))}")
    gc.collect()
    freed, fewer = allocated[-1] - allocated_mb(), objects[-1] - len(gc.get_objects())
    print(f"a full collection frees {fewer} of {objects[-1]} objects and {freed:.2f} MB")


if __name__ == "__main__":
    main()
