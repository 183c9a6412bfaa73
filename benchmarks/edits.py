"""Which edits of the code are noticed: 20 that preserve behaviour must not be, 30 that change numbers must be.

    python benchmarks/edits.py [--only WORDS ...] [--workers 2]

The edits are in edits.toml. Each is made in a copy of the checkout, whose probes are then made again:

* preserving: all edits at once. No probe may differ, and no stored cell may be stale; the edits of what decides that
  (versions, store, options of a study) are also made one by one, and the cells looked at again.
* changing: one by one, with the probes of one study, until the first that differs. An edit is caught where a probe
  differs, or where the study refuses its own numbers. Code that does not run is no slip of this kind, and not counted.

Exit code 0 where all goals are reached that were looked at.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("mechsub", "studies", "tests/probes")
GOAL = 27  # of 30
# What a study says of numbers that cannot be right is an answer; what Python says of code that cannot run is none.
CRASHES = re.compile(
    r"it cannot be made: (its process left"
    r"|(Syntax|Indentation|Name|UnboundLocal|Import|ModuleNotFound|Attribute|Type|Key|Index|Runtime)Error)"
)
NO_RECORD = ("is missing or cannot be read", "is damaged; restore it", "is of version", "is of no probe")

# Run in the working folder of the store, with the edited code: which cells it would call stored.
STATUS = """
import sys
from pathlib import Path
import mechsub
from mechsub.lab import cells, finder, store
assert Path(mechsub.__file__).is_relative_to(sys.argv[1]), mechsub.__file__
stored = sorted(path.parent for path in Path("artifacts").glob("*/*/provenance.json"))
for cell in stored:
    made = store.read_provenance(cell)
    study = finder.find_study(made["study"])
    if cells.status(cell, study.Config(**made["config"]), study).kind == "stored":
        print(cell)
"""


class Outcome(NamedTuple):
    """What became of one edit and the probes of one study."""

    edit: str
    file: str
    study: str
    answer: str  # "caught", "not caught", "does not apply", "does not run" or "no record"
    first: str  # what differs first, or what is wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="edits whose name holds one of these")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    args = parser.parse_args()
    edits = read_edits()
    chosen = {kind: [e for e in some if wanted(e["name"], args.only)] for kind, some in edits.items()}
    if not any(chosen.values()):
        parser.error(f"no edit's name holds {' or '.join(args.only)}")
    good = True
    if chosen["preserving"]:
        good = print_preserving(chosen["preserving"], args.workers)
    if chosen["changing"]:
        good = print_changing(chosen["changing"], args.workers) and good
    raise SystemExit(0 if good else 1)


def wanted(name: str, words: list[str] | None) -> bool:
    return words is None or any(word in name for word in words)


def read_edits(path: Path = Path(__file__).with_suffix(".toml")) -> dict[str, list[dict]]:
    """Kind -> edits. A change's text that stands in lines of its own starts after the first line break."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


# Copies and edits.


def copy(folder: Path) -> None:
    """The files of the checkout that probes need, also those that are not committed yet, but none that git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *COPIED]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def apply(edit: Mapping, folder: Path) -> str:
    """Make the edit in a copy; "", or why it does not apply any more, with nothing said of the state of the copy."""
    for before, after in edit.get("moves", ()):
        if not (folder / before).is_file() or (folder / after).exists():
            return f"{before} cannot become {after}"
        (folder / before).rename(folder / after)
    for name, old, new in edit["changes"]:
        path = folder / name
        if not old and not path.exists():
            path.write_text(new, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not old or text.count(old) != 1:
            times = "is there already" if not old else f"holds its text {text.count(old)} times, not once"
            return f"{name} {times}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return ""


def files(edit: Mapping) -> str:
    """The first file of an edit, and how many others."""
    names = list(dict.fromkeys([*(old for old, _ in edit.get("moves", ())), *(name for name, *_ in edit["changes"])]))
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


# What is run in a copy.


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def probed(folder: Path, studies: Iterable[str], workers: int, *, to_the_end: bool = False) -> Iterator[tuple]:
    """(probe, problem or "") of the copy's studies (all where none is named), as they are made.

    Ends after the first problem, unless it is to go to the end. A command that fails is the problem of no probe.
    """
    command = [sys.executable, "-m", "mechsub", "recheck", "--probes", "--workers", str(workers)]
    command += ["--studies", *studies] if studies else []
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    said = ""
    try:
        for line in process.stdout:  # type: ignore[union-attr]
            if done := re.fullmatch(r"(\w+ \S+): (.*) \(\d+\.\d s\)", line.strip()):
                problem = "" if done[2] == "the same" else done[2]
                yield done[1], problem
                if problem and not to_the_end:
                    return
            else:
                said = line.strip() or said
        if process.wait() not in (0, 1) or not re.match(r"\d+ probes, ", said):
            yield "", f"it cannot be made: its process left with exit code {process.returncode}: {said}"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too, which may be within a probe
        except ProcessLookupError:
            pass
        process.wait()


def stored(folder: Path) -> set[str]:
    """The cells of the checkout's store that the copy's code would call stored."""
    # -P: the working folder, where the store and the models are, must not lend its code.
    command = [sys.executable, "-P", "-c", STATUS, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"the cells cannot be looked at: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
    return set(done.stdout.splitlines())


# Edits that preserve behaviour.


def print_preserving(edits: list[dict], workers: int) -> bool:
    """All at once, and one by one those that concern staleness."""
    print("Edits that preserve behaviour\n")
    applied, good = [], True
    with tempfile.TemporaryDirectory() as place:
        together = Path(place) / "together"
        copy(together)
        for edit in edits:
            problem = apply(edit, together)
            good &= not problem
            applied.append((edit["name"], files(edit), problem or "applies"))
        print_table(("edit", "file", ""), applied)
        if not good:
            print("\nedits do not apply; mend edits.toml")
            return False
        print(flush=True)
        plain = Path(place) / "plain"
        copy(plain)
        before = stored(plain)
        good &= print_stale(f"all {len(edits)} at once", before, stored(together))
        for edit in (edit for edit in edits if edit.get("alone")):
            alone = Path(place) / "alone"
            copy(alone)
            apply(edit, alone)
            good &= print_stale(f"{edit['name']}, alone", before, stored(alone))
            shutil.rmtree(alone)
        probes = list(probed(together, (), workers, to_the_end=True))
    wrong = [(probe, problem) for probe, problem in probes if problem]
    print(f"all {len(edits)} at once: {len(wrong)} of {len(probes)} probes differ", flush=True)
    for probe, problem in wrong:
        print(f"  {probe}: {first_difference(problem)}")
    print()
    return good and not wrong


def print_stale(what: str, before: set[str], after: set[str]) -> bool:
    gone = sorted(before - after)
    print(f"{what}: {len(gone)} of {len(before)} stored cells become stale", *gone[:3], sep="\n  ", flush=True)
    return bool(before) and not gone


# Edits that change numbers.


def print_changing(edits: list[dict], workers: int) -> bool:
    print("Edits that change numbers\n")
    tasks = [(edit, study) for edit in edits for study in edit["studies"]]
    with ThreadPoolExecutor(workers) as pool:
        outcomes = []
        for outcome in pool.map(lambda task: outcome_of(*task), tasks):
            outcomes.append(outcome)
            print(f"{len(outcomes)} of {len(tasks)}: {outcome.edit}: {outcome.answer}", file=sys.stderr, flush=True)
    print_table(("edit", "file", "study", "", "first difference"), outcomes)
    caught = {outcome.edit for outcome in outcomes if outcome.answer == "caught"}
    broken = {outcome.edit for outcome in outcomes if outcome.answer not in ("caught", "not caught")}
    studies = {outcome.study for outcome in outcomes if outcome.answer == "caught"}
    print(f"\n{len(caught)} of {len(edits)} edits fail a probe, of {len(studies)} studies; {len(broken)} say nothing")
    return len(caught) >= len(edits) * GOAL / 30 and not broken


def outcome_of(edit: Mapping, study: str) -> Outcome:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        copy(folder)
        if problem := apply(edit, folder):
            return Outcome(edit["name"], files(edit), study, "does not apply", problem)
        answer, first = "not caught", ""
        for _, problem in probed(folder, [study], 1):
            if problem:
                answer, first = answer_to(problem), first_difference(problem)
    return Outcome(edit["name"], files(edit), study, answer, first)


def answer_to(problem: str) -> str:
    if any(words in problem for words in NO_RECORD):
        return "no record"
    return "does not run" if CRASHES.match(problem) else "caught"


def first_difference(problem: str) -> str:
    """A problem of a probe, in short: the row, and of its fields the first, old and new."""
    told = re.fullmatch(r"(row \d+) \(.*?\): (.*?); in all .*", problem)
    if told is None:
        return shortened(problem.removeprefix("it cannot be made: "), 70)
    field, old, new = re.match(r"(.*?) (\S+|[\[{].*?) -> (\S+)", told[2]).groups()  # type: ignore[union-attr]
    if old[0] in "[{":
        return f"{told[1]}: values in {field}"
    return f"{told[1]}: {field} {' -> '.join(apart(old, new.rstrip(',')))}"


def apart(old: str, new: str) -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart; other values as they are."""
    try:
        pairs = [(f"{float(old):.{digits}g}", f"{float(new):.{digits}g}") for digits in range(3, 18)]
    except ValueError:
        return shortened(old, 24), shortened(new, 24)
    return next((pair for pair in pairs if pair[0] != pair[1]), (old, new))


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def print_table(head: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """In Markdown."""
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |", flush=True)


if __name__ == "__main__":
    main()
