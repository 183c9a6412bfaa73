"""The slurm executor on a real Slurm: one array, killed workers, a node that fails, the bytes of a local run."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import slurm_cluster
from sweep import Sweep, ends, numbers, wait

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(slurm_cluster.why_not()), reason=f"no Slurm: {slurm_cluster.why_not()}"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("submitit", reason="no Slurm: submitit is not installed")
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Three nodes that take one task each."""
    pytest.importorskip("submitit", reason="no Slurm: submitit is not installed")
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm3"), n_nodes=3, cpus=1) as cluster:
        yield cluster


@pytest.fixture
def sweep(tmp_path, cluster):
    yield from _sweep(tmp_path, cluster)


@pytest.fixture
def spread(tmp_path, nodes):
    yield from _sweep(tmp_path, nodes)


def _sweep(folder: Path, cluster: slurm_cluster.Cluster) -> Iterator[Sweep]:
    sweep = Sweep(folder, cluster.environment)
    yield sweep
    sweep.close()
    for job in sweep.cells.glob(".slurm-*.job"):
        _says(sweep, "scancel", "-n", job.name)


def _says(sweep: Sweep, *command: str) -> str:
    return subprocess.run(command, env=sweep.environment, capture_output=True, text=True, check=True).stdout


def _array(sweep: Sweep) -> str:
    """The id of this folder's array, from Slurm's queue."""
    (job,) = {path.name for path in sweep.cells.glob(".slurm-*.job")}
    (number,) = set(_says(sweep, "squeue", "-h", "-n", job, "-o", "%F").split())
    return number


def _signal(sweep: Sweep, task: str, worker: int) -> None:
    """Send what Slurm sends before a time limit, once: scancel tries again after five seconds if Slurm was busy, also
    where the signal has arrived, and would meet the next worker."""
    command = subprocess.Popen(["scancel", "--signal=USR2", task], env=sweep.environment, stderr=subprocess.DEVNULL)
    wait(lambda: not os.path.exists(f"/proc/{worker}"))
    command.kill()
    command.wait()


def test_one_array_survives_kills_and_a_second_submission_and_equals_a_local_run(sweep, tmp_path):
    words = [*numbers(6), "--hang", "2"]
    first = sweep.start("--executor", "slurm", *words)
    wait(lambda: sweep.starts(0) and sweep.starts(1), first)
    array = _array(sweep)
    second = sweep.start("--executor", "slurm", *words)
    os.kill(sweep.starts(0)[0], signal.SIGKILL)
    _signal(sweep, f"{array}_1", sweep.starts(1)[0])
    wait(lambda: "Restarts=1" in _says(sweep, "scontrol", "show", "job", f"{array}_1"))
    for process in (first, second):
        output, errors = ends(process)
        assert errors == "" and "figure: artifacts/tiny/" in output
    assert [len(sweep.starts(number)) for number in range(6)] == [2, 2, 1, 1, 1, 1]
    assert sweep.hidden() == []
    local = Sweep(tmp_path / "local", sweep.environment)
    for number in (0, 1):
        (local.folder / "starts" / str(number)).touch()  # nothing hangs
    local.run(*words)
    assert sweep.records() == local.records() and len(local.records()) == 6


@pytest.mark.slow
def test_a_failed_cell_is_named_with_its_stderr_and_the_others_are_kept(sweep):
    words = ["--executor", "slurm", *numbers(3), "--one", "fail"]
    _, errors = sweep.run(*words, code=1)
    assert re.fullmatch(r"error: cell artifacts/tiny/number=1__one=fail failed: RuntimeError: no luck .*\n", errors)
    (log,) = re.findall(r"stderr of the job: (\S+)", errors)
    assert "no luck" in Path(log).read_text()
    assert len(sweep.records()) == 2 and [len(sweep.starts(number)) for number in range(3)] == [1, 1, 1]
    sweep.run(*words, code=1)  # only what is missing is submitted again, and the folder of the last job is gone
    assert [len(sweep.starts(number)) for number in range(3)] == [1, 2, 1]
    assert len(list(sweep.cells.glob(".slurm-*"))) == 1 and not Path(log).exists()


def test_a_cancelled_array_is_not_requeued(sweep):
    command = sweep.start("--executor", "slurm", *numbers(2), "--hang", "2")
    wait(lambda: sweep.starts(0) and sweep.starts(1), command)
    _says(sweep, "scancel", _array(sweep))
    _, errors = ends(command, 1)
    assert errors.count("\n") == 1 and "cell artifacts/tiny/hang=2" in errors and "killed" in errors
    assert "1 more cell" in errors and sweep.records() == {}


@pytest.mark.slow
def test_at_most_so_many_tasks_run_at_a_time(sweep):
    command = sweep.start("--executor", "slurm", "--workers", "1", *numbers(3), "--hang", "1")
    wait(lambda: sweep.starts(0), command)
    assert "ArrayTaskThrottle=1" in _says(sweep, "scontrol", "show", "job", _array(sweep))
    assert sweep.starts(1) == []
    os.kill(sweep.starts(0)[0], signal.SIGKILL)
    ends(command)


def test_a_node_fails_and_its_cells_run_on_the_others(spread, nodes, tmp_path):
    """Daemon, steps and workers of a node die at once, as with its power; the store is one folder that all share."""
    words = [*numbers(5), "--hang", "3"]
    command = spread.start("--executor", "slurm", *words)
    wait(lambda: all(spread.starts(number) for number in range(3)), command)
    array = _array(spread)
    at = {
        f"{array}_{number}": _says(spread, "squeue", "-h", "-r", "-j", f"{array}_{number}", "-o", "%N").strip()
        for number in range(3)
    }
    assert set(at.values()) == set(nodes.nodes), "the tasks do not run on three nodes"
    failed = at[f"{array}_1"]
    _fail(nodes.nodes[failed], spread.starts(1)[0])
    wait(lambda: "Restarts=1" in _says(spread, "scontrol", "show", "job", f"{array}_1"))
    (spread.folder / "go").touch()
    output, errors = ends(command)
    assert errors == "" and "figure: artifacts/tiny/" in output
    assert [len(spread.starts(number)) for number in range(5)] == [1, 2, 1, 1, 1]
    assert "down" in _says(spread, "sinfo", "-h", "-n", failed, "-o", "%T")
    assert spread.hidden() == []
    local = Sweep(tmp_path / "local", spread.environment)
    (local.folder / "go").touch()
    local.run(*words)
    assert spread.records() == local.records() and len(local.records()) == 5


def _fail(daemon: subprocess.Popen, worker: int) -> None:
    """Kill a node's daemon first, so that it reports nothing, then the worker with all that started it."""
    daemon.kill()
    daemon.wait()
    process = psutil.Process(worker)
    above = [parent for parent in process.parents() if parent.name() in ("slurmstepd", "bash", "sh", "slurm_script")]
    for each in [*above, process]:
        each.kill()
