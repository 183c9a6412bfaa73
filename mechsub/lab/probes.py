"""Probes: tiny cells of every study, whose rows are kept and made again, so that a change of numbers is noticed.

    python -m mechsub recheck --probes [--studies NAME ...]            # make them again and compare
    python -m mechsub recheck --probes --record [--studies NAME ...]   # keep the rows of today

A study declares probes as Configs, `lab.Study(probes=...)`. `tests/probes/<study>/<cell>.jsonl` keeps each: a first
line with the study's version and the processor, then the cell's rows without its options, then its tensors.

On the same processor (vendor, model, features, caches) the bytes must be equal. On another processor every number may
differ by the tolerance in the first line. The tolerance is four times the difference between this processor's
instructions and those of others, measured at recording; environment variables of the libraries imitate the others.
"""

import json
import math
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mechsub import files
from mechsub.lab import cells, finder, remaking, store
from mechsub.machine import provenance

# One thread, and instructions that most processors have: bytes then rarely depend on the processor.
ENVIRONMENT = {
    **remaking.ONE_THREAD,
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "PYTHONHASHSEED": "0",
    "MECHSUB_PRECISION": "fp32",
}
# What other processors would use: for the tolerance.
OTHERS = (
    {**ENVIRONMENT, "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "AVX2"},
    {**remaking.ONE_THREAD, "MECHSUB_PRECISION": "fp32"},
)
MARGIN = 4.0
SMALLEST = 1e-6  # tolerance of a number, relative to the largest of its field
SAMPLE = 400  # values of a tensor that are kept; of a larger one every n-th


class Probe(NamedTuple):
    study: str
    cfg: Any  # an instance of the study's Config; None of a file that belongs to no probe
    path: Path  # of what is kept

    @property
    def name(self) -> str:
        return f"{self.study} {self.path.stem}"


class Checked(NamedTuple):
    probe: Probe
    problem: str  # "" where what was made is what is kept
    seconds: float


def of_study(name: str) -> list[Probe]:
    """The probes that a study declares. Raises ValueError for a study that is not found, or declares none."""
    study = finder.find_study(name)
    if study is None:
        raise ValueError(f"there is no study {name!r}")
    if study.probes is None:
        raise ValueError(f"studies.{name} declares no probes")
    folder = _root() / "tests" / "probes" / name
    return [Probe(name, cfg, folder / f"{cells.name_of(cfg)}.jsonl") for cfg in study.probes]


def studies() -> list[str]:
    """All studies that declare probes."""
    found = {name: finder.find_study(name) for name in finder.all_names()}
    return [name for name, study in found.items() if study is not None and study.probes is not None]


def _version(probe: Probe) -> int:
    study = finder.find_study(probe.study)
    if study is None:
        raise ValueError(f"there is no study {probe.study!r}")
    return study.version


def _root() -> Path:
    """The checkout, in which tests stand beside the studies."""
    return finder.folder().parent


def check(names: Iterable[str], workers: int = 1) -> Iterator[Checked]:
    """Make the probes of these studies again and compare each with its kept rows; yields each as it is done."""
    names = list(names)
    probes = [probe for name in names for probe in of_study(name)]
    for name in names:
        yield from _strays(name, probes)
    kept = {}
    for probe in probes:
        try:
            kept[probe] = read(probe)
        except ValueError as error:
            yield Checked(probe, str(error), 0.0)
    for probe, rows, seconds in make(kept, workers, ENVIRONMENT):
        problem = rows if isinstance(rows, str) else compare(probe, *kept[probe], rows)
        yield Checked(probe, problem, seconds)


def _strays(name: str, probes: Iterable[Probe]) -> Iterator[Checked]:
    known = {probe.path for probe in probes if probe.study == name}
    for folder in {path.parent for path in known}:
        for path in sorted(set(folder.glob("*")) - known):
            yield Checked(Probe(name, None, path), f"{path} is of no probe of studies.{name}; delete it", 0.0)


def record(names: Iterable[str], workers: int = 1) -> Iterator[Checked]:
    """Keep the probes' rows of today, then measure the tolerance for other processors, which takes twice as long again.

    A probe whose rows changed while its study's version did not is left as it is, and counts as a problem.
    """
    kept: dict[Probe, list[dict]] = {}
    for probe, rows, seconds in make([probe for name in names for probe in of_study(name)], workers, ENVIRONMENT):
        problem = rows if isinstance(rows, str) else _unraised(probe, rows)
        if not problem and not isinstance(rows, str):
            kept[probe] = rows
            _write(probe, rows, {}, set())
        yield Checked(probe, problem, seconds)
    tolerance: dict[Probe, dict[str, float]] = {probe: {} for probe in kept}
    loose: dict[Probe, set[str]] = {probe: set() for probe in kept}
    for environment in OTHERS:
        for probe, rows, seconds in make(kept, workers, environment):
            if isinstance(rows, str):
                yield Checked(probe, rows, seconds)
                continue
            for key, value in remaking.rows_apart(kept[probe], rows).items():
                if isinstance(value, str):
                    loose[probe].add(key)
                else:
                    tolerance[probe][key] = max(tolerance[probe].get(key, 0.0), value)
            _write(probe, kept[probe], tolerance[probe], loose[probe])


def make(
    probes: Iterable[Probe], workers: int, environment: Mapping[str, str]
) -> Iterator[tuple[Probe, list[dict] | str, float]]:
    """Rows of every probe, or its error, and its seconds; probes of one study share their upstream cells."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = {_task(probe, Path(folder) / probe.study): probe for probe in probes}
        for made in remaking.make_all(tasks, workers, environment):
            rows = f"it cannot be made: {made.error}" if made.error else rows_of_cell(made.task.cell)
            yield tasks[made.task], rows, made.seconds


def _task(probe: Probe, out: Path) -> remaking.Task:
    return remaking.Task(probe.study, cells.name_of(probe.cfg), cells.config_of(probe.cfg), out)


def rows_of_cell(cell: Path) -> list[dict]:
    """The numbers of a cell: its rows without its options, then its tensors (a sample of a large tensor)."""
    made = store.read_provenance(cell) or {}
    options = set(made["config"])
    rows = [{key: value for key, value in row.items() if key not in options} for row in store.read_records(cell)]
    for name, tensor in sorted(store.read_tensors(cell).items()):
        flat = tensor.detach().double().flatten() if tensor.is_floating_point() else tensor.flatten()
        step = max(1, math.ceil(flat.numel() / SAMPLE))
        total = float(flat.double().sum())
        rows.append({"tensor": name, "shape": list(tensor.shape), "sum": total, "values": flat[::step].tolist()})
    return rows


# What is kept.


def read(probe: Probe) -> tuple[dict, list[dict]]:
    """The kept first line and rows. Raises ValueError where they are missing, damaged or too new."""
    again = f"python -m mechsub recheck --probes --record --studies {probe.study}"
    try:
        head, _, body = probe.path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{probe.path} is missing or cannot be read; restore it, or record it: {again}") from None
    try:
        first = json.loads(head)
        version = first["version"]
        numbers = [version, *first["tolerance"].values()]
        forms = isinstance(first["processor"], dict) and isinstance(first["loose"], list) and type(version) is int
        whole = first["sha256"] == files.sha256(body.encode()) and forms and min(numbers) >= 0 < version
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError(f"{probe.path} is damaged; restore it, or delete it and record it: {again}")
    if version > (now := _version(probe)):
        raise ValueError(f"{probe.path} is of version {version}, and studies.{probe.study} says {now}; update the code")
    return first, [json.loads(line) for line in body.splitlines()]


def compare(probe: Probe, first: Mapping, kept: list[dict], rows: list[dict]) -> str:
    """The difference between kept rows and today's; "" where no difference counts."""
    if first["version"] < (now := _version(probe)):
        return (
            f"what is kept is of version {first['version']}, and studies.{probe.study} says {now}; "
            f"record it: python -m mechsub recheck --probes --record --studies {probe.study}"
        )
    if not (apart := _apart(first, kept, rows)):
        return ""
    return (
        f"{remaking.first_difference(kept, rows)}; in all {_told(apart)}. Mend the code; or, if the numbers are meant "
        f"to change, raise the version of studies.{probe.study} and record the probe: "
        f"python -m mechsub recheck --probes --record --studies {probe.study}"
    )


def _apart(first: Mapping, kept: list[dict], rows: list[dict]) -> dict[str, float | str]:
    """Differing fields: any difference on the processor of the kept rows, else differences above the tolerance."""
    apart = remaking.rows_apart(kept, rows)
    if first["processor"] == processor():
        return apart
    return {key: value for key, value in apart.items() if not _tolerated(value, key, first)}


def _tolerated(value: float | str, key: str, first: Mapping) -> bool:
    if isinstance(value, str):
        return key in first["loose"]
    return value <= first["tolerance"].get(key, 0.0)


def _told(apart: Mapping[str, float | str]) -> str:
    return ", ".join(f"{key} {value if isinstance(value, str) else f'by {value:.1e}'}" for key, value in apart.items())


def _unraised(probe: Probe, rows: list[dict]) -> str:
    """The problem where other rows would be kept under the same version."""
    if not probe.path.exists():
        return ""
    try:
        first, kept = read(probe)
    except ValueError as error:
        return str(error)
    same = first["version"] == _version(probe)
    if not same or not _apart(first, kept, rows):
        return ""
    return (
        f"{remaking.first_difference(kept, rows)}, and the version of studies.{probe.study} is still "
        f"{first['version']}; raise it first: cells that are stored would not come out the same"
    )


def _write(probe: Probe, rows: list[dict], measured: Mapping[str, float], loose: Iterable[str]) -> None:
    """measured: field -> largest difference under other instructions; loose: fields that differ and are no numbers."""
    body = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    tolerance = {
        key: max(float(f"{MARGIN * measured.get(key, 0.0):.1g}"), float(f"{SMALLEST * scale:.1g}"))
        for key, scale in _scales(rows).items()
    }
    first = {
        "version": _version(probe),
        "processor": processor(),
        "versions": provenance.versions(),
        "tolerance": dict(sorted(tolerance.items())),
        "loose": sorted(loose),
        "sha256": files.sha256(body.encode()),
    }
    files.write_text(probe.path, json.dumps(first) + "\n" + body)


def _scales(rows: Iterable[Mapping]) -> dict[str, float]:
    """Field -> the largest of its floating-point numbers, lists and dicts included."""
    scales: dict[str, float] = {}
    for row in rows:
        for key, value in row.items():
            if numbers := list(_floats(value)):
                scales[key] = max([scales.get(key, 0.0), *map(abs, numbers)])
    return scales


def _floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _floats(each)


def processor() -> dict:
    """The properties of a processor by which the libraries choose kernels."""
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return {
        "machine": platform.machine(),
        **provenance.cpu(),
        "caches": [path.read_text().strip() for path in caches],
    }
