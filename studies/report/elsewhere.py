"""Where else a question has cells: of other models than its command names, and in stores that somebody sent."""

import itertools
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from mechsub.lab import store
from mechsub.lab.declared import Study
from studies.report.question import Question

NAMING = (("model",), ("base", "instruct"))  # the options by which a study names what it loads


def commands(question: Question, study: Study, root: Path) -> Iterator[tuple[str, str]]:
    """Models and flags of the question's command for every model, or pair, of which the store has cells.

    None for a study that loads no model, and for a question that is about certain models.
    """
    own = {field.name: field.default for field in fields(study.Config)}
    naming = next((names for names in NAMING if own.keys() >= set(names)), ())
    if not naming or any(f"--{name}" in shlex.split(question.flags) for name in naming):
        return
    usual = tuple(own[name] for name in naming)
    for chosen in sorted(_stored(root / study.name, naming) - {usual}):
        words = itertools.chain.from_iterable((f"--{name}", value) for name, value in zip(naming, chosen, strict=True))
        yield ", ".join(name for name in chosen if name != "auto"), f"{question.flags} {shlex.join(words)}".strip()


def _stored(folder: Path, naming: tuple[str, ...]) -> set[tuple[str, ...]]:
    found = set()
    for cell in store.complete_cells(folder):
        try:
            config = (store.read_provenance(cell) or {})["config"]
        except store.DamagedCell:
            continue
        if config.keys() >= set(naming):  # an older cell may lack them
            found.add(tuple(config[name] for name in naming))
    return found
