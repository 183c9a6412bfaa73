"""Cells of other studies that a cell is built on: declared by `upstream(cfg)`, and handed to `run`.

    def upstream(cfg):
        return {"teachers": lab.upstream("teachers", d_model=cfg.d_model, n_seeds=cfg.n_seeds)}

    def run(cfg, teachers):
        weights = teachers.tensors()

The lab makes them before it runs the study, and stores their sums with the cell. What is stored is reused, what another
process is making is waited for. A stale or damaged cell is an error: nothing is built on numbers of other code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechsub.lab import store


@dataclass(frozen=True)
class Upstream:
    """A cell of another study, by the study's name and its options.

    An optional one is used only where it is stored. One that has to be there beforehand, as a prediction before what it
    predicts, is never made on the way: without it nothing is run.
    """

    study: str
    options: Mapping[str, object] = field(default_factory=dict)
    optional: bool = False
    beforehand: bool = False


def upstream(study: str, /, *, optional: bool = False, beforehand: bool = False, **options: object) -> Upstream:
    """Declare a cell of another study: options that are left out have their defaults."""
    return Upstream(study, options, optional, beforehand)


@dataclass(frozen=True)
class Stored:
    """A stored cell, as it is handed to `run`."""

    path: Path

    def records(self) -> list[dict]:
        return list(store.read_records(self.path))

    def tensors(self) -> dict:
        return store.read_tensors(self.path)

    def provenance(self) -> dict:
        return store.read_provenance(self.path) or {}
