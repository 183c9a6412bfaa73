"""A tiny study whose cells take milliseconds, in a folder of its own, run as real commands."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 300  # seconds until a test gives up: a loaded machine takes long, and only what fails waits as long
SOURCE = '''"""Is the tiny study run?"""

import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mechsub import study


@dataclass(frozen=True)
class Config:
    number: study.Index = study.option(0, "which cell")
    hang: study.Index = study.option(0, "so many cells wait for a file `go` when they run for the first time")
    rows: study.Count = study.option(20, "records of a cell")
    one: Literal["same", "fail", "die", "vanish"] = study.option("same", "what cell 1 does")


def run(cfg):
    starts = Path(f"starts/{cfg.number}")
    first = not starts.exists()
    with open(starts, "a") as file:
        file.write(f"{os.getpid()}\\n")
    for _ in range(30000 * (first and cfg.number < cfg.hang)):
        time.sleep(0.02 * (not Path("go").exists()))
    if cfg.number == 1 and cfg.one == "fail":
        print("a warning", file=sys.stderr)
        raise RuntimeError("no luck")
    if cfg.number == 1 and cfg.one == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.number == 1 and cfg.one == "vanish":
        shutil.rmtree(os.environ["VANISHES"])
    draw = random.Random(cfg.number)
    time.sleep(0.005)
    print("said by the study")
    for member in range(cfg.rows):
        yield {"member": member, "value": draw.random()}


def plot(records):
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(y=[record["value"] for record in records[:100]]))


if __name__ == "__main__":
    study.main(Config, run, plot)
'''


class Sweep:
    """Commands of the tiny study: its folder, its cells, and which processes made which cell."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = os.environ):
        self.folder, self.cells = folder, folder / "artifacts" / "tiny"
        (folder / "studies").mkdir(parents=True)
        (folder / "starts").mkdir()
        (folder / "studies" / "__init__.py").touch()
        (folder / "studies" / "tiny.py").write_text(SOURCE)
        path = os.pathsep.join([str(folder), str(ROOT)])
        self.environment = {**environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.started: list[subprocess.Popen] = []

    def start(self, *argv: str, module: str = "studies.tiny", **options) -> subprocess.Popen:
        command, pipe = [sys.executable, "-m", module, *argv], subprocess.PIPE
        # A test run in the background of a shell ignores SIGINT, and its children would too.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        options = {"stdout": pipe, "stderr": pipe, "text": True, "preexec_fn": heed, **options}
        self.started.append(subprocess.Popen(command, cwd=self.folder, env=self.environment, **options))
        return self.started[-1]

    def run(self, *argv: str, code: int = 0, **options) -> tuple[str, str]:
        """What a command says on stdout and stderr, after it ended with the code expected."""
        return ends(self.start(*argv, **options), code)

    def close(self) -> None:
        """End what a test that failed left running."""
        for process in self.started:
            process.kill()
            process.wait()

    def starts(self, number: int) -> list[int]:
        """Processes that began to make a cell."""
        path = self.folder / "starts" / str(number)
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def records(self) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in self.cells.glob("*/records.jsonl*")}

    def hidden(self) -> list[Path]:
        return sorted(self.cells.parent.rglob(".*"))


def ends(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    errors = re.sub(r"^\d\d:\d\d:\d\d .*\n", "", errors, flags=re.MULTILINE)  # lines of progress, of a long run
    return output, errors


def wait(condition, process: subprocess.Popen | None = None, seconds: float = PATIENCE) -> None:
    """Wait for a condition that a process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)


def numbers(n: int) -> list[str]:
    return ["--number", *map(str, range(n))]
