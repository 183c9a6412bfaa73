"""A study: a frozen dataclass of options, a `run` that yields records and a `plot` of them; `main` does the rest.

    @dataclass(frozen=True)
    class Config:
        n_seeds: study.Count = study.option(25, "independent initialisations")
        lr: study.Positive = study.option(3e-4, "step size of Adam")

    VERSION = 1  # raise it when you mean to change the numbers of stored cells

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
import importlib
import itertools
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mechsub import files
from mechsub.lab import lease, store, terminal, versions, workers
from mechsub.lab.options import (
    Count,
    Index,
    NonNegative,
    Positive,
    command_line,
    default_values,
    option,
    refuse_ignored,
)
from mechsub.lab.progress import clear_bar, progress, start_bar

__all__ = [
    "Count",
    "Index",
    "NonNegative",
    "Positive",
    "cells",
    "format_table",
    "found_cell",
    "main",
    "make_cell",
    "option",
    "part",
    "planned",
    "progress",
    "reading",
    "refuse_ignored",
    "stored_cell",
]

_OWN_PROVENANCE = {
    *("study", "version", "config", "read", "made_from", "upstream_versions", "code", "certified"),
    *("records", "tensors", "git", "command", "versions", "created", "format", "seal"),
}
NOTEBOOK = "notebook"  # the study's name where `run` stands in a notebook's cells and has no file


@terminal.command
def main(Config, run, plot, table=None, argv=None) -> None:
    """The command line of a study. Returns after success; leaves with SystemExit 1, 2 or 130 otherwise.

    run(cfg) yields records (dicts); {"tensors": {name: tensor}} for matrices that are too large for rows; and, for what
    a reader must know about their making, {"provenance": {...}}. A Config may have a method check(**display), which
    raises ValueError for display options that do not fit. The module of `run` may have VERSION, an integer that its
    author raises to say that cells of before are not to be trusted any more, and a function check(cfg), which raises
    for a cell that is not to be made, on this machine or at all (ValueError: a bad option). It is asked before anything
    runs.
    plot(records, **display) returns a plotly Figure, table(records, **display) a list of dicts.
    """
    module = sys.modules[run.__module__]
    in_file = getattr(module, "__file__", None) is not None
    argv = (sys.argv[1:] if in_file else []) if argv is None else [str(word) for word in argv]
    options, values, display = command_line(Config, module, argv, lambda message: _stop(message, 2))
    if not in_file and (options.workers or options.executor != "local"):
        _stop("--workers and --executor need a study that stands in a file, which other processes can run", 2)
    try:
        job = _job(module, options, run, argv[:-2] if options.cells else argv)
        folder = _checked_folder(options.out, job["name"])
        grid = _grid(Config, values, folder, display)
        _session.update(job=job)
        if options.dry_run:
            return _print_status(grid, job)
        if options.cells:
            named = {cell.name: (cell, cfg) for cell, cfg in grid.items()}
            return workers.work(options.cells, lambda name, before: _make(*named[name], job, before))
        if options.executor == "slurm" and (problem := workers.unusable()):
            _stop(problem, 2)
        stale = _make_wanted(grid, job, _command(module, argv) if in_file else [])
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
    clear_bar()
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
    if isinstance(error, store.DamagedCell | workers.Failed):
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
    job = _job(module, argparse.Namespace(out=out))
    grid = _grid(module.Config, values, Path(out) / job["name"], display)
    return {cell: status(cell, cfg, job).kind for cell, cfg in grid.items()}, display


def make_cell(module, cfg, out: str | Path) -> Path:
    """Make one cell of a study under `out`, with what it builds on, in this process; one that is there is left."""
    before = dict(_session)
    job = _job(module, argparse.Namespace(out=str(out)))
    cell = _cell_of(module, cfg, job)
    _session.clear()
    _session.update(job=job)
    try:
        _make(cell, cfg, job, None)
    finally:
        _session.clear()
        _session.update(before)
    return cell


def _refuse_argv(message: str):
    raise ValueError(message)


@contextlib.contextmanager
def reading(out: str) -> Iterator[None]:
    """Let `run` of a study that only reads find stored cells under `out`, where no command runs it."""
    before = dict(_session)
    _session.update(job={"options": argparse.Namespace(out=out), "argv": []}, built_on={})
    try:
        yield
    finally:
        _session.clear()
        _session.update(before)


# The grid.


def _grid(Config, values: Mapping[str, tuple], folder: Path, display: Mapping[str, tuple]) -> dict[Path, Any]:
    """Folder and Config of every cell of the grid."""
    cells = {}
    for combination in itertools.product(*values.values()):
        try:
            cfg = Config(**dict(zip(values, combination, strict=True)))
            getattr(cfg, "check", lambda **display: None)(**display)
        except ValueError as error:
            _stop(str(error), 2)
        cells[folder / name_of(cfg)] = cfg
    return cells


def config_of(cfg) -> dict:
    """The fields that make the cell."""
    fields = (field for field in dataclasses.fields(cfg) if not field.metadata.get("display"))
    return {field.name: getattr(cfg, field.name) for field in fields}


def defaults_of(Config) -> dict:
    """Of a Config or one of its instances."""
    return {field.name: field.default for field in dataclasses.fields(Config)}


def name_of(cfg) -> str:
    """The name of the cell of a Config."""
    return store.cell_name(config_of(cfg), defaults_of(cfg))


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


def _job(module, options: argparse.Namespace, run=None, argv: Iterable[str] = ()) -> dict[str, Any]:
    """What is known of the study whose cells are made or looked at."""
    file = getattr(module, "__file__", None)
    source = Path(file).resolve() if file else None
    return {
        "module": module,
        "run": run or module.run,
        "name": _name(source),
        "source": source,
        "options": options,
        "argv": list(argv),
    }


def _name(source: Path | None) -> str:
    """A study is called as its file, or as its folder where it stands in one."""
    if source is None:
        return NOTEBOOK
    return source.parent.name if source.stem == "__init__" else source.stem


def status(cell: Path, cfg, job: Mapping) -> versions.Status:
    """Whether the cell is what its study would store today, and why not."""
    module = job["module"]
    known = versions.status(cell, versions.version_of(module), config_of(cfg), defaults_of(cfg), _finder(module))
    if known.kind == "stored" and job["source"] is None:
        then = (store.read_provenance(cell) or {}).get("code", {}).get("run")
        if then != _run_sum(job["run"]):
            return versions.Status("stale", "it was made by another run of a notebook")
    return known


def _finder(module) -> versions.Finder:
    """Modules of the studies beside this one, by name."""
    package = _package(module)

    def find(name: str):
        with contextlib.suppress(ImportError):
            if package:
                return importlib.import_module(f"{package}.{name}")
        return sys.modules.get(name)

    return find


def _package(module) -> str:
    """Name of the package in which a study stands; "" for one that stands in a script."""
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return getattr(module, "__package__", None) or ""
    return spec.name.rpartition(".")[0] if spec.submodule_search_locations else spec.parent


def _run_sum(run) -> str:
    """Of the compiled code of a `run` that has no file, where no author's version can be told from another's."""

    def parts(code: types.CodeType) -> Iterator[str]:
        yield f"{code.co_code.hex()} {code.co_names}"
        for constant in code.co_consts:
            yield from parts(constant) if isinstance(constant, types.CodeType) else [repr(constant)]

    return files.sha256("\n".join(parts(run.__code__)).encode())


def _print_status(cells: Mapping[Path, Any], job: Mapping) -> None:
    for cell, cfg in cells.items():
        known = status(cell, cfg, job)
        why = f"  ({known.reason})" if known.kind == "stale" else ""
        print(f"{known.kind:8}{cell}{why}")


def _command(module, argv: list[str]) -> list[str]:
    """This command, as another process can run it."""
    spec = getattr(module, "__spec__", None)
    return [sys.executable, *(["-m", spec.name] if spec else [str(module.__file__)]), *argv]


def _make_wanted(grid: Mapping[Path, Any], job: Mapping, command: list[str]) -> list[str]:
    """Make every cell that is not stored (or all, with --rerun); the names of cells used although they are stale."""
    options, wanted, stale = job["options"], {}, []
    folder = next(iter(grid)).parent
    store.clean(folder)
    for cell, cfg in grid.items():
        # In this order: what another process stores in between is stored, or made, and in no case to be made again.
        before, known = store.made(cell), status(cell, cfg, job)
        if known.kind == "missing" or options.rerun:
            _refuse_newer(cell, job)
            wanted[cell] = before
        elif known.kind == "damaged":
            store.checked(cell)
        elif known.kind == "stale":
            stale.append(cell.name)
            print(f"stale: {cell}: {known.reason}; --rerun recomputes it", file=sys.stderr)
    _hint_at_edits([cell for cell in grid if cell not in wanted], job)
    if options.executor == "local":  # a node of a cluster has other memory than this machine: its worker asks
        for cell in wanted:
            with part(f"cell {cell}"):
                try:
                    _check(grid[cell], job)
                except ValueError as error:
                    _stop(str(error), 2)
    with _no_empty(folder):
        try:
            workers.run(
                wanted,
                make=lambda cell: _make(cell, grid[cell], job, wanted[cell]),
                command=command,
                options=options,
                show=lambda text: start_bar(text, options.quiet),
            )
        finally:
            clear_bar()
    store.clean(folder)
    return stale


def _refuse_newer(cell: Path, job: Mapping) -> None:
    """Numbers of a newer version are not replaced by those of an older one."""
    try:
        made = store.read_provenance(cell)
    except store.DamagedCell:
        return
    now = versions.version_of(job["module"])
    if made and made.get("version", 0) > now:
        newer = f"{cell} was made by version {made['version']} of its study, and this is version {now}"
        raise ValueError(f"{newer}; update the code, or give another --out")


def _hint_at_edits(cells: Iterable[Path], job: Mapping) -> None:
    """Of a study that no probe watches: which files were edited since its cells were made. Its author knows best."""
    if job["source"] is None:
        return
    changed: dict[str, None] = {}
    for cell in cells:
        with contextlib.suppress(store.DamagedCell):
            code = (store.read_provenance(cell) or {}).get("code", {})
            changed.update(dict.fromkeys(versions.edited(code, job["source"].parent) if code else ()))
    if changed:
        names = ", ".join(changed)
        print(
            f"note: {names} changed since stored cells were made; if that changes numbers, raise VERSION in "
            f"{job['source'].name}",
            file=sys.stderr,
        )


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
    theirs = _job(module, job["options"], argv=job["argv"])
    cell = _cell_of(module, cfg, theirs)
    before, known = store.made(cell), status(cell, cfg, theirs)
    if known.kind == "missing":
        with _no_empty(cell.parent):
            store.clean(cell.parent)
            _make(cell, cfg, theirs, before)
        known = status(cell, cfg, theirs)
    if known.kind != "stored":
        changed = {name: value for name, value in config_of(cfg).items() if value != defaults_of(cfg)[name]}
        words = "".join(f" --{name.replace('_', '-')} {store.value_name(value)}" for name, value in changed.items())
        why = f" ({known.reason})" if known.kind == "stale" else ""
        command = f"python -m {_dotted(theirs)}{words}"
        raise ValueError(f"{cell} is {known.kind}{why}; run {command} --rerun first")
    _build_on(cell)
    return cell


def _cell_of(module, cfg, job: Mapping) -> Path:
    return Path(job["options"].out) / job["name"] / name_of(cfg)


def _build_on(cell: Path) -> None:
    """Note that the cell that is being made is built on this one."""
    _session["built_on"][f"{cell.parent.name}/{cell.name}"] = store.read_provenance(cell)


def _check(cfg, job: Mapping) -> None:
    """Ask the study whether this cell may be made."""
    check = getattr(sys.modules[job["run"].__module__], "check", None)
    if check is not None:
        check(cfg)


def found_cell(module, cfg) -> Path | None:
    """As `stored_cell`, but None where the cell is not stored as this code would make it; nothing is computed."""
    job = _job(module, _session["job"]["options"])
    cell = _cell_of(module, cfg, job)
    if status(cell, cfg, job).kind != "stored":
        return None
    _build_on(cell)
    return cell


def _run_cell(cell: Path, cfg, job: Mapping, check: Callable[[], None]) -> None:
    _check(cfg, job)
    started, config = time.perf_counter(), config_of(cfg)
    outer = _session.get("built_on")
    _session["built_on"] = built_on = {}
    try:
        with files.noting() as inputs:
            rows, extra, tensors = _collect(config, job["run"](cfg))
    finally:
        _session["built_on"] = outer
    made = {
        **_identity(config, job, inputs, built_on),
        "command": _shown_command(job),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.perf_counter() - started, 3),
        **_circumstances(job),
    }
    store.write_cell(cell, rows, {**made, **extra}, tensors, check)


def _identity(config: Mapping, job: Mapping, inputs: dict, built_on: Mapping[str, Mapping]) -> dict:
    """What decides later whether the cell would come out the same."""
    upstream_versions: dict[str, int] = {}
    for name, made in built_on.items():
        upstream_versions |= {**made.get("upstream_versions", {}), name.split("/")[0]: made["version"]}
        inputs = {**made.get("read", {}), **inputs}
    return {
        "study": job["name"],
        "version": versions.version_of(job["module"]),
        "config": config,
        **({"read": dict(sorted(inputs.items()))} if inputs else {}),
        **({"made_from": {name: store.sums_in(made) for name, made in built_on.items()}} if built_on else {}),
        **({"upstream_versions": dict(sorted(upstream_versions.items()))} if upstream_versions else {}),
        **_code(job),
    }


def _code(job: Mapping) -> dict:
    """Sums of the code of a study that has no probes."""
    if job["source"] is None:
        return {"code": {"run": _run_sum(job["run"])}}
    if hasattr(job["module"], "PROBES"):
        return {}
    return {"code": versions.code_sums(job["source"].parent, sys.modules)}


def _shown_command(job: Mapping) -> list[str]:
    if job["source"] is None:
        return ["a notebook", *job["argv"]]
    return ["python", "-m", _dotted(job), *job["argv"]]


def _dotted(job: Mapping) -> str:
    """As `python -m` names the study."""
    source = job["source"]
    return f"{(source.parent if source.stem == '__init__' else source).parent.name}.{job['name']}"


def _circumstances(job: Mapping) -> dict:
    from mechsub import provenance

    folder = job["source"].parent if job["source"] else Path.cwd()
    return {"peak_memory_mb": provenance.peak_memory_mb(), **provenance.environment(folder)}


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
    from mechsub.lab.figures import kinds as plot

    if stale:
        plot.add_caption(figure, f"Stale: {', '.join(stale)}.")
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


# State of this process: the command that runs.

_session: dict[str, Any] = {}
