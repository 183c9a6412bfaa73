"""A study: a frozen dataclass of options, a `run` that yields records and a `plot` of them; `main` does the rest.

    @dataclass(frozen=True)
    class Config:
        n_seeds: study.Count = study.option(25, "independent initialisations")
        lr: study.Positive = study.option(3e-4, "step size of Adam")

    if __name__ == "__main__":
        study.main(Config, run, plot, table)

Every field is a flag that takes one or more different values; the product of the values is a grid of cells, each stored
once in `<out>/<study>/<cell>/`. The figure and the table are made from the stored records of the whole grid.

Killed at any moment, the same command goes on where it was; several commands on one store share its cells.

Bad input: one line `error: ...`, exit code 2, nothing written. Failed run: one line, exit code 1. Ctrl-C: 130.
"""

import argparse
import contextlib
import dataclasses
import inspect
import itertools
import math
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mechsub import executor, lease, store, terminal
from mechsub.flags import Count, Index, NonNegative, Positive, command_line, default_values, option, refuse_ignored
from mechsub.progress import drawn, redraw

__all__ = [
    "Count",
    "Index",
    "NonNegative",
    "Positive",
    "cells",
    "fingerprint",
    "format_table",
    "found_cell",
    "main",
    "option",
    "part",
    "planned",
    "progress",
    "reading",
    "refuse_ignored",
    "stored_cell",
]

_OWN_PROVENANCE = {
    *("study", "config", "fingerprint", "records", "tensors", "made_from", "git", "command", "versions", "created"),
    *("format", "seal"),
}


@terminal.command
def main(Config, run, plot, table=None, argv=None) -> None:
    """The command line of a study. Returns after success; leaves with SystemExit 1, 2 or 130 otherwise.

    run(cfg) yields records (dicts); {"tensors": {name: tensor}} for matrices that are too large for rows; and, for what
    a reader must know about their making, {"provenance": {...}}. It may also choose by cfg and return one of several
    generators of its module, so that a cell does not depend on the code of the others. A Config may have a method
    check(**display), which raises ValueError for display options that do not fit. The module of `run` may have a
    function check(cfg), which raises for a cell that is not to be made, on this machine or at all (ValueError: a bad
    option). It is asked before anything runs, and is no part of the fingerprint.
    plot(records, **display) returns a plotly Figure, table(records, **display) a list of dicts.
    """
    module = sys.modules[run.__module__]
    source = Path(module.__file__).resolve()  # type: ignore[arg-type]
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    options, values, display = command_line(Config, module, argv, lambda message: _stop(message, 2))
    try:
        folder = _checked_folder(options.out, source.stem)
        grid = _grid(Config, values, folder, display)
        job = {"run": run, "argv": argv[:-2] if options.cells else argv, "source": source, "options": options}
        _session.update(job=job, fingerprints={})
        if options.dry_run:
            return _print_status(grid, job)
        if options.cells:
            named = {cell.name: (cell, cfg) for cell, cfg in grid.items()}
            return executor.work(options.cells, lambda name, before: _make(*named[name], job, before))
        if options.executor == "slurm" and (problem := executor.unusable()):
            _stop(problem, 2)
        stale = _make_wanted(grid, job, _command(module, argv))
        with part("the figure"):
            records = list(itertools.chain.from_iterable(store.read_records(cell) for cell in grid))
            path = folder / f"{_grid_name(Config, {**values, **display})}.html"
            _draw(plot(records, **display), path, stale)
        with part("the table"):
            print(format_table(table(records, **display) if table else []), end="")
        print(f"stale cells: {', '.join(stale)}\n" * bool(stale) + f"figure: {path}")
    except KeyboardInterrupt:
        _stop("interrupted; complete cells are kept and the same command resumes", 130)
    except BrokenPipeError:
        raise
    except Exception as error:
        if options.debug:
            import traceback

            traceback.print_exc()
        _stop(_explanation(error, options.debug), 1)


def _stop(message: str, code: int):
    """Leave with exactly one line on stderr, whatever the message holds."""
    _clear_bar()
    line = "".join(char if char.isprintable() else " " for char in " ".join(message.split()))
    print(f"error: {line[:800]}", file=sys.stderr)
    raise SystemExit(code)


@contextlib.contextmanager
def part(name: str):
    """Name the part of the work in which an exception arose; parts within parts are all named."""
    try:
        yield
    except Exception as error:
        error.add_note(name)
        raise


def _explanation(error: Exception, debug: bool) -> str:
    if isinstance(error, store.DamagedCell | executor.Failed):
        return str(error)
    where = ", ".join(reversed(getattr(error, "__notes__", ["the study"])))
    hint = "" if debug else " (--debug shows the traceback)"
    return f"{where} failed: {type(error).__name__}: {str(error)[:600]}{hint}"


def cells(records: Iterable[dict], Config) -> list[tuple[str, list[dict]]]:
    """Records cell by cell, each with a label of the options that differ between cells ("all" if there is one)."""
    records = list(records)
    # A cell that was made before an option existed was made with what is its default.
    fields = {f.name: f.default for f in dataclasses.fields(Config) if not f.metadata.get("display")}
    differing = [name for name, usual in fields.items() if len({record.get(name, usual) for record in records}) > 1]
    groups: dict[str, list[dict]] = {}
    for record in records:
        label = ", ".join(f"{name}={record.get(name, fields[name])}" for name in differing) or "all"
        groups.setdefault(label, []).append(record)
    return list(groups.items())


def planned(module, argv: list[str], out: str = "artifacts") -> tuple[dict[Path, str], dict[str, tuple]]:
    """The cells that a command of a study's module names, each with its status, and the values of display options."""
    _, values, display = command_line(module.Config, module, argv, _refuse_argv)
    job = {"run": module.run, "source": Path(module.__file__).resolve()}
    grid = _grid(module.Config, values, Path(out) / job["source"].stem, display)
    return {cell: _status(cell, cfg, job) for cell, cfg in grid.items()}, display


def _refuse_argv(message: str):
    raise ValueError(message)


@contextlib.contextmanager
def reading(out: str) -> Iterator[None]:
    """Let `run` of a study that only reads find stored cells under `out`, where no command runs it."""
    before = dict(_session)
    _session.update(job={"options": argparse.Namespace(out=out)}, fingerprints={}, made_from={})
    try:
        yield
    finally:
        _session.clear()
        _session.update(before)


# The grid.


def _grid(Config, values: Mapping[str, tuple], folder: Path, display: Mapping[str, tuple]) -> dict[Path, Any]:
    """Folder and Config of every cell of the grid."""
    cells = {}
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    for combination in itertools.product(*values.values()):
        try:
            cfg = Config(**dict(zip(values, combination, strict=True)))
            getattr(cfg, "check", lambda **display: None)(**display)
        except ValueError as error:
            _stop(str(error), 2)
        cells[folder / store.cell_name(_config(cfg), defaults)] = cfg
    return cells


def _config(cfg) -> dict:
    """The fields that make the cell."""
    fields = (field for field in dataclasses.fields(cfg) if not field.metadata.get("display"))
    return {field.name: getattr(cfg, field.name) for field in fields}


def _grid_name(Config, values: Mapping[str, tuple]) -> str:
    defaults = {field.name: default_values(field) for field in dataclasses.fields(Config)}
    return store.name({key: chosen for key, chosen in values.items() if chosen != defaults[key]})


def _checked_folder(out: str, name: str) -> Path:
    """The study's folder of results, refused where it cannot be written; creates nothing."""
    try:
        folder = Path(out) / name
        if not out.isprintable() or any(path.is_symlink() and not path.exists() for path in (folder, *folder.parents)):
            raise ValueError("it holds control characters, or a link that leads nowhere")
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        problem = "" if nearest.is_dir() else f"{nearest} is not a folder"
        problem = problem or ("" if os.access(nearest, os.W_OK | os.X_OK) else f"no permission to write in {nearest}")
        if not problem:  # root may write anywhere by its permissions, but not in /proc: try
            tempfile.TemporaryFile(dir=nearest).close()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem or not out:
        _stop(f"--out {out!r} cannot be written: {problem or 'it is empty'}", 2)
    return folder


# The run.


def fingerprint(source: Path, run, cfg) -> str:
    """That of the code which makes this cell: of `run`, or of the generator of the same module that it returns."""
    from mechsub.fingerprint import source_fingerprint

    if inspect.isgeneratorfunction(run):
        return source_fingerprint(source, run.__name__)
    chosen = run(cfg)
    if not isinstance(chosen, types.GeneratorType) or Path(chosen.gi_code.co_filename).resolve() != source:
        raise TypeError(f"{run.__name__} of {source.name} must yield records, or return a generator of its own module")
    return source_fingerprint(source, chosen.__name__)


def _fingerprint(cfg, job: Mapping) -> str:
    """Made once a command, before anything runs: code that is edited meanwhile did not make the cell."""
    known = _session.setdefault("fingerprints", {})
    run = job["run"]
    key = (job["source"], run.__name__ if inspect.isgeneratorfunction(run) else getattr(run(cfg), "__name__", ""))
    if key not in known:
        known[key] = fingerprint(job["source"], run, cfg)
    return known[key]


def _status(cell: Path, cfg, job: Mapping) -> str:
    return store.cell_status(cell, _fingerprint(cfg, job), _config(cfg))


def _print_status(cells: Mapping[Path, Any], job: Mapping) -> None:
    for cell, cfg in cells.items():
        print(f"{_status(cell, cfg, job):8}{cell}")


def _command(module, argv: list[str]) -> list[str]:
    """This command, as another process can run it."""
    spec = getattr(module, "__spec__", None)
    return [sys.executable, *(["-m", spec.name] if spec else [module.__file__]), *argv]


def _make_wanted(grid: Mapping[Path, Any], job: Mapping, command: list[str]) -> list[str]:
    """Make every cell that is not stored (or all, with --rerun); the names of cells used although they are stale."""
    options, wanted, stale = job["options"], {}, []
    folder = next(iter(grid)).parent
    store.clean(folder)
    for cell, cfg in grid.items():
        # In this order: what another process stores in between is stored, or made, and in no case to be made again.
        before, status = store.made(cell), _status(cell, cfg, job)
        if status == "missing" or options.rerun:
            wanted[cell] = before
        elif status == "damaged":
            store.checked(cell)
        elif status == "stale":
            stale.append(cell.name)
            print(f"stale: {cell} was made by other code; --rerun recomputes it", file=sys.stderr)
    if options.executor == "local":  # a node of a cluster has other memory than this machine: its worker asks
        for cell in wanted:
            with part(f"cell {cell}"):
                try:
                    _check(grid[cell], job)
                except ValueError as error:
                    _stop(str(error), 2)
    with _no_empty(folder):
        try:
            executor.run(
                wanted,
                make=lambda cell: _make(cell, grid[cell], job, wanted[cell]),
                command=command,
                options=options,
                show=lambda text: _start_bar(text, options.quiet),
            )
        finally:
            _clear_bar()
    store.clean(folder)
    return stale


@contextlib.contextmanager
def _no_empty(folder: Path) -> Iterator[None]:
    """Of a first run that failed, nothing is left."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _make(cell: Path, cfg, job: Mapping, before: str | None) -> None:
    """Make a cell, unless another process has made it since it was `before`; waits for one that is making it."""
    while store.made(cell) == before:
        try:
            with part(f"cell {cell}"), lease.hold(cell) as check:
                store.recover(cell)
                if store.made(cell) == before:
                    _run_cell(cell, cfg, job, check)
                return
        except lease.Lost:  # this process was taken for dead: what the other makes is as good
            continue


def stored_cell(module, cfg) -> Path:
    """The folder of another study's cell under this run's --out, computed first if it is missing.

    The provenance of the cell that is being made gets the sums of its files. What is stored is reused, what another
    process is making is waited for. A stale or damaged cell is an error: numbers of other code are not built upon.
    """
    job = _session["job"]
    source = Path(module.__file__).resolve()
    defaults = {field.name: field.default for field in dataclasses.fields(cfg)}
    cell = Path(job["options"].out) / source.stem / store.cell_name(_config(cfg), defaults)
    theirs = {**job, "run": module.run, "source": source}
    before, status = store.made(cell), _status(cell, cfg, theirs)
    if status == "missing":
        with _no_empty(cell.parent):
            store.clean(cell.parent)
            _make(cell, cfg, theirs, before)
        status = _status(cell, cfg, theirs)
    if status != "stored":
        flags = {name: value for name, value in _config(cfg).items() if value != defaults[name]}
        words = "".join(f" --{name.replace('_', '-')} {store.value_name(value)}" for name, value in flags.items())
        raise ValueError(f"{cell} is {status}; run python -m {source.parent.name}.{source.stem}{words} --rerun first")
    _session["made_from"][f"{source.stem}/{cell.name}"] = store.sums(cell)
    return cell


def _check(cfg, job: Mapping) -> None:
    """Ask the study whether this cell may be made."""
    check = getattr(sys.modules[job["run"].__module__], "check", None)
    if check is not None:
        check(cfg)


def found_cell(module, cfg) -> Path | None:
    """As `stored_cell`, but None where the cell is not stored as this code would make it; nothing is computed."""
    job = _session["job"]
    source = Path(module.__file__).resolve()
    defaults = {field.name: field.default for field in dataclasses.fields(cfg)}
    cell = Path(job["options"].out) / source.stem / store.cell_name(_config(cfg), defaults)
    if _status(cell, cfg, {**job, "run": module.run, "source": source}) != "stored":
        return None
    _session["made_from"][f"{source.stem}/{cell.name}"] = store.sums(cell)
    return cell


def _run_cell(cell: Path, cfg, job: Mapping, check: Callable[[], None]) -> None:
    from mechsub import provenance

    _check(cfg, job)
    started, config = time.perf_counter(), _config(cfg)
    outer = _session.get("made_from")
    _session["made_from"] = made_from = {}
    rows, extra, tensors = _collect(config, job["run"](cfg))
    _session["made_from"] = outer
    name = job["source"].stem
    made = {
        "study": name,
        "config": config,
        "fingerprint": _fingerprint(cfg, job),
        "command": ["python", "-m", f"{job['source'].parent.name}.{name}", *job["argv"]],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_mb": provenance.peak_memory_mb(),
        **({"made_from": made_from} if made_from else {}),
        **provenance.environment(job["source"]),
    }
    store.write_cell(cell, rows, {**made, **extra}, tensors, check)


def _collect(config: Mapping, yielded: Iterable[Mapping]) -> tuple[list[dict], dict, dict]:
    """Rows to store, what the run adds to its provenance, and tensors."""
    rows, extra, tensors = [], {}, {}
    for item in yielded:
        if isinstance(item, Mapping) and set(item) == {"provenance"}:
            extra.update(store.record_row({}, item["provenance"]))
        elif isinstance(item, Mapping) and set(item) == {"tensors"}:
            tensors.update(item["tensors"])
        else:
            rows.append(store.record_row(config, item))
    if own := sorted(_OWN_PROVENANCE & set(extra)):
        raise ValueError(f"a run cannot set the provenance {own[0]!r}")
    if not rows:
        raise ValueError("run yielded no records")
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"tensor {broken[0]!r} holds NaN or infinite values")
    return rows, extra, tensors


def _draw(figure, path: Path, stale: list[str]) -> None:
    from mechsub import plot

    if stale:
        plot.add_caption(figure, f"Stale, made by other code: {', '.join(stale)}.")
    plot.write_figure(figure, path)


def format_table(rows: list[Mapping]) -> str:
    """Rows as aligned columns, numbers to the right; floats with three decimals, or digits where these would be 0."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    padded = zip(*(_padded([column, *(row.get(column, "") for row in rows)]) for column in columns), strict=True)
    return "".join("  ".join(line).rstrip() + "\n" for line in padded)


def _padded(column: list) -> list[str]:
    """Texts of one width: words to the left, numbers and intervals to the right."""
    texts = [_cell_text(value) for value in column]
    width = max(map(len, texts))
    words = all(isinstance(value, str) for value in column)
    return [text.ljust(width) if words else text.rjust(width) for text in texts]


def _cell_text(value) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


# State of this process: the command that runs, and the progress bar of its terminal.

_session: dict[str, Any] = {}

_bar: dict[str, Any] = {"prefix": None, "written": -math.inf}


def progress(fraction: float, text: str = "") -> None:
    """Show how far the current cell is; nothing where stderr is no terminal, and at most ten times a second."""
    now = time.monotonic()
    if _bar["prefix"] is None or now - _bar["written"] < 0.1:
        return
    _bar["written"] = now
    redraw(f"{drawn(fraction)} {_bar['prefix']} {text}")


def _start_bar(prefix: str, quiet: bool) -> None:
    visible = sys.stderr.isatty() and not quiet
    _bar.update(prefix=prefix if visible else None, written=-math.inf)
    progress(0.0)


def _clear_bar() -> None:
    if _bar["prefix"] is not None:
        redraw("")
    _bar.update(prefix=None, written=-math.inf)
