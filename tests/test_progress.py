"""The bar of a call that takes a function of the share done."""

import os
import pty
import queue
import re
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

import mechsub as ms
from mechsub.machine import devices
from mechsub.training import fitting

ROOT = Path(__file__).parent.parent
COUNT = """
import mechsub
bar = mechsub.progress_bar("students")
for i in range(100):
    bar((i + 1) / 100)
"""


def test_a_terminal_redraws_one_line_and_keeps_the_last():
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", COUNT], cwd=ROOT, env=environment, stderr=follower)
    os.close(follower)
    said = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.returncode == 0 and said.count("\n") == 1
    assert "  0% |" in said and "100% |" in said.strip().split("\r")[-1] and "students" in said
    assert said.count("\r") < 50  # of 100 calls


def test_students_are_counted_as_they_finish(capsys):
    start = ms.HookedMLP(ms.MLPConfig(d_model=8), seeds=range(2))
    students = {"aux": (start, start.cfg.aux)}
    bar = ms.progress_bar("students")
    ms.distill_each(students, start, ms.noise.uniform, n_samples=64, epochs=1, progress=bar)
    said = capsys.readouterr().err
    assert "  0% |" in said and "100% |" in said


@pytest.mark.parametrize("at_once", [False, True])
def test_training_tells_every_epoch_of_a_member_and_changes_no_number(at_once):
    """In order, whichever thread has done the epoch; members that train at once have done it together."""
    start = ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=8), seeds=range(3))
    images, labels = torch.rand(40, 16, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    fit = {"epochs": 4, "batch_size": 20, "precision": "fp32"}
    pair = {"a": (start, start.cfg.aux)}
    ways = {
        "train": lambda **more: ms.train(start, images, labels, **fit, **more),
        "distill": lambda **more: ms.distill(start, start, images, outputs=start.cfg.aux, **fit, **more),
        "distill_each": lambda **more: ms.distill_each(pair, start, images, **fit, **more)["a"],
    }
    with devices.on("cpu", together=at_once):
        for name, way in ways.items():
            told: list[float] = []
            found, plain = way(progress=told.append), way()
            assert told == [i / (4 if at_once else 12) for i in range(1, 5 if at_once else 13)], name
            assert all(torch.equal(a, b) for a, b in zip(found.parameters(), plain.parameters(), strict=True))
            with pytest.raises(TypeError, match="progress"):
                way(progress=0.5)
            for wrong in (tqdm, lambda: None):  # a class was called, and showed nothing
                with pytest.raises(ValueError, match="progress must be a function of the share done"):
                    way(progress=wrong)
    told = []
    ms.removal.distill_without({"a": (start, None)}, start, images, outputs=start.cfg.aux, progress=told.append, **fit)
    assert told == [i / 12 for i in range(1, 13)]


def test_a_progress_may_itself_train():
    """In a thread of the pool it would wait for the members that wait for it."""
    torch.set_num_threads(2)
    start = ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=8), seeds=range(3))
    images, labels = torch.rand(40, 16, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    fit = {"epochs": 2, "batch_size": 20, "precision": "fp32"}
    plain, shares = ms.train(start, images, labels, **fit), []

    def progress(share):
        assert threading.current_thread() is here
        again = ms.train(start, images, labels, **fit)
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), plain.parameters(), strict=True))
        shares.append(share)

    here = threading.current_thread()
    found = ms.train(start, images, labels, **fit, progress=progress)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), plain.parameters(), strict=True))
    pair = {"a": (start, None)}
    ms.removal.distill_without(pair, start, images, outputs=start.cfg.aux, progress=progress, **fit)
    ms.distillation.each_member(lambda member: {}, 3, progress)
    assert shares == [i / 6 for i in range(1, 7)] * 2 + [1 / 3, 2 / 3, 1.0]


def test_a_progress_that_raises_ends_the_training():
    """Also that of the members that are under way: they end after their epoch, and those that wait never begin."""
    torch.set_num_threads(2)
    begun, left = [], threading.Event()

    def work(member, done):
        begun.append(member)
        done()
        assert left.wait(20)
        try:
            done()
        except BaseException as error:
            ended.put(type(error).__name__)
            raise
        return {}

    def progress(share):
        raise KeyError("enough")

    ended = queue.SimpleQueue()
    with pytest.raises(KeyError, match="enough"):
        fitting.each_in_parts(work, 8, 2, progress)
    left.set()
    assert ended.get(timeout=20) == "CancelledError" and len(begun) <= 2


def test_of_several_members_that_fail_the_first_is_told():
    torch.set_num_threads(2)
    other = threading.Event()

    def work(member):
        if member:
            other.set()
        assert other.wait(20)
        raise ValueError(f"member {member}")

    with pytest.raises(ValueError, match="member 0"):
        ms.distillation.each_member(work, 2)


def test_progress_of_workers_stands_behind_the_bar_and_warnings_above_it(capsys, monkeypatch):
    from mechsub.lab import progress

    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    progress.start_bar("0/2 cells, 2 workers", quiet=False)
    progress.relay("12:00:00 a, 40% students")
    progress.relay("a warning")
    progress.clear_bar()
    said = capsys.readouterr().err
    assert "0/2 cells, 2 workers; 12:00:00 a, 40% students" in said and "a warning\n" in said
    progress.relay("12:00:00 a, 50% students")
    assert capsys.readouterr().err == "12:00:00 a, 50% students\n"


def test_a_log_has_a_line_now_and_then_and_none_of_what_ends_at_once(capsys, monkeypatch):
    from mechsub.lab import progress

    now = iter([0.0, 3.0, 12.0, 12.0, 15.0, 24.0, 24.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    progress.start_bar("cell 1/2 a", quiet=False)
    progress.show_progress(0.1, "students")
    assert capsys.readouterr().err == ""
    progress.show_progress(0.4, "students")
    assert capsys.readouterr().err.endswith(" cell 1/2 a, 40% students\n")
    progress.show_progress(0.5, "students")
    progress.start_bar("cell 2/2 b, about 3 min left", quiet=False)
    assert capsys.readouterr().err.endswith(" cell 2/2 b, about 3 min left\n")
    progress.clear_bar()
    progress.show_progress(0.9, "of no command")
    assert capsys.readouterr().err == ""


def test_a_log_names_a_cell_that_says_nothing(capsys, monkeypatch):
    from mechsub.lab import progress

    monkeypatch.setattr(progress, "SILENCE", 0.05)
    progress.start_bar("cell 1/1 a", quiet=True)
    time.sleep(0.2)
    progress.start_bar("cell 1/1 a", quiet=False)
    assert capsys.readouterr().err == ""
    time.sleep(0.3)
    progress.clear_bar()
    first, *more = capsys.readouterr().err.splitlines()
    assert first.endswith(" cell 1/1 a") and more and all(re.search(r" cell 1/1 a, for \d+ s$", line) for line in more)
    time.sleep(0.3)
    assert capsys.readouterr().err == ""
