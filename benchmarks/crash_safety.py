"""Kill sweeps, run several on one store, and count what is torn, lost or made twice.

    python benchmarks/crash_safety.py [--kills N] [--shared N]

A sweep of four cells (records and a matrix each) is killed with SIGKILL

* before the k-th operation on the file system, for k spread over the whole sweep, or over a --rerun of it;
* after a random time;

and run again. Then two, and four, sweeps run at once on one store, untouched or with one of them killed. Every process
is a real one, forked from this. Exit code 1 if anything is torn, lost, different, left behind, or made more often than
it must be: once, and once more for each kill. At full length, also how soon a dead process's lease is taken over.
"""

import argparse
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch

from mechsub.lab import lease, store, study, verify
from mechsub.lab.figures import kinds as plot

SOURCE = """
import os
import random
import time
from dataclasses import dataclass

from mechsub import study


@dataclass(frozen=True)
class Config:
    number: study.Index = study.option(0, "which cell")


def run(cfg):
    import torch

    with open(os.environ["STARTS"], "a") as file:
        file.write(f"{cfg.number}\\\\n")
    draw = random.Random(cfg.number)
    time.sleep(0.003)
    for member in range(20):
        yield {"member": member, "value": draw.random()}
    yield {"tensors": {"matrix": torch.full((8, 8), float(cfg.number))}}


def plot(records):
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(y=[record["value"] for record in records]))
""".replace("\\\\n", "\\n")
CELLS = 4
ARGUMENTS = ["--quiet", "--number", *map(str, range(CELLS))]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # what a kill leaves does not depend on the disk
OPERATIONS = {
    *("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.listdir", "os.scandir"),
    "shutil.rmtree",
}


class Store:
    """A store in a folder of its own, and what was counted on it."""

    def __init__(self, folder: Path, tiny):
        self.tiny, self.root, self.log = tiny, folder / "artifacts", folder / "starts"
        self.log.touch()

    def start(self, *extra: str, kill_at: int | None = None, count: Path | None = None) -> int:
        """A sweep in a new process, killed before its operation number `kill_at`, or counting its operations."""
        child = os.fork()
        if child:
            return child
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.environ["STARTS"] = str(self.log)
            seen = _count_operations(self.root, kill_at)
            study.main(self.tiny.Config, self.tiny.run, self.tiny.plot, None, [*ARGUMENTS, "--out", self.root, *extra])
            if count:
                count.write_text(str(next(seen)))
            os._exit(0)
        except SystemExit as stop:
            os._exit(stop.code or 0)
        finally:
            os._exit(99)

    def records(self) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in self.root.glob("tiny/*/records.jsonl")}

    def starts(self) -> int:
        return len(self.log.read_text().split())

    def torn(self) -> int:
        """Cells and figures that are not what somebody wrote."""
        kinds = Counter(kind for kind, _ in verify.findings(self.root)) if self.root.exists() else {}
        pages = [page for page in self.root.glob("tiny/*.html") if not page.read_text().rstrip().endswith("</html>")]
        return kinds.get("damaged", 0) + len(pages)

    def complete(self) -> int:
        return sum((path / store.PROVENANCE).is_file() for path in self.root.glob("tiny/*") if path.name[0] != ".")

    def left_behind(self) -> list[str]:
        kinds = [kind for kind, _ in verify.findings(self.root) if kind in ("unfinished", "foreign", "missing")]
        return kinds + [str(path) for path in self.root.rglob(".*")]


def _count_operations(root: Path, kill_at: int | None):
    """A counter of operations on the store, which kills this process before the one of the number given."""
    counter, place = itertools.count(1), str(root)

    def hook(event: str, arguments: tuple) -> None:
        if event in OPERATIONS and any(str(argument).startswith(place) for argument in arguments[:2]):
            if next(counter) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return counter


def _wait(*children: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _judge(place: Store, wanted: dict[str, bytes], allowed: int, counts: Counter) -> None:
    """Count the faults of a store that must be complete now."""
    found = place.records()
    counts["trials"] += 1
    counts["torn files"] += place.torn()
    counts["lost cells"] += len(set(wanted) - set(found))
    counts["different records"] += sum(found[name] != wanted[name] for name in found if name in wanted)
    counts["made too often"] += max(0, place.starts() - allowed)
    counts["left behind"] += len(left := place.left_behind())
    if left:
        print("left behind:", *left, file=sys.stderr)


def _killed(place: Store, wanted: dict[str, bytes], child: int, extra: list[str], counts: Counter) -> None:
    """After a kill: nothing torn, nothing complete is made again, and the next run ends as if nothing had been."""
    (code,) = _wait(child)
    counts["killed"] += code == -signal.SIGKILL
    counts["torn files"] += place.torn()
    before, complete = place.starts(), place.complete()
    codes = _wait(place.start())
    counts["failed runs"] += codes != [0]
    if not extra:
        counts["complete cells made again"] += place.starts() - before - (CELLS - complete)
    _judge(place, wanted, allowed=place.starts(), counts=counts)


def _trials(tiny, wanted, name: str, n: int, one) -> Counter:
    """Run `one(place, number, counts)` on n new stores, and print what was counted."""
    counts, started = Counter(trials=0), time.perf_counter()
    for number in range(n):
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            one(Store(Path(folder), tiny), number, counts)
    killed = f", {counts.pop('killed')} killed" if "killed" in counts else ""
    trials, seconds = counts.pop("trials"), time.perf_counter() - started
    faults = ", ".join(f"{key}: {value}" for key, value in counts.items())
    print(f"{name}: {trials} trials{killed}; {faults} ({seconds:.0f} s)", flush=True)
    return counts


def print_takeover() -> None:
    """Seconds from the death of a lease's holder until another process has the lease."""
    found = {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        cell = Path(folder) / "study" / "cell"
        ready, tell = os.pipe()
        if not (child := os.fork()):
            with lease.hold(cell):
                os.write(tell, b"x")
                time.sleep(600)
        os.read(ready, 1)
        os.kill(child, signal.SIGKILL)
        started = time.perf_counter()
        _wait(child)
        with lease.hold(cell):
            found["of this machine"] = time.perf_counter() - started
        elsewhere = f"filelock/2\npid=12\nhost=elsewhere\nmode=lease\ntoken=1\nduration={lease.STALE!r}\n"
        cell.with_name(f".{cell.name}{lease.SUFFIX}").write_text(elsewhere)
        started = time.perf_counter()
        with lease.hold(cell):
            found["of another machine"] = time.perf_counter() - started
    print("a dead holder's lease is taken over after:", *(f"{found[who]:.2f} s {who};" for who in found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=150, help="kill points of each of three kinds (default: 150)")
    parser.add_argument("--shared", type=int, default=100, help="trials of each kind of shared store (default: 100)")
    options = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        tiny = _tiny(Path(home))
        torch.zeros(1), plot  # imported once, here
        reference = Store(Path(home), tiny)
        operations = {}
        for kind in ("", "--rerun"):
            started = time.perf_counter()
            assert _wait(reference.start(*[kind] * bool(kind), count=Path(home) / "count")) == [0]
            operations[kind] = int((Path(home) / "count").read_text()) - 1
            seconds = time.perf_counter() - started
        wanted = reference.records()
        print(f"a sweep of {CELLS} cells: {operations['']} operations on the store, a rerun: {operations['--rerun']}")

        def at(kind: str, number: int) -> int:
            return 1 + number * operations[kind] // max(options.kills, 1) % operations[kind]

        def sweep(place, number, counts):
            _killed(place, wanted, place.start(kill_at=at("", number)), [], counts)

        def rerun(place, number, counts):
            _wait(place.start())
            _killed(place, wanted, place.start("--rerun", kill_at=at("--rerun", number)), ["--rerun"], counts)

        def any_time(place, number, counts):
            child = place.start()
            time.sleep(draw.uniform(0, seconds))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _killed(place, wanted, child, [], counts)

        def together(n):
            def one(place, number, counts):
                counts["failed runs"] += _wait(*(place.start() for _ in range(n))) != [0] * n
                _judge(place, wanted, CELLS, counts)

            return one

        def together_and_killed(place, number, counts):
            children = [place.start(kill_at=draw.randint(1, operations[""])), place.start()]
            codes = _wait(*children)
            counts["killed"] += codes[0] == -signal.SIGKILL
            counts["failed runs"] += codes[1] != 0
            counts["lost cells"] += CELLS - place.complete()
            _wait(place.start())
            _judge(place, wanted, CELLS + (codes[0] != 0), counts)

        if options.kills + options.shared >= 100:
            print_takeover()
        faults = Counter()
        for name, n, one in (
            ("killed before an operation, then run again", options.kills, sweep),
            ("a --rerun killed before an operation, then run again", options.kills, rerun),
            ("killed after a random time, then run again", options.kills, any_time),
            ("two processes on one store", options.shared, together(2)),
            ("four processes on one store", options.shared, together(4)),
            ("two processes on one store, one of them killed", options.shared, together_and_killed),
        ):
            faults += _trials(tiny, wanted, name, n, one)
    print(f"faults: {sum(faults.values())}")
    return 1 if sum(faults.values()) else 0


def _tiny(folder: Path):
    """The study of four cells, as a module."""
    path = folder / "tiny.py"
    path.write_text(SOURCE)
    sys.path.insert(0, str(folder))
    import tiny

    return tiny


if __name__ == "__main__":
    raise SystemExit(main())
