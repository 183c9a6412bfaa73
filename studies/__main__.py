"""The studies, each with its question, how many of its cells are stored, and how long the usual one of them took.

python -m studies
"""

import argparse
import contextlib
import importlib
import inspect
import shlex
import statistics
import textwrap
from pathlib import Path

from mechsub.lab import finder, store, terminal


def _question(study: str) -> str:
    """The first sentence of its docstring."""
    text = inspect.getdoc(importlib.import_module(f"{finder.PACKAGE}.{study}")) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _minutes(folder: Path) -> list[float]:
    """What every stored cell took."""
    times = []
    for cell in store.complete_cells(folder):
        with contextlib.suppress(store.DamagedCell):
            times.append((store.read_provenance(cell) or {}).get("seconds", 0) / 60)
    return times


@terminal.command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", default=store.USUAL, help="folder of the stored cells")
    out = parser.parse_args(argv).out
    print(f"{'study':22}{'cells':>6}{'minutes a cell':>16}  question")
    for study in finder.all_names():
        times = _minutes(Path(out) / study)
        usual = f"{statistics.median(times):.1f}" if times else ""
        lines = textwrap.wrap(_question(study), 72)
        print(f"{study:22}{len(times):6}{usual:>16}  {lines[0]}")
        print(*(f"{'':46}{line}" for line in lines[1:]), sep="\n", end="\n" if lines[1:] else "")
    print("\nA study: python -m studies.NAME; --help says its method and options. Times are those of the stored cells.")
    there = finder.results_elsewhere(out)
    if there is not None and any(store.complete_cells(there / study) for study in finder.all_names()):
        print(f"There is no {out} in this folder; --out {shlex.quote(str(there))} has stored cells.")


if __name__ == "__main__":
    main()
