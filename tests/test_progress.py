"""The bar of a call that takes a function of the share done."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import mechsub as ms

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
