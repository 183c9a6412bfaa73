"""The bar in its three places: a pseudo-terminal, a notebook's display, a file."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import mechsub as ms

ROOT = Path(__file__).parent.parent
COUNT = """
import time
import mechsub
bar = mechsub.progress_bar("students")
for i in range(100):
    time.sleep({pause})
    bar((i + 1) / 100)
"""


def test_a_terminal_redraws_one_line_and_keeps_the_last():
    leader, follower = pty.openpty()
    done = subprocess.run([sys.executable, "-c", COUNT.format(pause=0.005)], cwd=ROOT, stderr=follower)
    os.close(follower)
    said = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.returncode == 0 and said.count("\n") == 1 and said.endswith(" s\r\n")
    lines = said.split("\r\x1b[K")[1:]
    assert lines[0] == f"[{'.' * 20}] students, 0 s" and lines[-1].startswith(f"[{'#' * 20}] students, ")
    assert 3 <= len(lines) < 50  # of 101 calls


def test_a_log_has_a_line_for_every_tenth():
    done = subprocess.run([sys.executable, "-c", COUNT.format(pause=0)], cwd=ROOT, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.stdout == "" and [line.count("#") for line in lines] == list(range(0, 21, 2))
    assert all("students" in line and "\r" not in line for line in lines)


def test_a_notebook_updates_one_output():
    shell = InteractiveShell.instance()
    try:
        shell.kernel = "what the shell of a notebook has, and that of a terminal has not"
        with capture_output() as shown:
            bar = ms.progress_bar("students")
            for fraction in (0.5, 1.0):
                time.sleep(0.11)
                bar(fraction)
    finally:
        InteractiveShell.clear_instance()
    assert shown.stdout == shown.stderr == ""
    first, *updates = shown.outputs
    assert not first.update and all(each.update and each.transient == first.transient for each in updates)
    texts = [each.data["text/plain"] for each in updates]
    assert [text.count("#") for text in texts] == [0, 10, 20] and all("students" in text for text in texts)


def test_students_are_counted_as_they_finish(capsys):
    start = ms.HookedMLP(ms.MLPConfig(d_model=8), seeds=range(2))
    students = {"aux": (start, start.cfg.aux)}
    bar = ms.progress_bar("students")
    ms.distill_each(students, start, ms.noise.uniform, n_samples=64, epochs=1, progress=bar)
    assert [line.count("#") for line in capsys.readouterr().err.splitlines()] == [0, 10, 20]
