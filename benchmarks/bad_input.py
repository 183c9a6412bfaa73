"""Malformed input: how much of it ends in one line with exit code 1 or 2, touches nothing, and how fast.

    python benchmarks/bad_input.py [KIND ...] [--cases 1050]

The fixed corpus (tests/corpus/bad_input.jsonl), generated cases of every kind (tests/malformed.py, without a seed of
their own: the same at every run), and a sample of command lines in processes of their own. Seconds are those of the
command, in a process that has imported everything; "own process" includes starting Python. Nothing is asserted.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help='such as "data file" or "own process"; all')
    parser.add_argument("--cases", type=int, default=1050, help="generated cases, equally many of every kind")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import bad_runs
    import malformed

    chosen = args.kinds or [*malformed.KINDS, "own process"]
    if unknown := set(chosen) - {*malformed.KINDS, "own process"}:
        parser.error(f"no kind {min(unknown)!r}; there are {', '.join(malformed.KINDS)}, own process")
    corpus = [json.loads(line) for line in (TESTS / "corpus" / "bad_input.jsonl").read_text().splitlines()]
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}, {os.cpu_count()} cores; in parentheses: of the fixed corpus")
    print(f"{'kind':20}{'inputs':>14}{'one line':>10}{'exit 2':>8}{'exit 1':>8}{'median s':>10}{'slowest s':>11}")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stderr(nowhere):  # the bar of saving the tiny model
            place = bad_runs.make_place(Path(folder))
        total = []
        for kind in (kind for kind in malformed.KINDS if kind in chosen):
            fixed = [case for case in corpus if case["kind"] == kind]
            cases = fixed + drawn(kind, args.cases // len(malformed.KINDS))
            found = [(case, bad_runs.outcome(case, place)) for case in cases]
            report(kind, found, f"({len(fixed)})")
            total += found
        if not args.kinds:
            report("all", total, f"({len(corpus)})")
        lines = [case for case in corpus if "argv" in case and "\0" not in "".join(case["argv"])][::5]
        if "own process" in chosen:
            report("own process", [(case, bad_runs.process_outcome(case, place)) for case in lines], f"({len(lines)})")


def drawn(kind: str, n: int) -> list[dict]:
    """Generated cases; those that differ only."""
    import malformed
    from hypothesis import HealthCheck, Phase, given, settings

    found: dict[str, dict] = {}

    @settings(
        max_examples=n,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(malformed.cases(kind))
    def draw(case):
        found[json.dumps(case)] = case

    draw()
    return list(found.values())


def report(kind: str, found: list[tuple], fixed: str) -> None:
    codes = Counter(outcome.code for _, outcome in found)
    seconds = sorted(outcome.seconds for _, outcome in found)
    good = sum(not outcome.problem for _, outcome in found)
    counts = f"{len(found)} {fixed}"
    times = f"{seconds[len(seconds) // 2]:>10.4f}{seconds[-1]:>11.3f}"
    print(f"{kind:20}{counts:>14}{good:>10}{codes[2]:>8}{codes[1]:>8}{times}", flush=True)
    if kind != "all":
        for case, outcome in found:
            if outcome.problem:
                print(f"    {json.dumps(case)[:200]}: {outcome.problem[:200]!r}")


def processor() -> str:
    """The model of the processor as Linux names it, else the machine's type."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
