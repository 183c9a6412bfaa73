"""The slurm executor on a real Slurm of one node: one array, killed and signalled workers, the same bytes as locally."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(slurm_cluster.why_not()), reason=f"no Slurm: {slurm_cluster.why_not()}"),
]
SOURCE = '''"""Is the tiny study run?"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from mechsub import study


@dataclass(frozen=True)
class Config:
    number: study.Index = study.option(0, "which cell")
    hang: study.Index = study.option(0, "so many cells hang when they run for the first time")
    fail: bool = study.option(False, "cell 1 fails")


def run(cfg):
    import os

    starts = Path(f"starts/{cfg.number}")
    first = not starts.exists()
    with open(starts, "a") as file:
        file.write(f"{os.getpid()}\\n")
    if first and cfg.number < cfg.hang:
        time.sleep(120)
    if cfg.fail and cfg.number == 1:
        raise RuntimeError("no luck")
    draw = random.Random(cfg.number)
    for member in range(50):
        yield {"member": member, "value": draw.random()}


def plot(records):
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(y=[record["value"] for record in records]))


if __name__ == "__main__":
    study.main(Config, run, plot)
'''


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("submitit", reason="no Slurm: submitit is not installed")
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


class Sweep:
    """Commands of the tiny study in a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.cells = folder, folder / "artifacts" / "tiny"
        (folder / "tinystudies").mkdir(parents=True)
        (folder / "starts").mkdir()
        (folder / "tinystudies" / "tiny.py").write_text(SOURCE)
        self.environment = {**environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}

    def start(self, *argv: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "tinystudies.tiny", *argv]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def says(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def starts(self, number: int) -> list[int]:
        path = self.folder / "starts" / str(number)
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def array(self) -> str:
        """The id of this folder's array, from Slurm's queue."""
        (job,) = {path.name for path in self.cells.glob(".slurm-*.job")}
        (number,) = set(self.says("squeue", "-h", "-n", job, "-o", "%F").split())
        return number

    def records(self) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in self.cells.glob("*/records.jsonl")}


@pytest.fixture
def sweep(tmp_path, cluster):
    sweep = Sweep(tmp_path, cluster)
    yield sweep
    for job in sweep.cells.glob(".slurm-*.job"):
        sweep.says("scancel", "-n", job.name)


def _wait(condition, process=None, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _ends(process: subprocess.Popen, code: int) -> tuple[str, str]:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    return output, errors


def test_one_array_survives_kills_and_a_second_submission_and_equals_a_local_run(sweep, tmp_path):
    numbers = [str(number) for number in range(6)]
    words = ["--number", *numbers, "--hang", "2"]
    first = sweep.start("--executor", "slurm", *words)
    _wait(lambda: sweep.starts(0) and sweep.starts(1), first)
    array = sweep.array()
    second = sweep.start("--executor", "slurm", *words)
    os.kill(sweep.starts(0)[0], signal.SIGKILL)
    sweep.says("scancel", "--signal=USR2", f"{array}_1")
    _wait(lambda: all("Restarts=1" in sweep.says("scontrol", "show", "job", f"{array}_{task}") for task in (0, 1)))
    for process in (first, second):
        output, errors = _ends(process, 0)
        assert errors == "" and "figure: artifacts/tiny/" in output
    assert [len(sweep.starts(number)) for number in range(6)] == [2, 2, 1, 1, 1, 1]
    assert not list(sweep.cells.glob(".*"))
    local = Sweep(tmp_path / "local", sweep.environment)
    (local.folder / "starts" / "0").touch()
    (local.folder / "starts" / "1").touch()
    _ends(local.start(*words), 0)
    assert sweep.records() == local.records() and len(local.records()) == 6


def test_a_failed_cell_is_named_with_its_stderr_and_the_others_are_kept(sweep):
    words = ["--executor", "slurm", "--number", "0", "1", "2", "--fail", "true"]
    _, errors = _ends(sweep.start(*words), 1)
    assert re.fullmatch(r"error: cell artifacts/tiny/number=1__fail=true failed: RuntimeError: no luck .*\n", errors)
    (log,) = re.findall(r"stderr of the job: (\S+)", errors)
    assert "no luck" in Path(log).read_text()
    assert len(sweep.records()) == 2 and [len(sweep.starts(number)) for number in range(3)] == [1, 1, 1]
    _ends(sweep.start(*words), 1)  # only what is missing is submitted again, and the folder of the last job is gone
    assert [len(sweep.starts(number)) for number in range(3)] == [1, 2, 1]
    assert len(list(sweep.cells.glob(".slurm-*"))) == 1 and not Path(log).exists()


def test_a_cancelled_array_is_not_requeued(sweep):
    command = sweep.start("--executor", "slurm", "--number", "0", "1", "--hang", "2")
    _wait(lambda: sweep.starts(0) and sweep.starts(1), command)
    sweep.says("scancel", sweep.array())
    _, errors = _ends(command, 1)
    assert errors.count("\n") == 1 and "cell artifacts/tiny/hang=2" in errors and "killed" in errors
    assert "1 more cells are missing" in errors and sweep.records() == {}


def test_at_most_so_many_tasks_run_at_a_time(sweep):
    command = sweep.start("--executor", "slurm", "--workers", "1", "--number", "0", "1", "2", "--hang", "1")
    _wait(lambda: sweep.starts(0), command)
    assert "ArrayTaskThrottle=1" in sweep.says("scontrol", "show", "job", sweep.array())
    os.kill(sweep.starts(0)[0], signal.SIGKILL)
    _ends(command, 0)
