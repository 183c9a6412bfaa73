"""One folder that can be sent: stored cells, their tables and figures, and a manifest with the sum of every file.

README.md                      the content of the folder, and every column of the tables
manifest.json                  sha256 and size of every file; versions and commit of the code that wrote the folder
cells/<study>/<cell>/          as they are stored; `python -m mechsub import` puts them into a store
tables/<study>/                records and findings, each as .csv and .parquet
figures/<study>/figure.html    and figure.svg
report/                        files that were given beside them, such as a page of answers
"""

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mechsub import files
from mechsub.lab import finder, findings, flat, frames, imports, manifest, options, store
from mechsub.lab.cells import records_of
from mechsub.lab.declared import Study
from mechsub.lab.figures import export as images
from mechsub.lab.study import figure_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

TABLES, FIGURES, REPORT, README = "tables", "figures", "report", "README.md"


@dataclass
class Sent:
    """A study as it stands in an export."""

    name: str
    study: Study | None  # None where it is not found: then there are no findings and no figure
    stale: dict[str, str]  # name of a cell -> why
    cells: int
    rows: int
    columns: list[tuple[str, str, str]]  # of the records: name, what it holds, what it is
    figure: "go.Figure | None" = None
    left_out: list[str] = field(default_factory=list)  # a line for everything that could not be made


def studies_in(root: Path) -> list[str]:
    """Studies that have complete cells under `root`."""
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name.isidentifier())
    return [name for name in names if store.complete_cells(root / name)]


def write(path: Path, root: Path, names: Sequence[str], report: Sequence[Path] = ()) -> list[str]:
    """Export these studies of a store into a new folder, which appears whole or not at all.

    report: files that are sent too. Returns a line for every part that is left out. Raises FileExistsError, DamagedCell
    for a damaged cell, and manifest.Wrong for one that no import would take.
    """
    with files.new_folder(path) as fresh:
        sent = [_send(name, root, fresh) for name in names]
        for file in report:
            (fresh / REPORT).mkdir(exist_ok=True)
            shutil.copyfile(file, fresh / REPORT / file.name)
        left_out = _write_images(fresh, sent) + [line for each in sent for line in each.left_out]
        files.write_text(fresh / README, "\n".join(_readme(sent, left_out)) + "\n")
        manifest.write(fresh, {"studies": {each.name: _about(each) for each in sent}, "left_out": left_out})
    return left_out


def _about(sent: Sent) -> dict:
    version = sent.study.version if sent.study else None
    return {"version": version, "cells": sent.cells, "rows": sent.rows, "stale": sent.stale}


def _send(name: str, root: Path, to: Path) -> Sent:
    """Copy the cells of a study; its tables and its figure are made from the copies."""
    stored = store.complete_cells(root / name)
    cells = [_copy(cell, to / manifest.CELLS / name / cell.name) for cell in stored]
    study, why_not = _found(name)
    table = flat.columns([row for cell in cells for row in frames.rows(cell, study)])
    _write_table(to / TABLES / name / "records", table)
    rows = sum(len(store.read_records(cell)) for cell in cells)
    sent = Sent(name, study, frames.stale(stored), len(cells), rows, _columns(table, study, cells))
    if study is None:
        sent.left_out.append(f"findings and the figure of {name}: {why_not}")
        return sent
    sent.left_out += _tried(f"findings of {name}", lambda: _write_findings(sent, study, cells, to))
    sent.left_out += _tried(f"the figure of {name}", lambda: _write_figure(sent, study, cells, to))
    return sent


def _found(name: str) -> tuple[Study | None, str]:
    """A study, or None and why there is none: its cells travel without it."""
    try:
        return finder.usable_study(name), "its study is not found here"
    except finder.CannotImport as error:
        return None, str(error)


def _copy(cell: Path, to: Path) -> Path:
    contents = store.read_files(cell)
    imports.check_cell(cell)  # before it travels, in the words that would meet it there
    store.write_files(to, contents)
    return to


def _tried(what: str, make: Callable[[], None]) -> list[str]:
    """A line where findings or a figure of all cells together fail; the numbers travel without them."""
    try:
        make()
    except Exception as error:
        return [f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"]
    return []


def _write_table(path: Path, table: dict[str, list]) -> None:
    files.write_bytes(path.with_suffix(".csv"), flat.csv_bytes(table))
    if flat.problem() is None:
        files.write_bytes(path.with_suffix(".parquet"), flat.parquet_bytes(table))


def _write_findings(sent: Sent, study: Study, cells: Sequence[Path], to: Path) -> None:
    """Of cells that are not stale: a comparison of two versions would be no comparison."""
    of_cell, current = study.part("findings"), [cell for cell in cells if cell.name not in sent.stale]
    if of_cell is None:
        return
    if sent.stale:
        sent.left_out.append(f"findings of {sent.name}: of its stale cells {', '.join(sent.stale)}")
    if current:
        found = findings.cells(records_of(study, current), study.Config, of_cell, study.together)
        said = findings.flat(findings.all_findings(found, study.part("comparisons")))
        _write_table(to / TABLES / study.name / "findings", said)


def _write_figure(sent: Sent, study: Study, cells: Sequence[Path], to: Path) -> None:
    from mechsub.lab.figures import kinds

    shown = [each for each in dataclasses.fields(study.Config) if each.metadata.get("display")]
    figure = figure_of(study, records_of(study, cells), {each.name: options.default_values(each) for each in shown})
    if sent.stale:
        kinds.add_caption(figure, f"Stale: {', '.join(sent.stale)}.")
    kinds.write_figure(figure, to / FIGURES / study.name / "figure.html")
    sent.figure = figure


def _write_images(to: Path, sent: Sequence[Sent]) -> list[str]:
    """Write figures as SVG, where this machine can draw them; else return a line with the reason."""
    drawn = {to / FIGURES / each.name / "figure.svg": each.figure for each in sent if each.figure is not None}
    lines = [flat.problem()]
    try:
        images.write_images(drawn)
    except images.Failed as error:
        lines.append(f"figures as SVG: {error}")
    return [line for line in lines if line]


# README.md of the folder.

_HEAD = """\
# Results of mechsub

`cells/` has the stored cells, and `tables/` and `figures/` are made from them; `report/`, where there is one, has a
page with answers. `manifest.json` has the sha256 of every file, and the versions and the commit of the code that wrote
this folder.

    python -m mechsub import FOLDER

checks every file of this folder and puts its cells into a store of their own, foreign/FOLDER.

In `records.csv` and `records.parquet` a row is one record of one cell. Where a record has no such value, the field is
empty. A list is JSON in the CSV and a list in parquet; a dict is JSON in both.

In `findings.csv` and `findings.parquet` a row is one number that a study says of its cells, without its stale ones:

| column | what |
| --- | --- |
| cell | the options in which the cell differs from the study's others |
| key | which number it is: what is measured stands last, after a slash |
| label | the same in words |
| value, low, high | the number, or a word where there is none (then text in parquet), and its 95% interval |
| null, null_low, null_high | what the value is to be compared with, and its interval |
| null_upper, null_share | of a null of many draws: the value that this share of them lies below |
| null_label | what the null is, in words |
| p | of the value being its null, adjusted for the family that the study names |
| unit, n | what is repeated (seeds, animals, ...), and how often |
"""


def _readme(sent: Sequence[Sent], left_out: Sequence[str]) -> Iterator[str]:
    yield _HEAD
    if left_out:
        yield from ("Left out:", "", *(f"* {line}" for line in left_out), "")
    for each in sent:
        yield from _readme_of(each)


def _readme_of(sent: Sent) -> Iterator[str]:
    question = ((sent.study and sent.study.doc) or "").strip().partition("\n")[0]
    yield from (f"## {sent.name}", "", f"{question} Cells: {sent.cells}. Records: {sent.rows}.".strip(), "")
    if sent.stale:
        yield from ("Stale cells, which the code of today would not make so; no finding is of them:", "")
        yield from (*(f"* {name}: {reason}" for name, reason in sent.stale.items()), "")
    yield from (f"Columns of `tables/{sent.name}/records`:", "")
    yield from _markdown([("column", "holds", "what"), *sent.columns])


def _columns(table: dict[str, list], study: Study | None, cells: Sequence[Path]) -> list[tuple[str, str, str]]:
    """Name, type and meaning of every column of the records."""
    made_with = {name for cell in cells for name in frames.options_in(study, cell)}
    fields: dict[str, Mapping] = {}
    if study is not None:
        fields = {each.name: each.metadata for each in dataclasses.fields(study.Config)}
    what = {name: f"option: {fields.get(name, {}).get('help', '')}".removesuffix(": ") for name in made_with}
    what["cell"] = "name of the cell"
    return [(name, flat.kind(values), what.get(name, "measured")) for name, values in table.items()]


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *others = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    for row in (head, ["---"] * len(head), *others):
        yield f"| {' | '.join(row)} |"
    yield ""
