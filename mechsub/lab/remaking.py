"""Make cells again elsewhere, in processes of one thread, and measure the difference of two cells.

A worker is `python -m mechsub.lab.remaking`: it reads one cell from a line, makes it and answers with a line. It
imports the studies' packages once, so that many small cells are quick.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mechsub.lab import cells, finder

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
ANSWER = "made: "  # what a study prints is no answer


@dataclass(frozen=True, eq=False)
class Task:
    study: str
    name: str
    config: dict
    out: Path

    @property
    def cell(self) -> Path:
        return self.out / self.study / self.name


class Made(NamedTuple):
    task: Task
    seconds: float
    error: str  # "" where the cell was made


def make_all(tasks: Iterable[Task], workers: int, environment: Mapping[str, str] = ONE_THREAD) -> Iterator[Made]:
    """Make the cells of all tasks in so many processes; yields each as it is done."""
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    count = 0
    for count, task in enumerate(tasks, 1):  # noqa: B007, the count is used below
        waiting.put(task)
    done: queue.SimpleQueue[Made] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as checkpoints:  # with those of the cache, nothing would be trained again
        given = {**os.environ, **environment, "MECHSUB_CHECKPOINTS": checkpoints}
        threads = [
            threading.Thread(target=_serve, args=(waiting, done, given), daemon=True)
            for _ in range(min(workers, count))
        ]
        for thread in threads:
            thread.start()
        for _ in range(count):
            yield done.get()


def _serve(waiting: queue.SimpleQueue, done: queue.SimpleQueue, environment: Mapping[str, str]) -> None:
    process = None
    while True:
        try:
            task = waiting.get_nowait()
        except queue.Empty:
            break
        if process is None:
            process = _start(environment)
        started = time.perf_counter()
        error = _asked(process, task)
        if process.poll() is not None:
            process = None
        done.put(Made(task, time.perf_counter() - started, error))
    if process:
        process.communicate()


def _start(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mechsub.lab.remaking"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment)


def _asked(process: subprocess.Popen[str], task: Task) -> str:
    """Give a worker a task and wait; returns the error of the cell, or the cause of the process's death."""
    assert process.stdin and process.stdout  # both are pipes
    line = json.dumps({"study": task.study, "config": task.config, "out": str(task.out)})
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line + "\n")
        process.stdin.flush()
    for answer in iter(process.stdout.readline, ""):
        if answer.startswith(ANSWER):
            return json.loads(answer.removeprefix(ANSWER))
    return f"its process left with exit code {process.wait()}"


def work() -> None:
    """The loop of a worker, until its input ends."""
    for line in sys.stdin:
        task = json.loads(line)
        error = ""
        try:
            study = finder.find_study(task["study"])
            if study is None:
                raise LookupError(f"there is no study {task['study']!r}")
            cells.make_cell(study, study.Config(**task["config"]), task["out"])
        except Exception as failure:
            error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"[:800]
        print(f"\n{ANSWER}{json.dumps(error)}", flush=True)


# How far two cells are apart.


def rows_apart(these: list[dict], those: list[dict]) -> dict[str, float | str]:
    """Field -> largest absolute difference of its numbers, or "differs" for other values; {} for equal rows."""
    if len(these) != len(those):
        return {"rows": f"{len(these)} and {len(those)}"}
    apart: dict[str, float | str] = {}
    for a, b in zip(these, those, strict=True):
        for key in {**a, **b}:
            x, y = a.get(key), b.get(key)
            if x == y and type(x) is type(y):
                continue
            now = values_apart(x, y)
            if isinstance(now, str) or isinstance(apart.get(key), str):
                apart[key] = "differs"
            else:
                apart[key] = max(now, apart.get(key, 0.0))
    return apart


def values_apart(x: object, y: object) -> float | str:
    """Absolute difference of two numbers, largest within lists and dicts of one shape; "differs" for anything else."""
    if type(x) is type(y) is float:
        return abs(x - y)
    if isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
        pairs = list(zip(x, y, strict=True))
    elif isinstance(x, dict) and isinstance(y, dict) and x.keys() == y.keys():
        pairs = [(x[key], y[key]) for key in x]
    else:
        return 0.0 if x == y and type(x) is type(y) else "differs"
    most = 0.0
    for a, b in pairs:
        apart = values_apart(a, b)
        if isinstance(apart, str):
            return apart
        most = max(most, apart)
    return most


def first_difference(these: list[dict], those: list[dict]) -> str:
    """The first row that differs, in one line: fields that identify it, and its differing fields, old and new."""
    for number, (a, b) in enumerate(zip(these, those, strict=False), 1):
        if apart := [key for key in {**a, **b} if a.get(key) != b.get(key) or type(a.get(key)) is not type(b.get(key))]:
            row = {key: value for key, value in a.items() if isinstance(value, str | int) and key not in apart}
            told = ", ".join(f"{key} {_short(a.get(key))} -> {_short(b.get(key))}" for key in apart[:4])
            return f"row {number} ({_short(row)}): {told}"
    return f"{len(these)} rows -> {len(those)} rows" if len(these) != len(those) else ""


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


if __name__ == "__main__":
    work()
