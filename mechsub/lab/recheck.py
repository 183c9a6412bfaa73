"""Stored cells drawn at random, made again elsewhere and compared: what share of a store can be wrong?

    python -m mechsub recheck [--share 0.05] [--studies NAME ...] [--workers N] [--store artifacts]
    python -m mechsub recheck --all

The share of every study, at least one cell, is drawn; the seed of the draw is the number of draws in the ledger. Cells
are made again in `<store>/.recheck`, by processes of one thread; their upstream cells come from the store where they
are stored. Each cell is compared row by row and tensor by tensor, and gets a line in the ledger,
`<store>/rechecks.jsonl`. After a kill, the same command goes on with the same draw; what it had made and not yet
compared is made anew, because it may be half, or of other code.
"""

import contextlib
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mechsub import files
from mechsub.lab import cells, finder, lease, remaking, store, versions
from mechsub.machine import provenance

LEDGER, SCRATCH, PLAN = "rechecks.jsonl", ".recheck", "plan.json"
FIELDS = {"draw": int, "study": str, "cell": str, "same": bool, "stored": dict, "apart": dict}  # read of a line
LEVEL = 0.95
ROUNDING = 1e-9  # sums of fp64 in another order; fp32, another seed or a term more differ by far more

Cell = tuple[str, str]  # study, name


class Result(NamedTuple):
    """How many of all cells were made again, which differ, and the 95% upper limit of the share that differs.

    rounded: lines of cells whose numbers differ by ROUNDING at most, as by another order of a sum; they do not count in
    `differing`, nor in the share. elsewhere: cells made on an accelerator, which are never drawn.
    """

    drawn: int
    population: int
    differing: list[dict]
    rounded: list[dict]
    upper: float
    elsewhere: int

    def __str__(self) -> str:
        same = self.drawn - len(self.differing) - len(self.rounded)
        return (
            f"{self.drawn} of {self.population} cells were drawn and made again: {same} came out the same to the last "
            f"bit, {len(self.rounded)} apart by rounding (at most {ROUNDING:g}), {len(self.differing)} otherwise; at "
            f"95% at most {self.upper:.1%} of all that were made on the CPU would"
            + (f"; {self.elsewhere} cells were made on an accelerator, and are not drawn" if self.elsewhere else "")
        )


def recheck(root: Path, share: float, names: Iterable[str], workers: int) -> Iterator[dict]:
    """Draw cells, or go on with an unfinished draw; yields the ledger's line of each cell as it is done.

    share: of every study's cells, 1 for all. names: of studies; empty for all studies of the store.
    Raises ValueError where another draw is unfinished, where another process rechecks, and for a damaged ledger.
    """
    ledger(root)
    scratch = root / SCRATCH
    scratch.mkdir(exist_ok=True)
    try:
        with lease.hold(scratch / "draw", wait=False) as check:
            plan = _plan(root, share, sorted(set(names)))
            done = {(line["study"], line["cell"]) for line in ledger(root) if line["draw"] == plan["draw"]}
            left = [cell for cell in plan["cells"] if cell not in done]
            for path in (path for path in scratch.iterdir() if path.is_dir()):
                shutil.rmtree(path, ignore_errors=True)
            tasks = {_task(root, cell): cell for cell in left}
            for made in remaking.make_all(tasks, workers):
                line = _line(root, plan, made)
                check()
                _append(root, line)
                yield line
    except lease.Lost:
        raise ValueError(f"another process makes cells of {root} again; wait for it") from None
    finally:
        with contextlib.suppress(OSError):  # empty where nothing was drawn
            scratch.rmdir()
    shutil.rmtree(scratch)


def ledger(root: Path) -> list[dict]:
    """All lines of the ledger. Raises ValueError for a line that this module did not write."""
    path = root / LEDGER
    lines: list[dict] = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{path} cannot be read; mend it, or restore the file") from None
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            whole = all(type(line[key]) is kind for key, kind in FIELDS.items())
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise ValueError(f"{path}, line {number}, is no line of a ledger; mend it, or restore the file")
        lines.append(line)
    return lines


def result(root: Path) -> Result | None:
    """The ledger's result for the store of today; None where no cell of the store was made again.

    Lines of all draws count, if the stored cell is unchanged since. The union of several draws of a study is a random
    sample of its cells too.
    """
    known = ledger(root)
    if not known:
        return None
    current, elsewhere = current_cells(root, {line["study"] for line in known})
    lines = {
        (line["study"], line["cell"]): line
        for line in known
        if (line["study"], line["cell"]) in current
        and line["stored"] == store.sums(root / line["study"] / line["cell"])
    }
    if not lines:
        return None
    drawn = _counts(lines)
    population = {name: n for name, n in _counts(current).items() if name in drawn}
    apart = [line for line in lines.values() if not line["same"]]
    differing = [line for line in apart if not by_rounding(line)]
    rounded = [line for line in apart if by_rounding(line)]
    bound = upper_share(population, drawn, len(differing))
    others = sum(name in drawn for name, _ in elsewhere)
    return Result(len(lines), sum(population.values()), differing, rounded, bound, others)


def by_rounding(line: Mapping) -> bool:
    """Whether all numbers of a remade cell differ by ROUNDING at most."""
    values = line["apart"].values()
    return all(isinstance(value, int | float) and not isinstance(value, bool) and value <= ROUNDING for value in values)


def upper_share(population: Mapping[str, int], drawn: Mapping[str, int], differing: int, level: float = LEVEL) -> float:
    """The largest share of wrong cells at which so few differing cells still have a probability of 1 - level.

    Every cell is drawn with the probability of its study, drawn / population. The bound assumes that wrong cells lie in
    the studies of the smallest probability, where they are hardest to find, and that draws are independent. Both
    assumptions make the bound wider, so it holds for any spread of wrong cells over the studies.
    """
    chances = sorted(drawn[name] / n for name, n in population.items() for _ in range(n))
    missed = [1.0]  # missed[k]: probability that k of the wrong cells so far were drawn
    wrong = 0
    for chance in chances:
        missed = [
            (missed[k] if k < len(missed) else 0.0) * (1 - chance) + (missed[k - 1] * chance if k else 0.0)
            for k in range(min(len(missed), differing) + 1)
        ]
        if sum(missed) < 1 - level:
            break
        wrong += 1
    return min(1.0, (wrong + 1) / len(chances))


# The draw.


def _plan(root: Path, share: float, names: list[str]) -> dict:
    """The unfinished draw, if it has the same share and studies; else a new draw."""
    path = root / SCRATCH / PLAN
    lines = ledger(root)
    if path.is_file():
        plan = _read_plan(path)
        if (plan["share"], plan["studies"]) != (share, names):
            before = " ".join(
                [f"--share {plan['share']:g}", *(["--studies", *plan["studies"]] if plan["studies"] else [])]
            )
            raise ValueError(f"a recheck with {before} is not finished; finish it, or delete {root / SCRATCH}")
        return plan
    draw = 1 + max((line["draw"] for line in lines), default=-1)
    drawn = drawn_cells(current_cells(root, names)[0], share, draw)
    if not drawn:
        raise ValueError(f"{root} has no cell that is stored and of today's version, and made on the CPU")
    plan = {"draw": draw, "share": share, "studies": names, "cells": drawn}
    files.write_text(path, json.dumps(plan) + "\n")
    return plan


def _read_plan(path: Path) -> dict:
    """The stored plan. Raises ValueError for a file that `_plan` did not write."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        plan["draw"], plan["share"], plan["studies"]
        if all(isinstance(name, str) for study_and_cell in plan["cells"] for name in study_and_cell):
            return {**plan, "cells": [(name, cell) for name, cell in plan["cells"]]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged; delete {path.parent}, and a new draw begins")


def drawn_cells(population: Iterable[Cell], share: float, draw: int) -> list[Cell]:
    """The share of every study's cells, at least one; the same cells for the same draw."""
    by_study: dict[str, list[str]] = {}
    for name, cell in sorted(population):
        by_study.setdefault(name, []).append(cell)
    drawn = []
    for name, known in by_study.items():
        n = min(len(known), max(1, round(share * len(known))))
        drawn += [(name, cell) for cell in random.Random(f"{draw}/{name}").sample(known, n)]
    random.Random(draw).shuffle(drawn)
    return drawn


def current_cells(root: Path, names: Iterable[str]) -> tuple[list[Cell], list[Cell]]:
    """Cells whose status is "stored" today: those made on the CPU, where they are made again, and the others.

    An accelerator adds in another order, so that its cells may differ by more than a fault would.
    """
    current: tuple[list[Cell], list[Cell]] = ([], [])
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if names and folder.name not in names:
            continue
        study = finder.usable_study(folder.name)
        if study is None:
            continue
        for cell in store.complete_cells(folder):
            made = store.read_provenance(cell) or {}
            try:
                cfg = study.Config(**made["config"])
                now = study.version, cells.config_of(cfg), cells.defaults_of(cfg)
                if not versions.why_stale(cell, made, *now, finder.find_study):
                    current[made.get("device", "cpu") != "cpu"].append((folder.name, cell.name))
            except (TypeError, ValueError):
                continue
    return current


def _counts(named: Iterable[Cell]) -> dict[str, int]:
    names = [name for name, _ in named]
    return {name: names.count(name) for name in dict.fromkeys(names)}


# Making and comparing.


def _task(root: Path, cell: Cell) -> remaking.Task:
    """The task of one cell: a new root of its own, with the stored upstream cells of the cell."""
    made = store.read_provenance(root.joinpath(*cell))
    if made is None:
        raise ValueError(f"{'/'.join(cell)} was drawn and is not stored any more; delete {root / SCRATCH} to draw anew")
    out = Path(tempfile.mkdtemp(dir=root / SCRATCH))  # new: a worker of a killed command may write into its old one
    _supply(root, made, out)
    return remaking.Task(cell[0], cell[1], made["config"], out)


def _supply(root: Path, made: Mapping, out: Path) -> None:
    for name in made.get("made_from", {}):
        source, target = root.joinpath(*name.split("/")), out.joinpath(*name.split("/"))
        if (source / store.PROVENANCE).is_file():
            if not target.exists():
                shutil.copytree(source, target)
            _supply(root, store.read_provenance(source) or {}, out)


def _line(root: Path, plan: Mapping, made: remaking.Made) -> dict:
    """The ledger's line of one cell."""
    task = made.task
    then = store.read_provenance(root / task.study / task.name) or {}
    apart = {"error": made.error} if made.error else compare(root / task.study / task.name, task.cell)
    first = {} if made.error or not apart else {"first": _first(root / task.study / task.name, task.cell)}
    shutil.rmtree(task.out, ignore_errors=True)
    return {
        **{"draw": plan["draw"], "study": task.study, "cell": task.name},
        "stored": store.sums_in(then),
        **{"version": then.get("version"), "same": not apart, "apart": apart, **first},
        "seconds": round(made.seconds, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "git": provenance.git_state(Path(__file__).parent),
        "now": {"versions": provenance.versions(), "cpu": provenance.cpu(), "threads": 1},
        "then": {key: then.get(key) for key in ("versions", "cpu", "threads")},
    }


def compare(stored: Path, again: Path) -> dict[str, float | str]:
    """Field or tensor -> difference of two cells with the same options; {} for equal numbers to the last bit."""
    then, now = (store.read_provenance(cell) or {} for cell in (stored, again))
    options = {*then["config"], *now["config"]}
    apart = remaking.rows_apart(_rows(stored, options), _rows(again, options))
    a, b = store.read_tensors(stored), store.read_tensors(again)
    for name in sorted({*a, *b}):
        if name not in a or name not in b or a[name].shape != b[name].shape or a[name].dtype != b[name].dtype:
            apart[f"tensor {name}"] = "differs"
        elif not a[name].equal(b[name]):
            apart[f"tensor {name}"] = float((a[name].double() - b[name].double()).abs().max())
    for name in sorted({*then.get("made_from", {}), *now.get("made_from", {})}):
        if then.get("made_from", {}).get(name) != now.get("made_from", {}).get(name):
            apart[f"built on {name}"] = "differs"
    return apart


def _rows(cell: Path, options: Iterable[str]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in options} for row in store.read_records(cell)]


def _first(stored: Path, again: Path) -> str:
    return remaking.first_difference(store.read_records(stored), store.read_records(again))


def _append(root: Path, line: Mapping) -> None:
    """Append a line whole, so that neither a reader nor a killed process meets half a line."""
    path = root / LEDGER
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    files.write_text(path, before + json.dumps(line) + "\n")
