"""Debian's Slurm on one machine, without systemd: controller, four nodes, fake GPUs, bound to loopback.

    xargs -a tests/slurm/packages.txt apt-get install -y --no-install-recommends

The configuration must lie in /etc/slurm, since job steps drop SLURM_CONF; a file there that is not ours is left alone.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ETC = Path("/etc/slurm")
MARK = "# written by tests/slurm/cluster.py"
PORT = 16817
"""Of the controller."""
NODES = {"c1": 0, "c2": 0, "g1": 2, "g2": 2}
"""Nodes and their numbers of fake GPUs."""

SLURM_CONF = """\
{mark}
ClusterName=excise
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={root}/munge/socket
StateSaveLocation={root}/state
SlurmctldPidFile={root}/slurmctld.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdSpoolDir={root}/%n/spool
SlurmdPidFile={root}/%n/slurmd.pid
SlurmdLogFile={root}/%n/slurmd.log
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{accounting}
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MinJobAge=1800
MessageTimeout=5
SchedulerParameters=sched_interval=2,batch_sched_delay=0,defer_batch
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=cpu Nodes=c1,c2 Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=g1,g2 MaxTime=60 State=UP
PartitionName=urgent Nodes=c1,c2 MaxTime=60 State=UP PriorityTier=9
"""

SLURMDBD_CONF = """\
{mark}
DbdHost=localhost
DbdPort=16819
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthInfo=socket={root}/munge/socket
LogFile={root}/slurmdbd.log
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StoragePort=0
StorageUser=root
StorageLoc=slurm_acct_db
"""

MYSQL_SOCKET = Path("/run/mysqld/mysqld.sock")


def missing() -> str | None:
    """Why these tests cannot run on this machine, or None."""
    programs = ("slurmctld", "slurmd", "squeue", "munged", "slurmdbd", "mariadbd", "sacct")
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if os.geteuid() != 0:
        return "they start Slurm's daemons and must run as root, in a container say"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        return "they mount file systems, which this container forbids (CAP_SYS_ADMIN)"
    for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
        path = ETC / name
        if path.exists() and not path.read_text().startswith(MARK):
            return f"this machine has a Slurm of its own ({path})"
    return None


def until(condition, what: str, seconds: float = 60, every: float = 0.2):
    """Wait until ``condition()`` is true; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)
    return value


@dataclass
class Cluster:
    """A running Slurm."""

    root: Path
    accounting: bool = False
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self) -> None:
        """Write the configuration, start all daemons, wait until the nodes are idle."""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                raise RuntimeError(f"port {PORT} is taken: do these tests run on this machine already?")
        self.write()
        (self.root / "munge").mkdir(mode=0o755)
        key = self.root / "munge/key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o400)
        self.spawn(
            "munged", "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.root}/munge/socket",
            f"--pid-file={self.root}/munge/pid", f"--seed-file={self.root}/munge/seed",
        )  # fmt: skip
        until((self.root / "munge/socket").exists, "munged")
        if self.accounting:
            self.start_accounting()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        until(lambda: self.idle() == len(NODES), "all nodes to be idle")

    def write(self) -> None:
        """Write slurm.conf, gres.conf and, with accounting, slurmdbd.conf."""
        host = socket.gethostname()
        lines = []
        devices = self.root / "devices"
        devices.mkdir()
        gres = [MARK]
        for number, (node, gpus) in enumerate(NODES.items()):
            (self.root / node / "spool").mkdir(parents=True)
            line = (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={17001 + number} CPUs=4 RealMemory=16000"
            )
            lines.append(line + (f" Gres=gpu:a100:{gpus}" if gpus else ""))
            for gpu in range(gpus):
                os.mknod(devices / f"{node}-{gpu}", 0o20666, os.makedev(1, 3))
            if gpus:
                gres.append(f"NodeName={node} Name=gpu Type=a100 File={devices}/{node}-[0-{gpus - 1}]")
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            accounting = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n"
                f"AccountingStoragePort=16819\nAccountingStoragePass={self.root}/munge/socket\nAccountingStoreFlags=job_comment\n"
                "AccountingStorageEnforce=associations,limits,qos"
            )
        ETC.mkdir(exist_ok=True)
        (self.root / "state").mkdir()
        text = SLURM_CONF.format(
            mark=MARK, port=PORT, host=host, root=self.root, nodes="\n".join(lines), accounting=accounting
        )
        (ETC / "slurm.conf").write_text(text)
        (ETC / "gres.conf").write_text("\n".join(gres) + "\n")
        if self.accounting:
            (ETC / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(mark=MARK, root=self.root))
            (ETC / "slurmdbd.conf").chmod(0o600)

    def spawn(self, name: str, *command: str) -> None:
        """Start a daemon in the foreground, its output in a file."""
        with open(self.root / f"{name}.out", "ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def start_controller(self) -> None:
        """Start slurmctld and wait for its answer."""
        self.spawn("slurmctld", "slurmctld", "-D")
        until(lambda: self.ask("scontrol", "ping").returncode == 0, "slurmctld")

    def start_node(self, node: str) -> None:
        """Start one slurmd."""
        self.spawn(
            node, sys.executable, str(Path(__file__).parent / "reaper.py"), shutil.which("slurmd"), "-D", "-N", node
        )

    def start_accounting(self) -> None:
        """Start MariaDB on a socket alone, and slurmdbd."""
        data = self.root / "mysql"
        subprocess.run(
            ["mariadb-install-db", f"--datadir={data}", "--user=root", "--skip-test-db", "--auth-root-authentication-method=socket"],
            check=True, capture_output=True,
        )  # fmt: skip
        MYSQL_SOCKET.parent.mkdir(exist_ok=True)
        self.spawn(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            "--user=root",
            "--skip-networking",
            f"--socket={MYSQL_SOCKET}",
        )
        until(lambda: self.ask("mariadb-admin", f"--socket={MYSQL_SOCKET}", "ping").returncode == 0, "MariaDB")
        self.start_slurmdbd()
        until(lambda: self.ask("sacctmgr", "-i", "add", "cluster", "excise").returncode in (0, 1), "slurmdbd", every=1)
        self.ask("sacctmgr", "-i", "add", "account", "ours")
        self.ask("sacctmgr", "-i", "add", "user", "root", "account=ours")

    def start_slurmdbd(self) -> None:
        """Start slurmdbd."""
        self.spawn("slurmdbd", "slurmdbd", "-D")
        until(lambda: self.ask("sacctmgr", "-n", "show", "cluster").returncode == 0, "slurmdbd", seconds=15)

    def stop_daemon(self, name: str, number: int = signal.SIGTERM) -> None:
        """Stop one daemon and wait for its end."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def lose_node(self, node: str, *, daemon_only: bool = False) -> None:
        """Kill a node's daemon, and all that it started, as when its power goes; or let that go on, unseen."""
        reaper = psutil.Process(self.daemons[node].pid)
        family = reaper.children(recursive=True)
        if daemon_only:
            family = [process for process in family if process.name() == "slurmd"]
        for process in [reaper, *family] if not daemon_only else family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons.pop(node).wait()

    def stop(self) -> None:
        """Cancel all jobs, stop every daemon in reverse order, remove the configuration."""
        if not self.daemons:
            return  # nothing was started: the configuration may be that of another run
        if "slurmctld" in self.daemons:
            self.ask("scancel", "--user=root")
            with contextlib.suppress(TimeoutError):
                until(lambda: not self.jobs(), "jobs to end", seconds=20)
        for name in reversed(list(self.daemons)):
            self.stop_daemon(name)
        for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
            (ETC / name).unlink(missing_ok=True)

    def ask(self, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands."""
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)

    def idle(self) -> int:
        """Number of nodes that are idle."""
        return sum(line == "idle" for line in self.ask("sinfo", "-hN", "-p", "cpu,gpu", "-o", "%T").stdout.split())

    def jobs(self, states: str = "PENDING,RUNNING,COMPLETING") -> list[dict[str, str]]:
        """Jobs in these states, or "all"."""
        keys = {"id": "%i", "state": "%T", "node": "%N", "memory": "%m", "reason": "%r", "comment": "%k", "name": "%j"}
        keys |= {"partition": "%P", "limit": "%l", "folder": "%Z"}
        out = self.ask("squeue", "-h", "--states", states, "-o", "|".join(keys.values())).stdout
        return [dict(zip(keys, line.split("|"), strict=True)) for line in out.splitlines()]
