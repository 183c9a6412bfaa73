"""The command line of a study: flags from its Config, a grid of cells, a figure and a table of the stored records.

Every field of the Config is a flag that takes one or more different values; the product of the values is a grid of
cells, each stored once in `<out>/<study>/<cell>/`. The figure and the table are made from the stored records of the
whole grid.

After a kill at any moment, the same command goes on. Several commands on one store share its cells.

Bad input: one line `error: ...`, exit code 2, nothing written. Failed run: one line, exit code 1. Ctrl-C: 130.
"""

import argparse
import contextlib
import dataclasses
import itertools
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mechsub import sources
from mechsub.lab import durations, finder, findings, store, terminal, versions, workers
from mechsub.lab.cells import (
    Maker,
    by_cell,
    check_whole,
    config_of,
    make,
    name_of,
    no_empty,
    on_device,
    part,
    planned_upstream,
    records_of,
    status,
)
from mechsub.lab.declared import Options, Study
from mechsub.lab.options import (
    Count,
    Index,
    NonNegative,
    Positive,
    Replicates,
    command_line,
    default_values,
    option,
    refuse_ignored,
)
from mechsub.lab.progress import SILENCE, clear_bar, end_cell, say_begun, show_progress, span, start_bar
from mechsub.lab.tables import format_table, write_table
from mechsub.machine import devices

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "Count",
    "Index",
    "NonNegative",
    "Positive",
    "Replicates",
    "cells",
    "command",
    "format_table",
    "grid_of",
    "main",
    "option",
    "part",
    "planned",
    "refuse_ignored",
    "show_progress",
    "span",
    "table_of",
]
cells = by_cell  # as studies outside this package call it


def main(Config: type, run: Callable, plot: Callable, table: Callable | None = None, argv=None) -> None:
    """The command line of a study in one file or notebook, with its parts as arguments; otherwise as `lab.main`."""
    module = sys.modules[run.__module__]
    given = {"Config": Config, "run": run, "plot": plot, "table": table}
    declared = Study(getattr(module, "VERSION", 1), getattr(module, "PROBES", None), module.__name__, given)
    command(declared, argv)


@terminal.command
def command(study: Study, argv: Iterable | None = None) -> None:
    """The command line of a study. Returns after success; leaves with SystemExit 1, 2 or 130 otherwise.

    run(cfg) yields records (dicts); {"tensors": {name: tensor}} for matrices that are too large for rows; and
    {"provenance": {...}} for facts about the making of the numbers. A Config may have a method check(**display), which
    raises ValueError for display options that do not fit. A function check(cfg) of the study raises for a cell that
    must not be made, on this machine or at all (ValueError: a bad option). It is called before anything runs.
    plot(records, **display) returns a plotly Figure, table(records, **display) a list of dicts. Without a table, the
    findings are printed.
    """
    in_file = study.source is not None
    words = (sys.argv[1:] if in_file else []) if argv is None else [str(word) for word in argv]
    options, values, display = command_line(study, words, lambda message: _stop(message, 2))
    if not in_file and (options.workers or options.executor != "local"):
        _stop("--workers and --executor need a study that stands in a file, which other processes can run", 2)
    stale: list[str] = []
    try:
        maker = Maker(study, Path(options.out), tuple(words[:-2] if options.cells else words), options.device)
        folder = _checked_folder(options.out, study.name)
        try:
            grid = grid_of(study.Config, values, folder, display)
        except ValueError as error:
            _stop(str(error), 2)
        if options.dry_run:
            _point_elsewhere(study, options.out)
            return _print_status(grid, maker)
        if options.cells:
            named = {cell.name: cfg for cell, cfg in grid.items()}

            def make_one(name: str, before: str | None) -> None:
                start_bar(name, options.quiet)  # its lines go to the command that started this worker
                _make_shown(maker, named[name], before)

            return workers.work(options.cells, make_one)
        if options.executor == "slurm" and (problem := workers.unusable()):
            _stop(problem, 2)
        stale = _make_wanted(grid, maker, options, [*study.command, *words] if in_file else [])
        records = _records(study, grid)
        found = _found_in(study, grid) if records is None else None
        with part("the table"):  # first, so that a figure that fails does not cost it
            _show_table(table_of(study, records or [], display, found), options)
        with part("the figure"):
            path = folder / f"{_grid_name(study.Config, {**values, **display})}.html"
            _draw(figure_of(study, records or [], display, found), path, stale)
        print(f"stale cells: {', '.join(stale)}\n" * bool(stale) + f"figure: {path}")
    except KeyboardInterrupt:
        _stop("interrupted; complete cells are kept and the same command resumes", 130)
    except BrokenPipeError:
        raise
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        # Rows of another version may lack what this code looks for; a full disk is another matter.
        if stale and isinstance(error, LookupError | TypeError | ValueError) and not options.debug:
            _stop(f"stale cells cannot be shown by this code ({stale[0]}); --rerun makes them again", 1)
        _stop(_explanation(error, options.debug), 1)


def _show_table(rows: list[dict], options: argparse.Namespace) -> None:
    """Print the table, as wide as its reader's lines."""
    print(format_table(rows, None if options.wide else terminal.width()), end="")
    for kind in ("csv", "latex"):
        if path := getattr(options, kind):
            write_table(rows, Path(path), kind)
            print(f"{kind}: {path}")


def table_of(
    study: Study, records: list[dict], display: Mapping[str, tuple], found: Sequence[findings.Finding] | None = None
) -> list[dict]:
    """The rows of the printed table: the study's own, else its findings (and verdicts), of the records unless given."""
    table = study.part("table")
    if table is not None:
        return table(records, **display)
    if study.part("findings") is None:
        return []
    if found is not None:
        return findings.rows(found)
    cells = _cells(study, records)
    told = findings.rows(findings.all_findings(cells, study.part("comparisons")))
    if not study.judged:
        return told
    from mechsub.lab import predictions

    return told + predictions.rows(study.name, cells)


def figure_of(
    study: Study, records: list[dict], display: Mapping[str, tuple], found: Sequence[findings.Finding] | None = None
) -> "go.Figure":
    """The study's own figure, else the figure of its findings."""
    plot = study.part("plot")
    if plot is not None:
        return plot(records, **display)
    from mechsub.lab.figures import kinds

    title = (study.doc or study.name).strip().splitlines()[0]
    return kinds.findings(_found(study, records) if found is None else found, title)


def _found(study: Study, records: list[dict]) -> list[findings.Finding]:
    return findings.all_findings(_cells(study, records), study.part("comparisons"))


def _cells(study: Study, records: list[dict]) -> list[findings.Cell]:
    return findings.cells(records, study.Config, study.needed("findings"), study.together)


def _records(study: Study, cells: Iterable[Path]) -> list[dict] | None:
    """All rows; None for a study that is shown by the findings of each cell alone."""
    own = ("table", "plot", "comparisons")
    whole = study.together or study.judged or any(study.part(name) is not None for name in own)
    if study.part("findings") is not None and not whole:
        return None
    return records_of(study, cells)


def _found_in(study: Study, cells: Iterable[Path]) -> list[findings.Finding]:
    """Findings of cells that are read one by one; their rows are not kept, so that there may be 100,000."""
    each = (findings.cells(store.read_records(cell), study.Config, study.needed("findings")) for cell in cells)
    return findings.all_findings(findings.labelled(itertools.chain.from_iterable(each)))


def planned(study: Study, argv: list[str], out: str | None = None) -> tuple[dict[Path, str], dict[str, tuple]]:
    """The cells that a command of a study names, each with its status, and the values of display options.

    out: root of the results; without it, that of the command. ValueError where both say one, and for bad options.
    """
    if out is not None and any(word.partition("=")[0] == "--out" for word in argv):
        raise ValueError(f"--out stands in {shlex.join(argv)!r}, whose cells are those under {out}; leave it out")
    options, values, display = command_line(study, argv, _refuse_argv)
    grid = grid_of(study.Config, values, Path(options.out if out is None else out) / study.name, display)
    return {cell: status(cell, cfg, study).kind for cell, cfg in grid.items()}, display


def _refuse_argv(message: str):
    raise ValueError(message)


def _stop(message: str, code: int) -> NoReturn:
    clear_bar()
    terminal.stop(message, code)


def _explanation(error: Exception, debug: bool) -> str:
    if isinstance(error, store.DamagedCell | workers.Failed):
        return str(error)
    where = ", ".join(reversed(getattr(error, "__notes__", ["the study"])))
    if short := devices.ran_out(error):
        return f"{where} failed: {short}; use fewer seeds, a smaller batch, or --device cpu"
    hint = "" if debug else " (--debug shows the traceback)"
    return f"{where} failed: {type(error).__name__}: {str(error)[:600]}{hint}"


# The grid.


def grid_of(Config, values: Mapping[str, tuple], folder: Path, display: Mapping[str, tuple]) -> dict[Path, Options]:
    """Folder and Config of every cell of the grid. Raises ValueError for options that are not for each other."""
    cells = {}
    for combination in itertools.product(*values.values()):
        cfg = Config(**dict(zip(values, combination, strict=True)))
        getattr(cfg, "check", lambda **display: None)(**display)
        cells[folder / name_of(cfg)] = cfg
    return cells


def _grid_name(Config, values: Mapping[str, tuple]) -> str:
    defaults = {field.name: default_values(field) for field in dataclasses.fields(Config)}
    return store.name({key: chosen for key, chosen in values.items() if chosen != defaults[key]})


def _checked_folder(out: str, name: str) -> Path:
    """The study's folder of results. Raises where it cannot be written; creates nothing."""
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


def _print_status(grid: Mapping[Path, Options], maker: Maker) -> None:
    missing = {}
    for cell, cfg in grid.items():
        known = status(cell, cfg, maker.study)
        why = f"  ({known.reason})" if known.kind == "stale" else ""
        print(f"{known.kind:8}{cell}{why}")
        if known.kind == "missing":
            missing[cell] = cfg
            _print_upstream(maker, cfg, "  ")
    seconds = sum(_expected(missing, next(iter(grid)).parent).values())
    if seconds >= 1:
        print(f"missing cells: about {durations.words(seconds)} one after the other, as like cells took")


def _expected(wanted: Mapping[Path, Options], folder: Path) -> dict[Path, float]:
    """Seconds of each of these cells, without upstream cells; of none where no cell of the study is stored."""
    known = durations.known(folder) if wanted else []
    about = {cell: durations.expected(config_of(cfg), known) for cell, cfg in wanted.items()}
    return {cell: seconds for cell, seconds in about.items() if seconds is not None}


def _print_upstream(maker: Maker, cfg: Options, indent: str) -> None:
    """Print the upstream cells of a missing cell."""
    for wanted, theirs, theirs_cfg in planned_upstream(maker, cfg).values():
        path = theirs.cell(theirs_cfg)
        known = status(path, theirs_cfg, theirs.study)
        if known.kind != "stored" and not wanted.optional:
            print(f"{indent}built on {path}: {known.kind}")
            _print_upstream(theirs, theirs_cfg, indent + "  ")


def _make_wanted(
    grid: Mapping[Path, Options], maker: Maker, options: argparse.Namespace, words: list[str]
) -> list[str]:
    """Make every cell that is not stored (all cells with --rerun); returns names of stale cells that are used."""
    wanted: dict[Path, str | None] = {}
    stale = []
    folder = next(iter(grid)).parent
    store.clean(folder)
    for cell, cfg in grid.items():
        # In this order: what another process stores in between is stored, or made, and in no case to be made again.
        before, known = store.made(cell), status(cell, cfg, maker.study)
        if known.kind == "missing" or options.rerun:
            _refuse_newer(cell, maker.study)
            wanted[cell] = before
        elif known.kind == "damaged":
            store.checked(cell)
        elif known.kind == "stale":
            stale.append(cell.name)
            remedy = "update the code" if _newer(cell, maker.study) else "--rerun recomputes it"
            print(f"stale: {cell}: {known.reason}; {remedy}", file=sys.stderr)
    _hint_at_edits([cell for cell in grid if cell not in wanted], maker.study)
    if options.executor == "local" and wanted:  # a node of a cluster has other memory: its worker asks
        device = _checked_device(options.device) if options.device else None
        for cell in wanted:
            with part(f"cell {cell}"):
                try:
                    with on_device(options.device):
                        check_whole(maker, grid[cell])
                except (ValueError, sources.Unavailable) as error:
                    _stop(str(error), 2)
        if device:
            print(f"device: {device}", file=sys.stderr)
    if wanted:
        _point_elsewhere(maker.study, options.out)
    with no_empty(folder):
        try:
            seconds = _expected({cell: grid[cell] for cell in wanted}, folder)
            _run(wanted, lambda cell: _make_shown(maker, grid[cell], wanted[cell]), words, options, seconds)
        finally:
            clear_bar()
    store.clean(folder)
    return stale


def _point_elsewhere(study: Study, out: str) -> None:
    """Name the cells of the checkout to who runs its study in a folder without results: they may be what is wanted."""
    there = finder.results_elsewhere(out)
    if there is None or study.source is None or not study.source.is_relative_to(finder.folder().resolve()):
        return
    if n := len(store.complete_cells(there / study.name)):
        print(
            f"note: there is no {out} in this folder; {there} has {n} stored cells of {study.name}: --out "
            f"{shlex.quote(str(there))} reads and adds to them",
            file=sys.stderr,
        )


def _checked_device(name: str) -> str:
    """The device in words."""
    try:
        return devices.described(devices.found(name))
    except ValueError as error:
        _stop(f"--device: {error}", 2)


def _run(
    wanted: Mapping[Path, str | None],
    make_one: Callable[[Path], None],
    words: list[str],
    options: argparse.Namespace,
    seconds: Mapping[Path, float],
) -> None:
    """`seconds`: of every cell, as far as known."""
    ends = time.monotonic() + sum(seconds.values()) / min(options.workers or 1, len(wanted) or 1)

    def begin(cell: Path) -> None:
        about = seconds.get(cell, 0.0)
        if about >= SILENCE:  # before that a log says nothing
            say_begun(f"making {cell.name}, about {durations.words(about)}, as like cells took", options.quiet)

    def show(text: str) -> None:
        left = ends - time.monotonic()
        start_bar(f"{text}, about {durations.words(left)} left" if left >= 1 else text, options.quiet)

    if not wanted:
        return
    if options.executor == "slurm":
        from mechsub.lab import slurm

        slurm.run(wanted, words, options.workers, show)
    else:
        workers.run(wanted, make_one, words, options, show, begin)


def _make_shown(maker: Maker, cfg: Options, before: str | None) -> None:
    """Make a cell that the bar, or the log, names until it is made."""
    try:
        make(maker, cfg, before)
    finally:
        end_cell()


def _refuse_newer(cell: Path, study: Study) -> None:
    """Refuse to replace numbers of a newer version by those of an older one."""
    if newer := _newer(cell, study):
        raise ValueError(f"{newer}; update the code, or give another --out")


def _newer(cell: Path, study: Study) -> str:
    """A line where the cell has a newer version, else ""."""
    try:
        made = store.read_provenance(cell)
    except store.DamagedCell:
        return ""
    if made and made.get("version", 0) > study.version:
        return f"{cell} was made by version {made['version']} of its study, and this is version {study.version}"
    return ""


def _hint_at_edits(known: Iterable[Path], study: Study) -> None:
    """For a study without probes: name the files edited since its cells were made. Its author decides."""
    if study.source is None:
        return
    codes: dict[tuple, None] = {}  # most cells have one code, whose files are read once
    for cell in known:
        with contextlib.suppress(store.DamagedCell):
            codes[tuple((store.read_provenance(cell) or {}).get("code", {}).items())] = None
    changed = dict.fromkeys(name for code in codes if code for name in versions.edited(dict(code), study.folder))
    if changed:
        names = ", ".join(changed)
        print(
            f"note: {names} changed since stored cells were made; if that changes numbers, raise the version in "
            f"{study.source.name}",
            file=sys.stderr,
        )


def _draw(figure, path: Path, stale: list[str]) -> None:
    from mechsub.lab.figures import kinds as plot

    if stale:
        plot.add_caption(figure, f"Stale: {', '.join(stale)}.")
    plot.write_figure(figure, path)
