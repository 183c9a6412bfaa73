"""Write trained pairs of `studies.train_organism` as folders that `load_language_model` loads.

    python -m tools.ship_organism organisms --number-tokens 1110 110

The words after the folder are the study's own flags, and name its stored cells; the weights are those of the
checkpoints in the cache folder, whose sums the cells hold. Writes <folder>/<number tokens>-base and -instruct.
(tools.ship_design does it for the models of `studies.organisms`.)
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from mechsub.lab import store, study
from studies import train_organism
from studies.train_organism.shipping import ship


def main(argv: list[str] | None = None) -> None:
    to, configs = named(train_organism, sys.argv[1:] if argv is None else argv)
    if len({cfg.number_tokens for cfg in configs.values()}) < len(configs):
        stop("two cells have the same number tokens, and so the same folders; ship them one at a time", 2)
    tell(folder for cell, cfg in configs.items() for folder in ship(cell, cfg, to))


def named(module: ModuleType, words: list[str]) -> tuple[Path, dict[Path, Any]]:
    """The folder to write to, and the stored cells that a study's flags behind it name, with their options."""
    name = module.__name__
    if not words or words[0].startswith("-"):
        stop(f"name the folder to write to, then the flags of {name}", 2)
    try:
        cells, _ = study.planned(module.study, words[1:])
    except ValueError as error:
        stop(str(error), 2)
    if missing := [str(cell) for cell, status in cells.items() if status != "stored"]:
        stop(f"{missing[0]} is {cells[Path(missing[0])]}; run python -m {name} with these flags", 1)
    return Path(words[0]), {cell: module.Config(**(store.read_provenance(cell) or {})["config"]) for cell in cells}


def tell(folders: Iterable[Path]) -> None:
    """Print every folder as it is written; what goes wrong in one line."""
    try:
        for folder in folders:
            print(f"shipped: {folder}", flush=True)
    except (ValueError, RuntimeError, OSError) as error:
        stop(str(error), 1)


def stop(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(message.split())[:800]}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
