"""A Slurm in a folder: munged, slurmctld and a slurmd for every node, of our own, stopped by their process ids.

All nodes are this machine under several names, each with its own port and its own daemon (`slurmd -N`).
"""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PATIENCE = 120  # seconds until a daemon is given up
DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """
ClusterName=mechsub
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobRequeue=1
KillWait=2
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmdTimeout=10
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here, or nothing."""
    if missing := [name for name in (*DAEMONS, "sbatch") if not _which(name)]:
        return f"{missing[0]} is not installed; .ci/run installs slurm-wlm and munge"
    return "" if os.getuid() == 0 else "slurmd is started as root"


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Cluster(NamedTuple):
    environment: dict[str, str]  # that finds it
    nodes: dict[str, subprocess.Popen]  # the daemon of each


@contextlib.contextmanager
def running(folder: Path, n_nodes: int = 1, cpus: int = 3) -> Iterator[Cluster]:
    """Start the daemons in the foreground of this process's children."""
    names = [f"node{i}" for i in range(n_nodes)]
    folder.chmod(0o755)
    for name in ("state", *(f"spool.{name}" for name in names)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = platform.node().split(".")[0]
    controller, *ports = _free_ports(1 + n_nodes)
    own = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN"
    nodes = "\n".join(f"NodeName={name} Port={port} {own}" for name, port in zip(names, ports, strict=True))
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder, controller=controller, nodes=nodes))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munged = ["--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--{file}-file={folder}/munged.{file}" for file in ("pid", "log", "seed")]
    daemons: dict[str, subprocess.Popen] = {}

    def start(name: str, *command: str) -> None:
        with open(folder / f"{name}.out", "wb") as log:
            words = [_which(command[0]), *command[1:]]
            daemons[name] = subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    try:
        start("munged", "munged", *munged)
        _until((folder / "munge.socket").exists)
        start("slurmctld", "slurmctld", "-D", "-c")
        for name in names:
            start(name, "slurmd", "-D", "-N", name)
        _until(lambda: _says(["sinfo", "-h", "-N", "-o", "%T"], environment).split() == ["idle"] * n_nodes)
        yield Cluster(environment, {name: daemons[name] for name in names})
        _says(["scancel", "--full", "--user=root"], environment)
        # The sockets of steps, which end some seconds after their job has left the queue, or never without the daemons.
        alive = [name for name in names if daemons[name].poll() is None]
        sockets = [f"spool.{name}/*_*.*[0-9]" for name in alive]
        _until(lambda: not _says(["squeue", "-h"], environment) and not any([*folder.glob(some)] for some in sockets))
    finally:
        for daemon in reversed(daemons.values()):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(5)
            daemon.kill()
            daemon.wait()


def _says(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


def _until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain"
        time.sleep(0.1)


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
