"""Upstream cells: cells of other studies on which a cell is built. `upstream(cfg)` declares them, `run` gets them.

    def upstream(cfg):
        return {"teachers": lab.upstream("teachers", d_model=cfg.d_model, n_seeds=cfg.n_seeds)}

    def run(cfg, teachers):
        weights = teachers.tensors()

The lab makes upstream cells before it runs the study, and stores their sums with the cell. It reuses stored cells, and
waits for cells that another process makes. A stale or damaged cell is an error: nothing is built on numbers of other
code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechsub.lab import store


@dataclass(frozen=True)
class Upstream:
    """A cell of another study, by the study's name and its options.

    An optional cell is used only where it is stored. A cell with `beforehand`, such as a prediction of the result, is
    never made on the way: without it nothing runs.
    """

    study: str
    options: Mapping[str, object] = field(default_factory=dict)
    optional: bool = False
    beforehand: bool = False


def upstream(study: str, /, *, optional: bool = False, beforehand: bool = False, **options: object) -> Upstream:
    """Declare a cell of another study; options that are left out have their defaults."""
    return Upstream(study, options, optional, beforehand)


@dataclass(frozen=True)
class Stored:
    """A stored cell, as `run` gets it."""

    path: Path

    def records(self) -> list[dict]:
        return list(store.read_records(self.path))

    def tensors(self) -> dict:
        return store.read_tensors(self.path)

    def provenance(self) -> dict:
        return store.read_provenance(self.path) or {}
