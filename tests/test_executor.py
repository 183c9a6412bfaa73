"""Where cells are made: in several processes, or by several commands, each cell once, the same bytes."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest
from sweep import Sweep, ends, numbers, wait

from mechsub.lab import workers
from mechsub.machine import cores


@pytest.fixture
def sweep(tmp_path):
    sweep = Sweep(tmp_path)
    yield sweep
    sweep.close()


def test_workers_make_every_cell_once_with_the_bytes_of_a_single_process(sweep, tmp_path):
    output, errors = sweep.run("--workers", "3", *numbers(9))
    assert errors == "said by the study\n" * 9 and "figure: artifacts/tiny/" in output
    made = [sweep.starts(number) for number in range(9)]
    assert all(len(processes) == 1 for processes in made) and len({processes[0] for processes in made}) == 9
    command = (sweep.cells / "number=1" / "provenance.json").read_text()
    assert '"--workers"' in command and "--cells" not in command
    alone = Sweep(tmp_path / "alone")
    alone.run(*numbers(9))
    assert sweep.records() == alone.records() and len(alone.records()) == 9
    assert sweep.hidden() == []


def test_workers_share_the_cores(tmp_path, monkeypatch):
    """Two workers with a thread for every core each wait for each other; what the user says goes first."""
    answer = "import os\nopen(f'{os.getpid()}', 'w').write(os.environ['OMP_NUM_THREADS'])\n"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cores, "usable", lambda: 6)
    for said, expected in ((None, "3"), ("5", "5")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if said:
            monkeypatch.setenv("OMP_NUM_THREADS", said)
        wanted = dict.fromkeys([tmp_path / "a", tmp_path / "b"])
        options = SimpleNamespace(executor="local", workers=2)
        workers.run(wanted, lambda cell: None, [sys.executable, "-c", answer], options, print, print)
        files = [path for path in tmp_path.iterdir() if path.is_file()]
        assert {path.read_text() for path in files} == {expected}
        for path in files:
            path.unlink()


def test_a_failure_in_a_worker_is_one_line_and_stops_the_sweep(sweep):
    _, errors = sweep.run("--workers", "2", *numbers(1000), "--one", "fail", code=1)
    error = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and errors.endswith(f"{error[0]}\n") and "a warning\n" in errors
    assert "cell artifacts/tiny/number=1__one=fail failed: RuntimeError: no luck" in error[0]
    assert 0 < len(sweep.records()) < 999 and sweep.hidden() == []


def test_what_a_worker_says_is_shown_while_it_works(tmp_path):
    """It waits for a file that its first line makes."""
    talk = f"""
import pathlib, sys, time
print("12:00:00 a, 40% students", file=sys.stderr, flush=True)
for _ in range(3000):
    if pathlib.Path({str(tmp_path / "heard")!r}).exists():
        sys.exit("error: no luck")
    time.sleep(0.01)
sys.exit("error: nobody listens")
"""
    said = []

    def say(text: str) -> None:
        said.append(text)
        (tmp_path / "heard").touch()

    assert workers.by_command([sys.executable, "-c", talk], "", "cell a", set(), say) == "no luck"
    assert said == ["12:00:00 a, 40% students"]


def test_a_killed_worker_is_started_anew_and_its_cell_made_again(sweep):
    command = sweep.start("--workers", "2", *numbers(6), "--hang", "1")
    wait(lambda: sweep.starts(0), command)
    os.kill(sweep.starts(0)[0], signal.SIGKILL)
    ends(command)
    assert [len(sweep.starts(number)) for number in range(6)] == [2, 1, 1, 1, 1, 1]
    assert len(sweep.records()) == 6 and sweep.hidden() == []


def test_a_cell_that_kills_its_process_is_named_after_three_attempts(sweep):
    _, errors = sweep.run("--workers", "2", *numbers(3), "--one", "die", code=1)
    last = errors.splitlines()[-1]
    assert last == "error: cell artifacts/tiny/number=1__one=die failed: its process was killed by signal 9 3 times"
    assert len(sweep.starts(1)) == 3


def test_an_interrupt_ends_the_workers(sweep):
    command = sweep.start("--workers", "2", *numbers(4), "--hang", "2")
    wait(lambda: sweep.starts(0) and sweep.starts(1), command)
    command.send_signal(signal.SIGINT)
    _, errors = ends(command, 130)
    assert errors.splitlines()[-1].startswith("error: interrupted") and sweep.hidden() == []
    wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in [*sweep.starts(0), *sweep.starts(1)]))


def test_commands_that_rerun_at_once_share_the_cells(sweep):
    words = [*numbers(6), "--hang", "1"]
    (sweep.folder / "go").touch()
    sweep.run(*words)
    before = sweep.records()
    (sweep.folder / "go").unlink()
    (sweep.folder / "starts" / "0").unlink()
    first = sweep.start("--rerun", *words)
    wait(lambda: sweep.starts(0), first)  # it holds cell 0
    second = sweep.start("--rerun", *words)
    wait(lambda: [len(sweep.starts(number)) for number in range(6)] == [1, 2, 2, 2, 2, 2], second)
    (sweep.folder / "go").touch()
    ends(first)
    ends(second)
    assert [len(sweep.starts(number)) for number in range(6)] == [1, 2, 2, 2, 2, 2]
    assert sweep.records() == before and sweep.hidden() == []


def test_a_command_goes_on_with_other_cells_and_comes_back_to_one_that_another_makes(sweep):
    first = sweep.start(*numbers(3), "--hang", "1")
    wait(lambda: sweep.starts(0), first)
    second = sweep.start(*numbers(3), "--hang", "1")
    wait(lambda: len(sweep.records()) == 2, second)
    assert second.poll() is None
    first.kill()
    ends(first, -signal.SIGKILL)
    ends(second)
    assert [len(sweep.starts(number)) for number in range(3)] == [2, 1, 1] and len(sweep.records()) == 3


def test_slurm_that_is_not_there_is_one_line_and_nothing_is_written(sweep):
    sweep.environment["PATH"] = ""
    _, errors = sweep.run("--executor", "slurm", code=2)
    assert errors.startswith("error: --executor slurm needs s") and errors.count("\n") == 1
    assert not sweep.cells.parent.exists()
