"""Which cell a lease is of, who holds it, what is lost with it and what is left; filelock's own tests test the rest."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from sweep import ROOT, ends

from mechsub import processes
from mechsub.lab import lease, store

HOLD = """
import sys
from pathlib import Path
from mechsub.lab import lease
with lease.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _python(code, *argv):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, argv)], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def _holder(cell):
    process = _python(HOLD, cell)
    assert process.stdout.readline() == "held\n"
    return process


def _path(cell):
    return cell.with_name(f".{cell.name}.lease")


def _foreign(cell):
    """A lease of another machine, which beats when its time is changed."""
    path = _path(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(f"filelock/2\npid=12\nhost=elsewhere\nmode=lease\ntoken=1\nduration={lease.STALE!r}\n")
    return path


@pytest.fixture
def cell(tmp_path):
    return tmp_path / "study" / "cell=1.5"


def test_a_second_process_waits_for_the_first(cell):
    process = _holder(cell)
    assert lease.held(cell) == f"process {process.pid} on {os.uname().nodename}" and lease.leased(cell.parent) == {cell}
    with pytest.raises(lease.Lost), lease.hold(cell, wait=False):
        pass
    threading.Timer(0.2, process.stdin.close).start()
    with lease.hold(cell) as check:
        check()
        assert process.wait() == 0 and lease.held(cell) == f"process {os.getpid()} on {os.uname().nodename}"
    assert lease.held(cell) is None and os.listdir(cell.parent) == []


def test_a_killed_holder_is_replaced_at_once(cell):
    process = _holder(cell)
    process.kill()
    ends(process, -signal.SIGKILL)
    assert lease.held(cell) is None and os.listdir(cell.parent) == []
    with lease.hold(cell, wait=False):
        pass


def test_another_machines_lease_stands_while_it_beats_and_falls_when_it_is_silent(cell, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 0.3)
    monkeypatch.setattr(lease, "BEAT", 0.1)
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


def test_a_process_that_was_killed_before_it_wrote_its_name_holds_nothing(cell, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 0.3)
    monkeypatch.setattr(lease, "BEAT", 0.1)
    cell.parent.mkdir()
    _path(cell).touch()
    with pytest.raises(lease.Lost), lease.hold(cell, wait=False):
        pass
    with lease.hold(cell) as check:
        check()
    assert os.listdir(cell.parent) == []


def test_who_lost_the_lease_writes_nothing_and_removes_nothing(cell):
    made = {"version": 1, "config": {}}
    store.write_cell(cell, [{"v": "theirs"}], made)
    with lease.hold(cell) as check:
        theirs = _foreign(cell)
        with pytest.raises(lease.Lost, match="another process took"):
            store.write_cell(cell, [{"v": "late"}], made, check=check)
    assert store.read_records(cell) == [{"v": "theirs"}]
    assert theirs.exists() and sorted(os.listdir(cell.parent)) == [".cell=1.5.lease", "cell=1.5"]


def test_what_a_killed_takeover_leaves_is_removed(cell):
    """filelock exchanges files of these names, in their folder."""
    cell.parent.mkdir()
    for end in (".break.12.00ff", ".restore.12.00ff"):
        _path(cell).with_name(f"{_path(cell).name}{end}").touch()
    cell.with_name(".cell.lease.break.12.00ff").touch()
    assert lease.leased(cell.parent) == {cell, cell.with_name("cell")}
    store.clean(cell.parent)
    assert os.listdir(cell.parent) == []


def test_a_folder_that_vanished_is_named(cell):
    with lease.hold(cell) as check:
        _path(cell).unlink()
        cell.parent.rmdir()
        with pytest.raises(FileNotFoundError, match="study has vanished"):
            check()


def test_a_cell_made_from_itself_is_an_error_and_no_deadlock(cell):
    with lease.hold(cell), pytest.raises(RuntimeError, match="made from itself"), lease.hold(cell):
        pass


def test_many_short_leases_never_disturb_their_holder(cell):
    """Nobody dies here, so nobody may ever be told that it has lost, and no two may hold at once."""
    code = """
import os, sys
from pathlib import Path
from mechsub.lab import lease
cell, log = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for _ in range(60):
    with lease.hold(cell) as check:
        os.write(log, b"(")
        check()
        os.write(log, b")")
"""
    started = [_python(code, cell, cell.parent.with_name("log")) for _ in range(4)]
    for process in started:
        ends(process)
    assert cell.parent.with_name("log").read_text() == "()" * 240
    assert os.listdir(cell.parent) == []


def test_a_number_used_again_by_another_process_is_no_sign_of_life():
    machine, boot, pid, started = processes.owner().split("-")
    assert processes.alive(processes.owner()) is True
    assert processes.alive(f"{machine}-{boot}-{pid}-{int(started) - 1}") is False
    assert processes.alive(f"{machine}-ffffffff-{pid}-{started}") is False  # before the machine was started anew
    assert processes.alive(f"000000000000-{boot}-{pid}-{started}") is None
