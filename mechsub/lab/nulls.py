"""Cells that are the null of other cells: the same numbers of weights that never saw a text, beside the trained ones.

    def comparisons(cells):
        return nulls.beside(cells, "weights", "trained", "random", "untrained weights")

Where a command names both, what is said of the trained cell stands once more under its key, without a cell before it,
with its null: the mean over the cells of the null, each of which is one replicate.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import mechsub as ms
from mechsub.lab.findings import Cell, Finding


def beside(cells: Sequence[Cell], option: str, own: object, start: str, label: str) -> list[Finding]:
    """Of every cell whose `option` is `own`: its findings beside those of cells that differ in this option alone.

    Those cells' values begin with `start`. A finding with an interval gets another one, under its key and
    "_above_null": the difference of both as independent estimates. What is no number in a cell, or is not there, is
    left out; of one null cell there is a value and no interval.
    """
    found: list[Finding] = []
    for cell in cells:
        if cell.options[option] != own:
            continue
        others = {name: value for name, value in cell.options.items() if name != option}
        alike = [c for c in cells if {k: v for k, v in c.options.items() if k != option} == others]
        null = [c for c in alike if str(c.options[option]).startswith(start)]
        if null:
            found += _of_cell(cell, null, _rest(cell.label, option), label)
    return found


def _rest(label: str, option: str) -> str:
    """What differs between cells besides the option."""
    return ", ".join(part for part in label.split(", ") if not part.startswith(f"{option}="))


def _of_cell(cell: Cell, null: Sequence[Cell], name: str, label: str) -> Iterator[Finding]:
    said = [{finding.key: _number(finding.value) for finding in of.findings} for of in null]
    for finding in cell.findings:
        values = [found.get(finding.key) for found in said]
        known = [value for value in values if value is not None]
        if len(known) < len(values) or _number(finding.value) is None:
            continue
        beneath = ms.stats.student_t(known) if len(known) > 1 else known[0]
        words = f"{label}, {len(known)} draws" if len(known) > 1 else f"{label}, one draw"
        yield replace(finding, null=beneath, p=None, null_label=words, cell=name)
        if isinstance(finding.value, ms.stats.Interval) and isinstance(beneath, ms.stats.Interval):
            above = ms.stats.independent_difference(finding.value, beneath)
            yield replace(
                finding, key=f"{finding.key}_above_null", label=f"{finding.label}, less that of {label}", value=above,
                null=0.0, p=None, null_label="", cell=name, scores={},
            )  # fmt: skip


def _number(value: object) -> float | None:
    """The mean of an interval, or a number; None for words and what is not finite."""
    number = value.mean if isinstance(value, ms.stats.Interval) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return float(number)
