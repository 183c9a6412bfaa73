"""Cells that are the null of other cells: the same findings for weights that never saw a text.

    comparisons = nulls.of_weights

Where a command names both kinds, each finding of the trained cell stands once more under its key, without a cell before
it. Its null is the mean over the cells of the null; each of these cells is one replicate.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import mechsub as ms
from mechsub.lab.findings import Cell, Finding


def beside(cells: Sequence[Cell], option: str, own: object, start: str, label: str) -> list[Finding]:
    """Findings of every cell whose `option` is `own`, beside those of null cells, which differ in this option alone.

    A null cell's value of the option begins with `start`. For a finding with an interval there is a second finding,
    under its key and "_above_null": the difference of value and null as independent estimates. A value that is no
    number in a cell, or missing, is left out. One null cell gives a value and no interval.
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


def of_weights(cells: Sequence[Cell]) -> list[Finding]:
    """What is said of trained weights, beside the same of weights that never saw a text."""
    return beside(cells, "weights", "trained", "random", "untrained weights")


def _rest(label: str, option: str) -> str:
    """The options other than `option`."""
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
    """The mean of an interval, or a number; None for words and for values that are not finite."""
    number = value.mean if isinstance(value, ms.stats.Interval) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return float(number)
