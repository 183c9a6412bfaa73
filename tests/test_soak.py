"""Short form of `benchmarks/soak.py`, in a process of its own: other tests' memory would hide or feign growth."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_process_that_runs_many_cells_does_not_grow():
    command = [sys.executable, "-m", "benchmarks.soak", "--cells", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 cells stored" in done.stdout
    resident, error = map(float, re.search(r"cells: (\S+) MB resident .*error (\S+)\)", done.stdout).groups())
    assert resident < 5 + 2 * error, done.stdout  # MB per 100 cells; the long form has the goal of 1
    files, threads = re.search(r"open files seen: \[(.*?)\]; threads seen: \[(.*?)\]", done.stdout).groups()
    assert files.isdigit() and threads.isdigit(), done.stdout  # one number each
