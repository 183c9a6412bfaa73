"""A Slurm of one node in a folder: munged, slurmctld and slurmd of our own, stopped by their process ids."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 120  # seconds until a daemon is given up
DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """
ClusterName=mechsub
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
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
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=3 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here, or nothing."""
    if missing := [name for name in (*DAEMONS, "sbatch") if not _which(name)]:
        return f"{missing[0]} is not installed; .ci/run installs slurm-wlm and munge"
    return "" if os.getuid() == 0 else "slurmd is started as root"


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons in the foreground of this process's children; yields the environment that finds them."""
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    ports = dict(zip(("controller", "node"), _free_ports(2), strict=True))
    (folder / "slurm.conf").write_text(CONF.format(host=platform.node().split(".")[0], folder=folder, **ports))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munged = ["--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--{file}-file={folder}/munged.{file}" for file in ("pid", "log", "seed")]
    daemons = []
    try:
        for name, arguments in (("munged", munged), ("slurmctld", ["-D", "-c"]), ("slurmd", ["-D"])):
            log = open(folder / f"{name}.out", "wb")
            daemons.append(subprocess.Popen([_which(name), *arguments], env=environment, stdout=log, stderr=log))
            if name == "munged":
                _until((folder / "munge.socket").exists)
        _until(lambda: _says(["sinfo", "-h", "-o", "%T"], environment) == "idle")
        yield environment
        _says(["scancel", "--full", "--user=root"], environment)
        # The sockets of steps, which end some seconds after their job has left the queue, or never without the daemons.
        _until(lambda: not _says(["squeue", "-h"], environment) and not [*(folder / "spool").glob("*_*.*[0-9]")])
    finally:
        for daemon in reversed(daemons):
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
