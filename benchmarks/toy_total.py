"""What the stored cells of the toy cost, by their own provenance, what shared teachers saved, what a rerun would take.

    python benchmarks/toy_total.py [--sample [STUDY ...]]

Seconds are those that each cell took when it was made, on the processor that its provenance names, beside whatever
else ran there. A set of teachers is trained once for all cells that learn from it (`studies.teachers`, addressed by
content); what the other cells would have spent is counted at the seconds of one training of 25 published teachers here.

--sample remakes one cell of every study, that of the middle cost, from an empty store, as `--workers` does: one process
a core, one thread each. A study's cells are then taken to cost now what they cost then, times the ratio of its sampled
cell. With names, those studies alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

TOY = (
    *("subliminal_accuracy", "hidden_alignment", "factors", "input_distributions", "mechanism", "conditions"),
    *("channel", "pretrained", "recipe_search", "maximise", "more_classes", "next_token"),
)


def main(sample: list[str] | None) -> None:
    cells = {name: _cells(Path("artifacts") / name) for name in TOY}
    for name, made in cells.items():
        print(f"{name:22} {len(made):4} cells {sum(one['seconds'] for one in made.values()):8.0f} s")
    total = sum(one["seconds"] for made in cells.values() for one in made.values())
    print(f"{'all':22} {'':4}       {total:8.0f} s = {total / 3600:.1f} hours")
    uses = Counter(
        source
        for made in cells.values()
        for one in made.values()
        for source in one.get("made_from", {})
        if source.startswith("teachers/")
    )
    n, again = sum(uses.values()), sum(uses.values()) - len(uses)
    print(f"{n} cells learned from {len(uses)} sets of teachers: {again} times {_training():.0f} s saved")
    if sample is not None:
        _sample({name: cells[name] for name in sample or TOY})


def _cells(folder: Path) -> dict[str, dict]:
    """Name -> provenance of a study's cells of the toy."""
    made = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/provenance.json"))}
    return {name: one for name, one in made.items() if str(one["config"].get("model", "toy")) == "toy"}


def _sample(cells: dict[str, dict[str, dict]]) -> None:
    """Remake the cell of middle cost of every study, dearest first, and scale the study's sum by what it took."""
    chosen = {}
    for name, made in cells.items():
        order = sorted(made, key=lambda cell: made[cell]["seconds"])
        chosen[name] = order[len(order) // 2]
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor(workers) as pool:
        order = sorted(chosen, key=lambda name: -cells[name][chosen[name]]["seconds"])
        started = time.perf_counter()
        took = dict(zip(order, pool.map(lambda name: _remade(name, chosen[name], out), order), strict=True))
        wall = time.perf_counter() - started
    estimate = 0.0
    for name, made in cells.items():
        then = made[chosen[name]]["seconds"]
        now = sum(one["seconds"] for one in made.values()) * took[name] / then
        estimate += now
        print(f"{name:22} {chosen[name]}: {then:.0f} s then, {took[name]:.0f} s now; all of the study {now:.0f} s")
    print(f"sampled cells: {sum(took.values()):.0f} s of {workers} processes in {wall:.0f} s")
    hours = estimate / workers / 3600
    print(f"all their cells: {estimate:.0f} s of one process, {hours:.1f} hours with --workers {workers}")


def _remade(name: str, cell: str, out: str) -> float:
    """Seconds of a command that makes one cell, and the teachers that it is the first to ask for."""
    pairs = [] if cell == "default" else [part.partition("=")[::2] for part in cell.split("__")]
    flags = [word for key, value in pairs for word in (f"--{key.replace('_', '-')}", unquote(value))]
    command = [sys.executable, "-m", f"studies.{name}", *flags, "--out", out, "--quiet"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])}: {done.stderr.strip().splitlines()[-1]}")
    print(f"  {name} {cell}: {time.perf_counter() - started:.0f} s", flush=True)
    return time.perf_counter() - started


def _training() -> float:
    import mechsub as ms

    images, labels = ms.mnist("train")
    started = time.perf_counter()
    ms.train(ms.HookedMLP(seeds=range(25)), images, labels)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample", nargs="*", choices=TOY, metavar="STUDY", help="remake a cell of these, or all, studies"
    )
    main(parser.parse_args().sample)
