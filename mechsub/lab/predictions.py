"""Reads predictions.toml: entries for mechsub.lab.verdicts, and the rule for the law of the inputs."""

import functools
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence

from mechsub.lab import finder, verdicts
from mechsub.lab.findings import Cell, Finding

FILE = finder.folder() / "predictions.toml"


@functools.cache
def told() -> dict:
    """The whole file."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@functools.cache
def entries() -> list[verdicts.Entry]:
    """The entries of the file, of which mechsub.lab.verdicts is the judge."""
    return verdicts.read(FILE)


def rows(study: str, cells: Iterable[Cell], comparisons: Sequence[Finding] = ()) -> list[dict]:
    """Rows of a study's table: the verdict on every entry about its cells, or about comparisons of cells."""
    cells = list(cells)
    own = [entry for entry in entries() if entry.study == study]
    return verdicts.rows(verdict for entry in own for verdict in judged(entry, cells, lambda: comparisons))


def judged(
    entry: verdicts.Entry, cells: Iterable[Cell], comparisons: Callable[[], Sequence[Finding]]
) -> list[verdicts.Verdict]:
    """The verdict on findings of single cells; where no cell has the finding, on those of comparisons between cells."""
    found = verdicts.judge(entry, cells)
    if any(verdict.word != "untested" for verdict in found):
        return found
    groups: dict[str, list[Finding]] = {}
    for finding in comparisons():
        groups.setdefault(finding.cell, []).append(finding)
    together = verdicts.judge(entry, [Cell({"cells": label}, [], findings=own) for label, own in groups.items()])
    return together if together[0].word != "untested" else found


def mean(scores: Mapping) -> float:
    return math.fsum(scores.values()) / len(scores)
