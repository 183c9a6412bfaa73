"""Where cells are made: in this process, in processes of this machine, or as a Slurm job array (mechsub.lab.slurm).

    run(wanted, make, command, options, show, begin)

`wanted` holds, for each cell, the value of `store.made` at the start of the command. Where this value has changed,
another process has made the cell, and the cell is skipped. With the leases, this makes every step repeatable.

A worker makes one cell and ends. It is the user's own command with `--cells -` at the end, and reads the cell's name
from its input.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mechsub.lab import lease, store
from mechsub.lab.progress import relay
from mechsub.machine import cores

RETRIES = 3  # of a cell whose process was killed
STOPS = (signal.SIGINT, signal.SIGTERM)  # who sends these wants the process to end

Wanted = Mapping[Path, str | None]


class Failed(RuntimeError):
    """A worker could not make a cell; the message is complete."""


def run(
    wanted: Wanted,
    make: Callable[[Path], None],
    command: list[str],
    options,
    show: Callable[[str], None],
    begin: Callable[[Path], None],
) -> None:
    """Make all wanted cells on this machine; `show` gets the progress, and `begin` each cell before it is made."""
    if min(options.workers or 1, len(wanted)) > 1:
        _run_processes(wanted, command, min(options.workers, len(wanted)), show, begin)
    else:
        for number, cell in enumerate(_free_first(wanted), 1):
            begin(cell)
            show(f"cell {number}/{len(wanted)} {cell.name}")
            make(cell)


def unusable() -> str:
    """Why `--executor slurm` cannot be used here, or nothing."""
    if importlib.util.find_spec("submitit") is None:
        return "--executor slurm needs submitit: pip install 'mechsub[cluster]'"
    for name in ("sbatch", "squeue", "srun"):
        if shutil.which(name) is None:
            return f"--executor slurm needs {name}, which is not found; is this a machine of the cluster?"
    return ""


def _free_first(wanted: Wanted) -> Iterator[Path]:
    """The wanted cells; cells that other processes are making come last, if they are still missing then."""
    waiting, busy = deque(wanted), 0
    while waiting:
        cell = waiting.popleft()
        if store.made(cell) != wanted[cell]:
            continue
        if not lease.held(cell):
            busy = 0
            yield cell
            continue
        waiting.append(cell)
        busy += 1
        if busy >= len(waiting):
            busy = 0
            time.sleep(0.1)


def line(cell: Path, before: str | None) -> str:
    """The line about a cell that a worker gets."""
    return json.dumps({"cell": cell.name, "before": before}) + "\n"


def work(file: str, make: Callable[[str, str | None], None]) -> None:
    """Make the cells named in the lines of a file, or of the input if the file is `-`, as a worker does."""
    with sys.stdin if file == "-" else open(file, encoding="utf-8") as lines, contextlib.redirect_stdout(sys.stderr):
        for task in map(json.loads, lines):
            make(task["cell"], task["before"])


def by_command(
    command: list[str],
    lines: str,
    what: str,
    running: set[subprocess.Popen],
    say: Callable[[str], None] = relay,
    **options,
) -> str:
    """Let a worker make these cells, another one if it is killed; returns the reason of a failure, or nothing.

    `say` gets every line of the worker as it comes, but for the reason.
    """
    for _ in range(RETRIES):
        process = subprocess.Popen(
            [*command, "--cells", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            **options,
        )  # fmt: skip
        running.add(process)
        try:
            last = _ask(process, lines, say)
        finally:
            running.discard(process)
            if process.poll() is None:  # Slurm's signal came while it ran
                process.kill()
        code = process.returncode
        error = last.removeprefix("error: ") if code > 0 and last.startswith("error: ") else ""
        if last and not error:
            say(last)
        if code >= 0 or -code in STOPS:
            break
    if code < 0:
        times = f" {RETRIES} times" if -code not in STOPS else ""
        return f"{what} failed: its process was killed by signal {-code}{times}"
    return error or (f"{what} failed: its process left with exit code {code}" if code else "")


def _ask(process: subprocess.Popen, lines: str, say: Callable[[str], None]) -> str:
    """Give a worker its cells and hand on what it says until it ends; returns a last line that may be the reason."""
    assert process.stdin is not None and process.stderr is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # one that ends at once reads nothing
        process.stdin.write(lines)
    last = ""
    with process.stderr:
        for text in process.stderr:
            if last:
                say(last)
            last = text.rstrip("\n") if text.startswith("error: ") else ""
            if not last:
                say(text.rstrip("\n"))
    process.wait()
    return last


def _run_processes(
    wanted: Wanted, command: list[str], workers: int, show: Callable[[str], None], begin: Callable[[Path], None]
) -> None:
    """Make so many cells at a time; after a failure no new cell is begun."""
    stop, lock, shown, done = threading.Event(), threading.Lock(), threading.Lock(), [0]
    cells, running = _free_first(wanted), set[subprocess.Popen]()
    # More threads than cores wait for each other: two workers of two threads on two cores took 3 times as long.
    environment = {"OMP_NUM_THREADS": str(max(1, cores.usable() // workers)), **os.environ}

    def serve() -> None:
        while not stop.is_set():
            with lock:
                cell = next(cells, None)
            if cell is None:
                return
            begin(cell)
            # In a session of their own, since Ctrl-C reaches this process, which hands it on once.
            error = by_command(
                command, line(cell, wanted[cell]), f"cell {cell}", running, env=environment, start_new_session=True
            )
            if error:
                stop.set()
                raise Failed(error)
            with shown:
                done[0] += 1
                show(f"{done[0]}/{len(wanted)} cells, {workers} workers")

    show(f"0/{len(wanted)} cells, {workers} workers")
    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in [pool.submit(serve) for _ in range(workers)]:
                future.result()
        except KeyboardInterrupt:
            stop.set()
            for process in list(running):
                process.send_signal(signal.SIGINT)
            raise
