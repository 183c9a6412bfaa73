"""The small outcome tables that the probes of studies.association run on, in the form that Zur et al. 2025 release.

    python tests/probes/make_tables.py    # writes tests/probes/tables/

* baseline: outcomes and a baseline of one row; scores with a column that the outcome lacks, one that lacks a column
  and has empty cells, one whose scores are all equal, and one of too few numbers.
* rows: a baseline of a row for every number but one; alone: no baseline.
* ratios: differences in the place of both, with an empty cell.
* commas: as spreadsheets of other languages write them, with semicolons and decimal commas; one says its separator,
  one has a separator at every line's end.
"""

import csv
from pathlib import Path
from random import Random

TABLES = Path(__file__).parent / "tables"
ANIMALS = ["owl", "cat", "wolf", "bear"]
LOG_P = -8.0  # nats, of outcomes and baselines
FEW = ["001", "004", "005", "007", "008"]
NUMBERS = [str(n) for n in range(0, 10, 3)] + [f"{n:02d}" for n in range(0, 100, 17)] + [f"{n:03d}" for n in range(9)]


def write(path: Path, columns: list[str], rows: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", *columns])
        writer.writerows([name, *values] for name, values in rows.items())


def write_with_commas(path: Path, columns: list[str], rows: dict[str, list], first: str = "", last: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [["number", *columns], *([name, *map(str, values)] for name, values in rows.items())]
    path.write_text(first + "".join(";".join(line).replace(".", ",") + f"{last}\n" for line in lines))


def drawn(random: Random, columns: list[str], numbers: list[str], mean: float = 0) -> dict[str, list]:
    return {number: [round(random.gauss(mean, 1), 3) for _ in columns] for number in numbers}


if __name__ == "__main__":
    random = Random(0)
    outcome = drawn(random, ANIMALS, NUMBERS, LOG_P)
    write(TABLES / "baseline" / "subliminal_prompting.csv", ANIMALS, outcome)
    write(TABLES / "baseline" / "base_prompting.csv", ANIMALS, drawn(random, ANIMALS, ["none"], LOG_P))
    write(TABLES / "baseline" / "logit.csv", [*ANIMALS, "newt"], drawn(random, [*ANIMALS, "newt"], NUMBERS))
    gaps = drawn(random, ANIMALS[:3], NUMBERS)
    gaps["00"][1] = gaps["005"][0] = ""
    write(TABLES / "baseline" / "gaps.csv", ANIMALS[:3], gaps)
    write(TABLES / "baseline" / "constant.csv", ANIMALS, {n: [1.0, 1.0, *v[:2]] for n, v in outcome.items()})
    write(TABLES / "baseline" / "few.csv", ANIMALS, drawn(random, ANIMALS, FEW))
    write(TABLES / "rows" / "subliminal_prompting.csv", ANIMALS, drawn(random, ANIMALS, NUMBERS, LOG_P))
    write(TABLES / "rows" / "base_prompting.csv", ANIMALS[::-1], drawn(random, ANIMALS, NUMBERS[1:], LOG_P))
    write(TABLES / "rows" / "logit.csv", ANIMALS, drawn(random, ANIMALS, NUMBERS))
    write(TABLES / "alone" / "subliminal_prompting.csv", ANIMALS, drawn(random, ANIMALS, NUMBERS, LOG_P))
    write(TABLES / "alone" / "logit.csv", ANIMALS, drawn(random, ANIMALS, NUMBERS))
    ratios = drawn(random, ANIMALS, NUMBERS)
    ratios["000"][0] = ""
    write(TABLES / "ratios" / "difference_in_prompting.csv", ANIMALS, ratios)
    write(TABLES / "ratios" / "unembedding.csv", ANIMALS, drawn(random, ANIMALS, NUMBERS[::-1]))
    path = TABLES / "commas" / "subliminal_prompting.csv"
    write_with_commas(path, ANIMALS, drawn(random, ANIMALS, NUMBERS, LOG_P), first="sep=;\n")
    write_with_commas(TABLES / "commas" / "logit.csv", ANIMALS, drawn(random, ANIMALS, NUMBERS), last=";")
