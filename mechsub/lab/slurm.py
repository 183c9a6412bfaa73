"""Cells as one Slurm job array, through submitit, which writes the script, calls sbatch and reads the answers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import submitit

from mechsub import processes
from mechsub.lab import store, workers

POLL = 2.0  # seconds between two looks at Slurm's queue
LONGEST_ARRAY = 1000  # Slurm's own default limit; of more cells, each task gets several


class Task(submitit.helpers.Checkpointable):
    """A task of the array: cells, and the command that makes them. Its pickle is a class name and words."""

    def __init__(self, command: list[str]):
        self.command = command

    def __call__(self, lines: str) -> str:
        """Make the cells; returns why they could not be made, or nothing."""
        # submitit's own answer to this signal, which Slurm sends before the time limit, compares with a limit that it
        # has set itself. Here the limit is the partition's or SBATCH_TIMELIMIT, which submitit does not know.
        signal.signal(signal.SIGUSR2, _requeue)
        error = workers.by_command(self.command, lines, "its Slurm job", set())
        print(error, end="\n" * bool(error), file=sys.stderr, flush=True)
        return error


def _requeue(number: int, frame) -> None:
    """Ask Slurm to run this task again, which loses at most the cell in progress."""
    if int(os.environ.get("SLURM_RESTART_COUNT", 0)) < workers.RETRIES:
        subprocess.run(["scontrol", "requeue", submitit.JobEnvironment().job_id], check=False)
    raise SystemExit(128 + number)


def run(wanted: workers.Wanted, command: list[str], at_most: int | None, show: Callable[[str], None]) -> None:
    """Submit the wanted cells as one array and wait until all are stored.

    Cells that an earlier command's array still holds are submitted again; the lease prevents that they are made twice.
    """
    study = next(iter(wanted)).parent.absolute()
    study.mkdir(parents=True, exist_ok=True)
    for job in study.glob(".slurm-*.job"):
        if processes.alive(job.name.split(".")[-2]) is False and not _queued(job.name):
            shutil.rmtree(job, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".slurm-", suffix=f".{processes.owner()}.job", dir=study))
    lines = [workers.line(cell, before) for cell, before in wanted.items()]
    n_tasks = min(len(lines), LONGEST_ARRAY)
    tasks = ["".join(lines[task::n_tasks]) for task in range(n_tasks)]
    jobs = _submitted(folder, command, tasks, at_most or n_tasks)
    looks = 2  # the last one a moment after the queue is empty: a network file system may show cells late
    while (left := _left(wanted)) and looks:
        show(f"{len(wanted) - len(left)}/{len(wanted)} cells, Slurm")
        looks = 2 if _queued(folder.name) else looks - 1
        time.sleep(POLL)
    if left:
        more = f"; {len(left) - 1} more cells are missing" * (len(left) > 1)
        raise workers.Failed(f"{_reason(left[0], dict(zip(tasks, jobs, strict=True)))}{more}")
    subprocess.run(["scancel", "--name", folder.name], capture_output=True)  # of cells that another array has made
    shutil.rmtree(folder, ignore_errors=True)


def _submitted(folder: Path, command: list[str], tasks: list[str], at_most: int) -> list[submitit.Job]:
    """Submit an array with the folder's name, by which it is found again whatever happens to this process."""
    cpus = os.environ.get("SBATCH_CPUS_PER_TASK")  # unlike the other SBATCH_ variables, sbatch does not read it
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(
        job_name=folder.name,
        time=None,
        wckey=None,
        signal_delay_s=30,
        array_parallelism=at_most,
        additional_parameters={"requeue": True} | ({"cpus-per-task": cpus} if cpus else {}),
        srun_args=["--cpus-per-task", cpus] if cpus else [],
    )
    try:
        return executor.map_array(Task(command), tasks)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise workers.Failed(f"sbatch refused the job: {str(error).strip().splitlines()[-1]}") from error


def _left(wanted: workers.Wanted) -> list[Path]:
    return [cell for cell, before in wanted.items() if store.made(cell) == before]


def _queued(name: str) -> bool:
    """Whether a job of that name waits or runs, also where Slurm does not answer just now.

    submitit calls sacct, which knows no job where a cluster keeps no accounts.
    """
    done = subprocess.run(["squeue", "--noheader", "--name", name], capture_output=True, text=True)
    return done.returncode != 0 or bool(done.stdout.strip())


def _reason(cell: Path, jobs: dict[str, submitit.Job]) -> str:
    """Why a cell was not made: its worker's message, and the log file."""
    for lines, job in jobs.items():
        if workers.line(cell, store.made(cell)) in lines:
            log = job.paths.stderr
            if not log.exists():
                return f"cell {cell}: its Slurm job was cancelled before it began; run the same command again"
            answer = job.result() if job.paths.result_pickle.exists() else ""
            answer = answer if answer.startswith("cell ") else f"cell {cell}: {answer or 'its Slurm job was killed'}"
            return f"{answer}; stderr of the job: {log}"
    return f"cell {cell} was not made; run the same command again"
