"""Stages forked from a process that has imported torch and transformers already.

Importing them takes five seconds of processor time, and a run on one machine starts a hundred stages that need
them. So the workflow names a folder in ``EXCISE_WARM`` (``workflow/rules/jobs.smk``), and a stage that reads a model
hands its command line, its working directory and its standard streams to a process that listens there, which forks.
The first such stage starts that process.

One process serves jobs with exactly one environment: numerical libraries read theirs (number of threads, offline or
not) while they are imported. Nothing of this package is imported before the fork, so a stage runs the code that is on
disk, and writes the same bytes as without.
"""

import atexit
import contextlib
import fcntl
import gc
import hashlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

VARIABLE = "EXCISE_WARM"
"""``PROCESS:FOLDER``: the process that the listening one does not outlive, and a private folder for its socket."""

PRELOADED = (
    "torch",
    "transformers.generation",
    "transformers.modeling_layers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)
"""What any stage that reads a model imports, and no operation of which is run before the fork."""

KILLED = 137
"""Exit status of a stage that ended without giving one: it was killed, most likely for its memory."""


def run(argv: Sequence[str]) -> int | None:
    """Run a stage in a fork of the listening process.

    Args:
        argv: the command line after ``excise``.

    Returns:
        The exit status; None where no process is wanted or none can be had: the stage is run here then.
    """
    where = os.environ.get(VARIABLE)
    if where is None:
        return None
    process, _, folder = where.partition(":")
    try:
        connection = _connect(int(process), Path(folder))
    except OSError:
        return None
    with connection, connection.makefile("rb") as answer:
        request = json.dumps({"argv": [*argv], "folder": str(Path.cwd())}).encode()
        try:
            socket.send_fds(connection, [len(request).to_bytes(8)], [0, 1, 2])
            connection.sendall(request)
            if answer.read(1) != b"+":  # it ended before it began: its imports failed, which this process will say
                return None
        except ConnectionError:
            return None
        status = answer.read(1)
    if not status:
        print("excise: the stage was killed, most likely for its memory", file=sys.stderr)
    return status[0] if status else KILLED


def _connect(process: int, folder: Path) -> socket.socket:
    """A connection to the process with our environment, which is started where there is none."""
    environment = json.dumps([sys.executable, sys.path[1:], sorted(os.environ.items())])
    path = folder / hashlib.sha256(environment.encode()).hexdigest()[:16]
    connection = socket.socket(socket.AF_UNIX)
    try:
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                connection.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(path))
                    listener.listen(128)
                    subprocess.Popen(
                        # As a file: as a module it would import the package. -P: whose modules are no top-level ones.
                        [sys.executable, "-P", __file__, str(process), str(listener.fileno())],
                        pass_fds=[listener.fileno()],
                        start_new_session=True,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                connection.connect(str(path))  # waits in line until the imports are done
    except BaseException:
        connection.close()
        raise
    return connection


def listen(process: int, listener: socket.socket) -> None:
    """Import, then fork a stage per connection, until ``process`` is gone."""
    folder = os.environ.pop(VARIABLE).partition(":")[2]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks; each tells its client how it ended
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would write to, and so copy, every page of what is shared
    while _lives(process):
        if select.select([listener], [], [], 1)[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _stage(connection)
    shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _stage(connection: socket.socket) -> NoReturn:
    """In the fork: become the stage that the client asked for."""
    status = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, streams, _, _ = socket.recv_fds(connection, 8, 3)
        with connection.makefile("rb") as file:
            request = json.loads(file.read(int.from_bytes(size)))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _open_streams()
        connection.sendall(b"+")
        threading.Thread(target=_end_with_client, args=[connection], daemon=True).start()
        os.chdir(request["folder"])
        sys.argv = ["excise", *request["argv"]]
        status = importlib.import_module("excise.cli").main(request["argv"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # os._exit runs none; temporary folders of libraries go with them
            sys.stdout.flush()
            sys.stderr.flush()
            connection.sendall(bytes([status]))
        os._exit(status)


def _open_streams() -> None:
    """Python's streams anew: those of the listening process know their files, and a pipe cannot be sought in."""
    encodings = [stream.encoding for stream in (sys.stdin, sys.stdout, sys.stderr)]
    sys.stdin = os.fdopen(0, encoding=encodings[0], closefd=False)
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, encodings[1], closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encodings[2], "backslashreplace", closefd=False)


def _end_with_client(connection: socket.socket) -> None:
    """Whoever kills the command kills the stage."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(KILLED)


if __name__ == "__main__":
    listen(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
