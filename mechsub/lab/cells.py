"""Cells of a study: their Configs and names, whether they are stored, and how they are made.

A cell is one Config and one folder, `<out>/<study>/<cell>/`. One process at a time makes it, with the cells on which it
is built.
"""

import contextlib
import dataclasses
import shlex
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechsub import files
from mechsub.lab import lease, store, versions
from mechsub.lab.declared import Options, Study
from mechsub.lab.options import check_values
from mechsub.lab.upstream import Stored, Upstream
from mechsub.machine import devices

_OWN_PROVENANCE = {
    *("study", "version", "config", "read", "made_from", "upstream_versions", "code", "certified"),
    *("records", "tensors", "git", "command", "versions", "created", "format", "seal"),
}


_LONG = 200  # words of a command that every cell of it repeats


@dataclass(frozen=True)
class Maker:
    """The maker of cells: a study, the root of the results, the words of the command, and the device that it names."""

    study: Study
    out: Path
    argv: tuple[str, ...] = ()
    device: str | None = None

    def cell(self, cfg: Options) -> Path:
        return self.out / self.study.name / name_of(cfg)

    def of(self, study: Study) -> "Maker":
        return dataclasses.replace(self, study=study)


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Name the part of the work in which an exception arose; parts within parts are all named."""
    try:
        yield
    except Exception as error:
        error.add_note(name)
        raise


# Configs and names.


def config_of(cfg: Options) -> dict:
    """The fields that make the cell."""
    fields = (field for field in dataclasses.fields(cfg) if not field.metadata.get("display"))
    return {field.name: getattr(cfg, field.name) for field in fields}


def defaults_of(Config: Options | type[Options]) -> dict:
    """Defaults of a Config class or of an instance."""
    return {field.name: field.default for field in dataclasses.fields(Config)}


def name_of(cfg: Options) -> str:
    """The name of the cell of a Config."""
    return store.cell_name(config_of(cfg), defaults_of(cfg))


def by_cell(
    records: Iterable[dict], Config: Options | type[Options], together: Sequence[str] = ()
) -> list[tuple[str, list[dict]]]:
    """Records cell by cell, each with a label of the options that differ between cells ("all" if there is one).

    Cells that differ only in the options `together` count as one.
    """
    records = list(records)
    # A cell that was made before an option existed was made with what is its default.
    fields = {f.name: f.default for f in dataclasses.fields(Config) if not f.metadata.get("display")}
    fields = {name: usual for name, usual in fields.items() if name not in together}
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault(tuple(record.get(name, usual) for name, usual in fields.items()), []).append(record)
    labels = labels_of([dict(zip(fields, values, strict=True)) for values in groups])
    return [(label or "all", rows) for label, rows in zip(labels, groups.values(), strict=True)]


def labels_of(named: Sequence[Mapping]) -> list[str]:
    """A label for each of these options: those that differ between them. Text is quoted where labels would be equal."""
    differing = [name for name in (named[0] if named else ()) if len({options[name] for options in named}) > 1]
    labels = [", ".join(f"{name}={options[name]}" for name in differing) for options in named]
    if len(set(labels)) < len(labels):
        labels = [", ".join(f"{name}={options[name]!r}" for name in differing) for options in named]
    return labels


def records_of(study: Study, stored: Iterable[Path]) -> list[dict]:
    """The rows of several stored cells. Raises ValueError where two are of one Config: rows do not tell them apart."""
    stored = list(stored)
    for one, other in twins(study, stored):
        raise ValueError(f"{one} and {other} were made with the same options; --rerun makes the stale one again")
    return [row for cell in stored for row in store.read_records(cell)]


def twins(study: Study, stored: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs of stored cells of one Config.

    There is such a pair where a default changed: the older cell lies in the folder of the new default.
    """
    first: dict[frozenset, Path] = {}
    pairs = []
    for cell in stored:
        config = {**defaults_of(study.Config), **(store.read_provenance(cell) or {}).get("config", {})}
        own = frozenset((name, repr(value)) for name, value in config.items())
        if first.setdefault(own, cell) != cell:
            pairs.append((first[own], cell))
    return pairs


# Whether a cell is stored.


def stale_line(cell: Path, made: Mapping, study: Study, finder: versions.Finder) -> str:
    """A line that says why a whole cell is not what its own Config would give today; "" where it is.

    For readers that meet cells by their folders. A cell whose folder stands for another Config today is stale too.
    """
    try:
        cfg = study.Config(**made["config"])
    except (TypeError, ValueError) as error:
        return f"{cell} has options that its study no longer takes ({error})"
    if (name := name_of(cfg)) != cell.name:
        return f"{cell} would be named {name} today: its defaults have changed"
    reason = versions.why_stale(cell, made, study.version, config_of(cfg), defaults_of(cfg), finder)
    return f"{cell}: {reason}" if reason else ""


def status(cell: Path, cfg: Options, study: Study) -> versions.Status:
    """Whether the cell is what its study would store today, and why not."""
    known = versions.status(cell, study.version, config_of(cfg), defaults_of(cfg), study.sibling)
    if known.kind == "stored" and study.source is None:
        then = (store.read_provenance(cell) or {}).get("code", {}).get("run")
        if then != _run_sum(study.run):
            return versions.Status("stale", "it was made by another run of a notebook")
    return known


def _run_sum(run: Callable) -> str:
    """Sum of the compiled code of a `run` without a file, whose versions cannot be told apart otherwise."""

    def parts(code: types.CodeType) -> Iterator[str]:
        yield f"{code.co_code.hex()} {code.co_names}"
        for constant in code.co_consts:
            yield from parts(constant) if isinstance(constant, types.CodeType) else [repr(constant)]

    return files.sha256("\n".join(parts(run.__code__)).encode())


def planned_upstream(maker: Maker, cfg: Options) -> dict[str, tuple[Upstream, Maker, Options]]:
    """Name -> the declared cell, its maker, and its Config. ValueError where its study is absent."""
    declare = maker.study.part("upstream")
    planned = {}
    for name, wanted in (declare(cfg) if declare else {}).items():
        theirs = maker.study.sibling(wanted.study)
        if theirs is None:
            if wanted.optional:
                continue
            raise ValueError(f"{maker.study.name} is built on the study {wanted.study!r}, which is not found")
        planned[name] = (wanted, maker.of(theirs), theirs.Config(**wanted.options))
    return planned


# Making.


def make_cell(study: Study, cfg: Options, out: str | Path) -> Path:
    """Make one cell of a study under `out`, with its upstream cells, in this process; a stored cell stays as it is."""
    check_values(cfg)
    maker = Maker(study, Path(out))
    make(maker, cfg, None)
    return maker.cell(cfg)


def run_here(study: Study, cfg: Options, out: str | Path) -> Iterator[dict]:
    """The rows that a study yields for a Config, with the stored cells under `out`; nothing is stored."""
    check_values(cfg)
    yield from study.run(cfg, **resolve(Maker(study, Path(out)), cfg))


def make(maker: Maker, cfg: Options, before: str | None) -> None:
    """Make a cell, unless its state is not `before`: then another process made it. Waits for a process at work."""
    cell = maker.cell(cfg)
    while store.made(cell) == before:
        try:
            with part(f"cell {cell}"), lease.hold(cell) as check:
                store.recover(cell)
                if store.made(cell) == before:
                    _run_cell(maker, cfg, check)
                return
        except lease.Lost:  # this process was taken for dead: what the other makes is as good
            continue


def check(study: Study, cfg: Options) -> None:
    """Ask the study whether this cell may be made."""
    asked = study.part("check")
    if asked is not None:
        asked(cfg)


def check_whole(maker: Maker, cfg: Options) -> None:
    """Ask the study, and those of missing cells on which this cell is built, whether they may be made."""
    check(maker.study, cfg)
    for wanted, theirs, theirs_cfg in planned_upstream(maker, cfg).values():
        made_here = not (wanted.optional or wanted.beforehand)
        if made_here and status(theirs.cell(theirs_cfg), theirs_cfg, theirs.study).kind == "missing":
            check_whole(theirs, theirs_cfg)


def resolve(maker: Maker, cfg: Options) -> dict[str, Stored | None]:
    """The upstream cells of a cell; missing ones are made first. None for an optional cell that is not stored."""
    cells: dict[str, Stored | None] = {}
    declare = maker.study.part("upstream")
    cells.update(dict.fromkeys(declare(cfg) if declare else ()))
    planned = sorted(planned_upstream(maker, cfg).items(), key=lambda item: not item[1][0].beforehand)
    for name, (wanted, theirs, theirs_cfg) in planned:
        path = theirs.cell(theirs_cfg)
        if wanted.beforehand:
            _check_stored(theirs, theirs_cfg)
        elif not wanted.optional:
            _make_upstream(theirs, theirs_cfg)
        elif status(path, theirs_cfg, theirs.study).kind != "stored":
            continue
        cells[name] = Stored(path)
    return cells


def _make_upstream(maker: Maker, cfg: Options) -> None:
    cell = maker.cell(cfg)
    before = store.made(cell)
    if status(cell, cfg, maker.study).kind == "missing":
        with no_empty(cell.parent):
            store.clean(cell.parent)
            make(maker, cfg, before)
    _check_stored(maker, cfg)


def _own_words(cfg: Options) -> list[str]:
    """The words after the study's name in a command that makes this cell alone."""
    defaults = defaults_of(cfg)
    changed = {name: value for name, value in config_of(cfg).items() if value != defaults.get(name)}
    shown = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in changed.items()}
    return [word for name, value in shown.items() for word in (f"--{name.replace('_', '-')}", value)]


def _check_stored(maker: Maker, cfg: Options) -> None:
    cell = maker.cell(cfg)
    known = status(cell, cfg, maker.study)
    if known.kind == "stored":
        return
    words = shlex.join(["python", "-m", maker.study.dotted, *_own_words(cfg)])
    why, again = (f" ({known.reason})" if known.kind == "stale" else ""), "" if known.kind == "missing" else " --rerun"
    raise ValueError(f"{cell} is {known.kind}{why}; run {words}{again} first")


@contextlib.contextmanager
def no_empty(folder: Path) -> Iterator[None]:
    """Remove the empty folders of a failed first run: that of the study, and a new one of the store."""
    new = [path for path in folder.parents if not path.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in (folder, *new):
                path.rmdir()


def _run_cell(maker: Maker, cfg: Options, check_lease: Callable[[], None]) -> None:
    with on_device(maker.device):  # whose memory it may ask for
        check(maker.study, cfg)
    upstream = resolve(maker, cfg)
    # Read before the run: a cell that is made anew meanwhile is not what this one was built on.
    built_on = {f"{used.path.parent.name}/{used.path.name}": used.provenance() for used in upstream.values() if used}
    cell, started, config = maker.cell(cfg), time.perf_counter(), config_of(cfg)
    with on_device(maker.device):
        with files.noting() as inputs:
            rows, extra, tensors = _collect(config, maker.study.run(cfg, **upstream))
        made = {
            **_identity(config, maker.study, inputs, built_on),
            "command": _shown_command(maker, cfg),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.perf_counter() - started, 3),
            **_circumstances(maker.study),
        }
    store.write_cell(cell, rows, {**made, **extra}, tensors, check_lease)


def on_device(name: str | None) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if name is None else devices.on(devices.found(name))


def _identity(config: Mapping, study: Study, inputs: dict, built_on: Mapping[str, Mapping]) -> dict:
    """The parts of provenance that decide later whether the cell would come out the same."""
    upstream_versions: dict[str, int] = {}
    for name, made in built_on.items():
        upstream_versions |= {**made.get("upstream_versions", {}), name.split("/")[0]: made["version"]}
        inputs = {**made.get("read", {}), **inputs}
    return {
        "study": study.name,
        "version": study.version,
        "config": config,
        **({"read": dict(sorted(inputs.items()))} if inputs else {}),
        **({"made_from": {name: store.sums_in(made) for name, made in built_on.items()}} if built_on else {}),
        **({"upstream_versions": dict(sorted(upstream_versions.items()))} if upstream_versions else {}),
        **_code(study),
    }


def _code(study: Study) -> dict:
    """Sums of the code of a study that has no probes."""
    if study.source is None:
        return {"code": {"run": _run_sum(study.run)}}
    if study.probes is not None:
        return {}
    return {"code": versions.code_sums(study.folder, sys.modules)}


def _shown_command(maker: Maker, cfg: Options) -> list[str]:
    """The command as it was typed; in a cell of a long sweep, the command of this cell alone."""
    words = maker.argv if len(maker.argv) <= _LONG else _own_words(cfg)
    return [*(["a notebook"] if maker.study.source is None else ["python", "-m", maker.study.dotted]), *words]


def _circumstances(study: Study) -> dict:
    from mechsub.machine import provenance

    return {"peak_memory_mb": provenance.peak_memory_mb(), **provenance.environment(study.folder)}


def _add(known: dict, more: Mapping, what: str) -> None:
    if again := [name for name in more if name in known]:
        raise ValueError(f"a run yielded {what} {again[0]!r} twice; give each a name of its own")
    known.update(more)


def _collect(config: Mapping, yielded: Iterable[Mapping]) -> tuple[list[dict], dict, dict]:
    """Rows to store, the run's additions to the provenance, and tensors."""
    rows: list[dict] = []
    extra: dict = {}
    tensors: dict = {}
    for item in yielded:
        if isinstance(item, Mapping) and set(item) == {"provenance"}:
            _add(extra, store.record_row({}, item["provenance"]), "the provenance")
        elif isinstance(item, Mapping) and set(item) == {"tensors"}:
            _add(tensors, item["tensors"], "the tensor")
        else:
            rows.append(store.record_row(config, item))
    if own := sorted(_OWN_PROVENANCE & set(extra)):
        raise ValueError(f"a run cannot set the provenance {own[0]!r}")
    if not rows:
        raise ValueError("run yielded no records")
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"tensor {broken[0]!r} holds NaN or infinite values")
    return rows, extra, tensors
