"""What holds on tiny random models of many families, against Hugging Face's eager forward pass: the table of docs.

    python benchmarks/families.py             # a row a family, as docs/reliability.md has them
    python benchmarks/families.py --cases 20  # and as many random configurations of each, in fp64

right: within 0.002 (logits, nats, cosines) of brute force; slower: right, string by string or edit by edit; refused:
one line says why. Exit code 1 if anything is wrong.
"""

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "tests")]
TOLERANCE = 2e-3
COLUMNS = {
    "next token": "next token", "strings": "strings", "steered": "steering", "lens": "lens", "gain": "gain",
    "dla coordinate": "dla: coordinate", "dla component": "component", "dla head": "head", "price": "price",
    "change": "cheapest change",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=0, help="random configurations of every family")
    args = parser.parse_args()
    import transformers
    from tiny_families import FAMILIES

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    counts: Counter = Counter()
    print("| family | " + " | ".join(COLUMNS.values()) + " |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for name in FAMILIES:
        outcomes = told(name)
        counts.update(outcomes.values())
        print(f"| {name} | " + " | ".join(outcomes[column] for column in COLUMNS) + " |", flush=True)
    print("\n" + total(counts))
    if args.cases:
        cases = random_cases(list(FAMILIES), args.cases)
        print(f"random configurations: {args.cases * len(FAMILIES)}; {total(cases)}")
        counts.update(cases)
    return int(counts["WRONG"] > 0)


def told(name: str) -> dict[str, str]:
    from tiny_families import judge

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        outcomes = judge(name)
    texts = " ".join(str(each.message) for each in said)
    slower = {"strings": "strings run one by one" in texts, "steered": "every edit runs" in texts}
    return {what: verdict(outcomes, what, slower.get(what, False)) for what in COLUMNS}


def verdict(outcomes: dict, what: str, slower: bool = False) -> str:
    if "load" in outcomes or isinstance(outcomes[what], str):
        return "refused"
    if not outcomes[what] < TOLERANCE:
        return f"WRONG by {outcomes[what]:.2g}"
    return "slower" if slower else "right"


def random_cases(names: list[str], n: int) -> Counter:
    import torch
    from tiny_families import drawn, judge

    counts: Counter = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            for seed in range(n):
                outcomes = judge(name, *drawn(name, seed), torch.float64)
                verdicts = [verdict(outcomes, what) for what in COLUMNS]
                for what, each in zip(COLUMNS, verdicts, strict=True):
                    if each.startswith("WRONG"):
                        print(f"{name}, seed {seed}: {what} {each}", flush=True)
                counts.update("WRONG" if each.startswith("WRONG") else each for each in verdicts)
    return counts


def total(counts: Counter) -> str:
    wrong = sum(n for each, n in counts.items() if each.startswith("WRONG"))
    return f"{counts['right']} right, {counts['slower']} right and slower, {counts['refused']} refused, {wrong} wrong"


if __name__ == "__main__":
    raise SystemExit(main())
