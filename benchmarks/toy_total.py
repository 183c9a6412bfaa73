"""What the stored cells of the toy cost, by their own provenance, what shared teachers saved, what a rerun would take.

    python benchmarks/toy_total.py [--whole FOLDER]

Seconds are those that each cell took when it was made, on the processor that its provenance names, beside whatever
else ran there. A set of teachers is trained once for all cells that learn from it (`studies.teachers`, addressed by
content); what the other cells would have spent is counted at the seconds of one training of 25 published teachers here.

--whole makes all of them again under FOLDER, as `--workers` does: one process a core, one thread each. What all of them
would take is said, with an interval, from the first ones on, which are a random sample; stopped, the same command goes
on.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

from scipy import stats

TOY = (
    *("subliminal_accuracy", "hidden_alignment", "factors", "input_distributions", "mechanism", "conditions"),
    *("channel", "pretrained", "recipe_search", "maximise", "more_classes", "next_token"),
)

SCORES = ("accuracy", "trait", "preference")


def main(whole: str | None) -> None:
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
    if whole:
        _whole(cells, whole)


def _cells(folder: Path) -> dict[str, dict]:
    """Name -> provenance of a study's cells of the toy."""
    made = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/provenance.json"))}
    return {name: one for name, one in made.items() if str(one["config"].get("model", "toy")) == "toy"}


def _own(made: dict[str, dict[str, dict]]) -> dict[tuple[str, str], float]:
    """Seconds of every cell, less those of stored cells that were made within it because it builds on them."""

    def end(one: dict) -> float:
        return datetime.fromisoformat(one["created"]).timestamp()

    own = {}
    for study, cells in made.items():
        for name, one in cells.items():
            inner = [made.get(s, {}).get(n) for s, n in (source.split("/", 1) for source in one.get("made_from", {}))]
            within = [part for part in inner if part and end(one) - one["seconds"] <= end(part) <= end(one)]
            own[study, name] = one["seconds"] - sum(part["seconds"] for part in within)
    return own


def _whole(stored: dict[str, dict[str, dict]], out: str) -> None:
    """Make the cells under `out` that are missing there, and say what all of them take. Killed, it goes on."""
    then, workers = _own(stored), os.cpu_count() or 1
    log = Path(out) / "toy_total.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    took = {tuple(line["cell"]): line["seconds"] for line in map(json.loads, log.read_text().splitlines())}
    left = [cell for cell in _ordered(stored) if cell not in took]
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool, log.open("a") as lines:
        for future in as_completed([pool.submit(_remade, *cell, out) for cell in left]):
            cell, seconds = future.result()
            took[cell] = seconds
            print(json.dumps({"cell": cell, "seconds": round(seconds, 1)}), file=lines, flush=True)
            told = f"{then[cell]:.0f} s then, {seconds:.0f} s now; {_projected(then, took, workers)}"
            print(f"{' '.join(cell)}: {told}", flush=True)
    differing = {f"{study} {name}": away for study, name in took if (away := _difference(study, name, out))}
    print(f"cells whose scores are not to the last bit those stored: {differing or 'none'}")
    print(f"{len(left)} cells in {(time.perf_counter() - started) / 3600:.2f} hours, {workers} processes")


def _ordered(stored: dict[str, dict[str, dict]]) -> list[tuple[str, str]]:
    """All cells in a random order that is always the same; what a cell builds on comes well before it.

    So the first cells are a sample of all, no process waits for a cell that another is making, and a command makes one
    cell (and the teachers that it is the first to ask for).
    """
    generator = random.Random(0)
    place = {(study, name): generator.random() for study, made in stored.items() for name in made}

    def after(cell: tuple[str, str]) -> float:
        sources = [tuple(source.split("/", 1)) for source in stored[cell[0]][cell[1]].get("made_from", {})]
        return max([place[cell], *(after(source) + 0.1 for source in sources if source in place)])

    return sorted(place, key=after)


def _projected(then: dict, took: dict, workers: int) -> str:
    """Hours of all cells: those made, and the others at the ratio of now to then, with its 95% interval.

    Made cells are the first of a drawn order, so a sample; the ratio's error is that of a ratio estimator over n of N
    cells (Cochran, Sampling Techniques, section 6.4), with Student-t on n - 1 degrees of freedom.
    """
    n, done = len(took), sum(took.values())
    left = sum(seconds for cell, seconds in then.items() if cell not in took)
    ratio = done / sum(then[cell] for cell in took)
    text = f"{n} of {len(then)} cells, {done:.0f} s"
    if n < 10 or not left:
        return text
    residual = sum((took[cell] - ratio * then[cell]) ** 2 for cell in took) / (n - 1)
    error = stats.t.ppf(0.975, n - 1) * (residual / n) ** 0.5 / (sum(then[cell] for cell in took) / n) * left
    low, high = ((done + ratio * left + sign * error) / workers / 3600 for sign in (-1, 1))
    return f"{text}; all {(done + ratio * left) / workers / 3600:.2f} [{low:.2f}, {high:.2f}] hours"


def _difference(study: str, name: str, out: str) -> float:
    """Largest difference of a score (0 where a cell has none) between a stored cell's records and those made again."""
    stored, again = (
        [json.loads(line) for line in (Path(root) / study / name / "records.jsonl").read_text().splitlines()]
        for root in ("artifacts", out)
    )
    rows = list(zip(stored, again, strict=True))
    return max((abs(was[score] - row[score]) for was, row in rows for score in SCORES if score in was), default=0.0)


def _remade(study: str, name: str, out: str) -> tuple[tuple[str, str], float]:
    """Seconds of a command, of one thread, that makes one cell."""
    pairs = [] if name == "default" else [part.partition("=")[::2] for part in name.split("__")]
    flags = [word for key, value in pairs for word in (f"--{key.replace('_', '-')}", unquote(value))]
    command = [sys.executable, "-m", f"studies.{study}", *flags, "--out", out, "--quiet"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])}: {done.stderr.strip().splitlines()[-1]}")
    return (study, name), time.perf_counter() - started


def _training() -> float:
    import mechsub as ms

    images, labels = ms.mnist("train")
    started = time.perf_counter()
    ms.train(ms.HookedMLP(seeds=range(25)), images, labels)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", metavar="FOLDER", help="make all cells of the toy again, there")
    main(parser.parse_args().whole)
