"""Train models of `studies.organisms` again and write them as folders that `load_language_model` loads.

    python -m tools.ship_design designs --d-model 64 --n-numbers 110 --seed 0

The words after the folder are the study's own flags, and name its stored cells. Writes <folder>/<cell>/<arm>: trained
and, where embeddings are untied, random, exchanged and orthogonal, each with the weights whose sum the cell holds.
"""

import sys

from studies import organisms
from studies.organisms.shipping import ship
from tools.ship_organism import named, tell


def main(argv: list[str] | None = None) -> None:
    to, configs = named(organisms, sys.argv[1:] if argv is None else argv)
    tell(folder for cell, cfg in configs.items() for folder in ship(cell, cfg, to / cell.name))


if __name__ == "__main__":
    main()
