"""Write trained pairs of `studies.train_organism` as folders that `load_language_model` loads.

    python -m tools.ship_organism organisms --number-tokens 1110 110

The words after the folder are the study's own flags, and name its stored cells; the weights are those of the
checkpoints in the cache folder, whose sums the cells hold. Writes <folder>/<number tokens>-base and -instruct.
"""

import sys
from pathlib import Path

from mechsub.lab import store, study
from studies import train_organism
from studies.train_organism.shipping import ship


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0].startswith("-"):
        _stop("name the folder to write to, then the flags of train_organism", 2)
    flags = words[1:]
    place = flags.index("--out") if "--out" in flags else None
    out = "artifacts" if place is None else (flags[place + 1 : place + 2] or ["artifacts"])[0]
    try:
        cells, _ = study.planned(train_organism.study, flags, out)
    except ValueError as error:
        _stop(str(error), 2)
    if missing := [str(cell) for cell, status in cells.items() if status != "stored"]:
        _stop(f"{missing[0]} is {cells[Path(missing[0])]}; run python -m studies.train_organism with these flags", 1)
    configs = {cell: train_organism.Config(**store.read_provenance(cell)["config"]) for cell in cells}
    if len({cfg.number_tokens for cfg in configs.values()}) < len(configs):
        _stop("two cells have the same number tokens, and so the same folders; ship them one at a time", 2)
    try:
        for cell, cfg in configs.items():
            print("".join(f"shipped: {folder}\n" for folder in ship(cell, cfg, Path(words[0]))), end="")
    except (ValueError, RuntimeError, OSError) as error:
        _stop(str(error), 1)


def _stop(message: str, code: int):
    print(f"error: {' '.join(message.split())[:800]}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
