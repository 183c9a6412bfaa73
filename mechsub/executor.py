"""An executor: where the cells that are wanted are made. In this process, in several, or as one Slurm job array.

    run(wanted, make, command, options, show)

`wanted` maps each cell to what `store.made` said of it when the command started: a cell of which it says something else
by now has been made by another process, and is left alone. That and the leases make everything here idempotent.

A worker, local or on a cluster, is the user's own command with `--cells FILE` behind it: it makes the cells named in
the lines of the file, or of its input if FILE is `-`, answers each with a line, and draws nothing. Only text is handed
over.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mechsub import cores, processes, store
from mechsub.lab import lease

RETRIES = 3  # of a cell whose process was killed
POLL = 2.0  # seconds between two looks at Slurm's queue
LONGEST_ARRAY = 1000  # Slurm's own default limit; of more cells, each task gets several

# Slurm requeues by itself where a node fails or is taken away. A time limit, or a signal by hand, only kills the
# worker: then the script asks for the requeue, unless the job was cancelled. A cell that failed is not tried again.
REQUEUE = [
    "code=$?",
    f'if [ $code -gt 128 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RETRIES} ] &&',
    '    [ -n "$(squeue -h -j "$SLURM_JOB_ID" -t RUNNING -o %i)" ]; then',
    '    scontrol requeue "$SLURM_JOB_ID"',
    "fi",
    "exit $code",
]

Wanted = Mapping[Path, str | None]


class Failed(RuntimeError):
    """A cell that a worker could not make; the message is complete."""


def run(wanted: Wanted, make: Callable[[Path], None], command: list[str], options, show: Callable[[str], None]) -> None:
    """Make all wanted cells; `show` is told how far it is."""
    if not wanted:
        return
    if options.executor == "slurm":
        _run_slurm(wanted, command, options.workers, show)
    elif min(options.workers or 1, len(wanted)) > 1:
        _run_processes(wanted, command, min(options.workers, len(wanted)), show)
    else:
        for number, cell in enumerate(_free_first(wanted), 1):
            show(f"cell {number}/{len(wanted)} {cell.name}")
            make(cell)


def _free_first(wanted: Wanted, stop: threading.Event | None = None) -> Iterator[Path]:
    """The wanted cells; those that other processes are making come last, if they still have to be made then."""
    waiting, busy = deque(wanted), 0
    while waiting and not (stop and stop.is_set()):
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


def _line(cell: Path, before: str | None) -> str:
    return json.dumps({"cell": cell.name, "before": before}) + "\n"


def work(file: str, make: Callable[[str, str | None], None]) -> None:
    """What a worker does: make the cells of a file by name."""
    answers = sys.stdout
    with sys.stdin if file == "-" else open(file, encoding="utf-8") as lines, contextlib.redirect_stdout(sys.stderr):
        for line in iter(lines.readline, ""):
            task = json.loads(line)
            make(task["cell"], task["before"])
            print(task["cell"], file=answers, flush=True)


# Processes of this machine.


def _run_processes(wanted: Wanted, command: list[str], workers: int, show: Callable[[str], None]) -> None:
    """Each worker gets its next cell when it has answered the last; after a failure no more are given out."""
    stop, lock, processes = threading.Event(), threading.Lock(), []
    cells, done = _free_first(wanted, stop), [0]

    def serve() -> None:
        worker = _Worker(command, processes, max(1, cores.usable() // workers))
        try:
            while (cell := _next(cells, lock)) is not None:
                worker.make(cell, wanted[cell])
                done[0] += 1
                show(f"{done[0]}/{len(wanted)} cells, {workers} workers")
        except BaseException:
            stop.set()
            raise
        finally:
            worker.close()

    with ThreadPoolExecutor(workers) as pool:
        try:
            served = [pool.submit(serve) for _ in range(workers)]
            for future in served:
                future.result()
        except KeyboardInterrupt:
            stop.set()
            for process in processes:
                process.send_signal(signal.SIGINT)
            raise


def _next(cells: Iterator[Path], lock: contextlib.AbstractContextManager) -> Path | None:
    with lock:
        return next(cells, None)


class _Worker:
    """A process that makes one cell after the other, started anew if it was killed."""

    def __init__(self, command: list[str], processes: list, threads: int):
        self.command, self.processes, self.process = command, processes, None
        # More threads than cores wait for each other: two workers of two threads on two cores took 3 times as long.
        self.environment = {"OMP_NUM_THREADS": str(threads), **os.environ}

    def make(self, cell: Path, before: str | None) -> None:
        for _ in range(RETRIES):
            if self.process is None:
                self._start()
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(_line(cell, before))  # type: ignore[attr-defined]
                self.process.stdin.flush()  # type: ignore[attr-defined]
            if self.process.stdout.readline().strip() == cell.name:  # type: ignore[attr-defined]
                return
            code = self.close()
            if code >= 0:
                raise Failed(self.error or f"cell {cell} failed: its process left with exit code {code}")  # type: ignore[has-type]
        raise Failed(f"cell {cell} failed: its process was killed by signal {-code} {RETRIES} times")

    def _start(self) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(  # type: ignore[assignment]
            [*self.command, "--cells", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=self.environment,
            start_new_session=True,  # Ctrl-C reaches this process, which hands it on, once
        )
        self.processes.append(self.process)

    def close(self) -> int:
        """End the process, hand on what it said on stderr, and keep its one line of error."""
        if self.process is None:
            return 0
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        self.errors.seek(0)
        said = self.errors.read().splitlines()
        self.errors.close()
        self.error = said.pop().removeprefix("error: ") if code > 0 and said and said[-1].startswith("error: ") else ""
        print("".join(f"{line}\n" for line in said), end="", file=sys.stderr)
        self.process = None
        return code


# Slurm.


def unusable() -> str:
    """Why `--executor slurm` cannot be used here, or nothing."""
    if importlib.util.find_spec("submitit") is None:
        return "--executor slurm needs submitit: pip install 'mechsub[cluster]'"
    for name in ("sbatch", "squeue", "srun"):
        if shutil.which(name) is None:
            return f"--executor slurm needs {name}, which is not found; is this a machine of the cluster?"
    return ""


def _run_slurm(wanted: Wanted, command: list[str], at_most: int | None, show: Callable[[str], None]) -> None:
    """Submit the wanted cells as one array, less those that an earlier one still has, and wait until all are stored."""
    folder = next(iter(wanted)).parent.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = _earlier(folder)
    taken = {line for tasks in jobs.values() for lines in tasks.values() for line in lines}
    lines = [line for line in itertools.starmap(_line, wanted.items()) if line not in taken]
    own = _submit(folder, lines, command, at_most) if lines else None
    if own:
        jobs[own] = _tasks(own)
    looks = 2  # the last one a moment after the queue is empty: a network file system may show cells late
    while (left := _left(wanted)) and looks:
        show(f"{len(wanted) - len(left)}/{len(wanted)} cells, Slurm")
        looks = 2 if any(_queued(job, tasks) for job, tasks in jobs.items()) else looks - 1
        time.sleep(POLL)
    if left:
        raise Failed(_reason(left, jobs))
    if own:
        shutil.rmtree(own, ignore_errors=True)


def _left(wanted: Wanted) -> list[Path]:
    return [cell for cell, before in wanted.items() if store.made(cell) == before]


def _tasks(job: Path) -> dict[str, list[str]]:
    """The lines of each task of an array."""
    return {file.stem: file.read_text(encoding="utf-8").splitlines(True) for file in job.glob("*.cells")}


def _earlier(folder: Path) -> dict[Path, dict[str, list[str]]]:
    """Tasks of this study that are still in Slurm's queue; folders of jobs that have ended are removed."""
    jobs = {}
    for job in folder.glob(".slurm-*.job"):
        tasks = _tasks(job)
        queued = _queued(job, tasks)
        jobs[job] = {task: lines for task, lines in tasks.items() if task in queued}
        if not queued and processes.alive(job.name.split(".")[-2]) is False:
            shutil.rmtree(job, ignore_errors=True)
    return jobs


def _queued(job: Path, tasks: Iterable[str]) -> set[str]:
    """Tasks that wait or run; all of them if Slurm does not answer just now."""
    done = subprocess.run(["squeue", "-h", "-r", "-n", job.name, "-o", "%K"], capture_output=True, text=True)
    return set(done.stdout.split()) if done.returncode == 0 else set(tasks)


def _submit(folder: Path, lines: list[str], command: list[str], at_most: int | None) -> Path:
    """The folder of a new array, whose name is the job's name, so that it is found again whatever happens to us.

    submitit writes the script and calls sbatch. Its way to hand over Python functions, cloudpickle, is not used.
    """
    import submitit

    job = Path(tempfile.mkdtemp(prefix=".slurm-", suffix=f".{processes.owner()}.job", dir=folder))
    n_tasks = min(len(lines), LONGEST_ARRAY)
    for task in range(n_tasks):
        (job / f"{task}.cells").write_text("".join(lines[task::n_tasks]), encoding="utf-8")
    cpus = os.environ.get("SBATCH_CPUS_PER_TASK")  # unlike the other SBATCH_ variables, sbatch does not read it
    array = submitit.SlurmExecutor(job)
    array.update_parameters(
        job_name=job.name,
        time=None,
        wckey=None,
        signal_delay_s=30,
        array_parallelism=at_most or n_tasks,
        additional_parameters={"requeue": True} | ({"cpus-per-task": cpus} if cpus else {}),
        srun_args=["--cpus-per-task", cpus] if cpus else [],
        teardown=REQUEUE,
    )
    array.parameters["map_count"] = n_tasks
    words = " ".join(map(shlex.quote, [*command, "--cells", f"{job}/"]))
    try:
        array._submit_command(f'{words}"$SLURM_ARRAY_TASK_ID".cells')
    except Exception as error:
        shutil.rmtree(job, ignore_errors=True)
        raise Failed(f"sbatch refused the job: {str(error).strip().splitlines()[-1]}") from error
    return job


def _reason(left: list[Path], jobs: Mapping[Path, Mapping[str, list[str]]]) -> str:
    """One line on the first cell that was not made: its task's own error, and the file to look into."""
    cell, more = left[0], f"; {len(left) - 1} more cells are missing" * (len(left) > 1)
    for job, tasks in jobs.items():
        for task, lines in tasks.items():
            if any(json.loads(line)["cell"] == cell.name for line in lines):
                for log in job.glob(f"*_{task}_0_log.err"):
                    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
                    why = said[-1].removeprefix("error: ") if said else f"cell {cell}: its Slurm job was killed"
                    return f"{why}; stderr of the job: {log}{more}"
    return f"cell {cell}: its Slurm job was cancelled before it began; run the same command again{more}"
