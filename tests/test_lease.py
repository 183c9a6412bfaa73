"""One holder at a time; a dead one is replaced at once, a silent one after some heartbeats, and each by one process."""

import os
import subprocess
import sys
import threading
import time

import pytest
from sweep import ROOT, ends, wait

from mechsub import lease
from mechsub.lab import store

HOLD = """
import sys
from pathlib import Path
from mechsub import lease
with lease.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# Six processes try at once to take the lease; who has it keeps it until all have tried.
RACE = """
import os, sys, time
from pathlib import Path
from mechsub import lease
cell, tried, begin, children = Path(sys.argv[1]), Path(sys.argv[2]), time.monotonic() + 0.05, []
log = os.open(tried, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
for _ in range(6):
    if not (child := os.fork()):
        code = 3
        while time.monotonic() < begin:
            pass
        try:
            with lease.hold(cell, wait=False) as check:
                os.write(log, b"x")
                code = 8  # another has it too
                while tried.stat().st_size < 6:
                    time.sleep(0.01)
                check()
                code = 7
        except lease.Lost:
            os.write(log, b"x" * (code == 3))
        os._exit(code)
    children.append(child)
print(sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def _python(code, *argv):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, argv)], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def _dead_process(cell):
    """Leave the lease of a process that was killed."""
    process = _python(HOLD, cell)
    assert process.stdout.readline() == "held\n"
    process.kill()
    return process


def _foreign(cell, number=1):
    """A lease of another machine, which beats when its time is changed."""
    path = cell.parent / lease.FOLDER / f"{cell.name}.{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0123456789ab-0000-12-34 process 12 on elsewhere x")
    return path


@pytest.fixture
def cell(tmp_path):
    return tmp_path / "study" / "cell=1.5"


def test_a_second_process_waits_for_the_first(cell):
    process = _python(HOLD, cell)
    assert process.stdout.readline() == "held\n"
    assert lease.held(cell) == f"process {process.pid} on {os.uname().nodename}"
    with pytest.raises(lease.Lost), lease.hold(cell, wait=False):
        pass
    threading.Timer(0.2, process.stdin.close).start()
    with lease.hold(cell) as check:
        check()
        assert process.wait() == 0
    assert lease.held(cell) is None and os.listdir(cell.parent) == []


def test_a_killed_holder_is_replaced_at_once_even_while_it_is_a_zombie(cell):
    process = _dead_process(cell)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    with lease.hold(cell, wait=False):
        pass
    ends(process, -9)
    assert os.listdir(cell.parent) == []


@pytest.mark.parametrize("generations", [0, 1, 3])
def test_of_many_processes_exactly_one_takes_over(cell, generations):
    for _ in range(5):
        for _ in range(generations):
            number = max(lease._generations(cell), default=0) + 1
            (cell.parent / lease.FOLDER).mkdir(parents=True, exist_ok=True)
            dead = f"{lease._machine()}-{lease._boot()}-1-1"
            (cell.parent / lease.FOLDER / f"{cell.name}.{number}").write_text(f"{dead} process 1 on here x")
        assert ends(_python(RACE, cell, cell.parent.with_name("tried")))[0] == "[3, 3, 3, 3, 3, 7]\n"
        assert os.listdir(cell.parent) == []


def test_a_number_used_again_by_another_process_is_no_sign_of_life(cell):
    machine, boot, pid, started = lease.owner().split("-")
    assert lease.alive(lease.owner()) is True
    assert lease.alive(f"{machine}-{boot}-{pid}-{int(started) - 1}") is False
    assert lease.alive(f"{machine}-ffffffff-{pid}-{started}") is False  # before the machine was started anew
    assert lease.alive(f"000000000000-{boot}-{pid}-{started}") is None


def test_another_machines_lease_stands_while_it_beats_and_falls_when_it_is_silent(cell, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 0.3)
    path = _foreign(cell)
    for skew in (-86400, 0, 86400, 86401, 86402):  # whatever its clock says
        os.utime(path, (time.time() + skew, time.time() + skew))
        seen = time.monotonic()
        assert lease.held(cell) == "process 12 on elsewhere"
        time.sleep(0.15)
    with lease.hold(cell) as check:
        assert time.monotonic() - seen > 0.3
        check()
    assert os.listdir(cell.parent) == []


def test_the_holder_beats(cell, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with lease.hold(cell):
        (path,) = lease._generations(cell).values()
        before = path.stat().st_mtime_ns
        wait(lambda: path.stat().st_mtime_ns > before)


def test_who_lost_the_lease_writes_nothing_and_removes_nothing(cell):
    made = {"version": 1, "config": {}}
    store.write_cell(cell, [{"v": "theirs"}], made)
    with lease.hold(cell) as check:
        theirs = _foreign(cell, 2)
        with pytest.raises(lease.Lost, match="another process took"):
            store.write_cell(cell, [{"v": "late"}], made, check=check)
    assert store.read_records(cell) == [{"v": "theirs"}]
    assert theirs.exists() and sorted(os.listdir(cell.parent)) == [".leases", "cell=1.5"]


def test_a_lease_that_was_let_go_while_it_was_looked_at_is_not_taken_over(cell, monkeypatch):
    """The old lease vanishes between the look at it and the attempt on the next number: 2 without 1 is none."""
    path = _foreign(cell)
    create = lease._create

    def slow(*arguments):
        path.unlink()
        return create(*arguments)

    monkeypatch.setattr(lease, "STALE", 0.0)
    monkeypatch.setattr(lease, "_create", slow)
    assert lease._acquire(cell) is None
    assert lease._generations(cell) == {}


def test_a_folder_that_vanished_is_named(cell):
    with lease.hold(cell) as check:
        for path in (*lease._generations(cell).values(), cell.parent / lease.FOLDER, cell.parent):
            path.rmdir() if path.is_dir() else path.unlink()
        with pytest.raises(FileNotFoundError, match="study has vanished"):
            check()


def test_a_cell_made_from_itself_is_an_error_and_no_deadlock(cell):
    with lease.hold(cell), pytest.raises(RuntimeError, match="made from itself"), lease.hold(cell):
        pass


def test_nothing_stays_open(cell):
    import threading

    for _ in range(3):
        with lease.hold(cell):
            pass
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for _ in range(50):
        with lease.hold(cell):
            pass
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_many_short_leases_never_disturb_their_holder(cell):
    """Nobody dies here, so nobody may ever be told that it has lost, and no two may hold at once."""
    code = """
import os, sys
from pathlib import Path
from mechsub import lease
cell, log = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for _ in range(60):
    with lease.hold(cell) as check:
        os.write(log, b"(")
        check()
        os.write(log, b")")
"""
    processes = [_python(code, cell, cell.parent.with_name("log")) for _ in range(4)]
    for process in processes:
        ends(process)
    assert cell.parent.with_name("log").read_text() == "()" * 240
    assert os.listdir(cell.parent) == []


@pytest.mark.parametrize("machine", ["another", "this"])
def test_a_lease_that_is_let_go_while_it_is_judged_is_not_taken_over(cell, monkeypatch, machine):
    """To create number 2 then, even for a moment, would make the holder of a new number 1 believe that it has lost."""
    path, alive, created = _foreign(cell), lease.alive, []
    if machine == "this":  # of a process that ended after it had let go
        path.write_text(f"{lease._machine()}-{lease._boot()}-1-1 process 1 on here x")

    def judged(name):
        path.unlink(missing_ok=True)
        return alive(name)

    monkeypatch.setattr(lease, "alive", judged)
    monkeypatch.setattr(lease, "_create", lambda *arguments: created.append(arguments))
    assert lease._acquire(cell) is None and created == []
