"""Interpreters that have imported torch already: a process of its own for a test, without four seconds of imports.

``warm_python()`` is a command in place of ``sys.executable``, for ``-m module`` and ``-c code``. What it starts asks a
server, which was started once and has imported what every session imports, and none of the package. The server forks:
the child has the arguments, folder, environment and files of whoever asked, gets its signals and dies with it. What
is about imports starts a true interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

CLIENT = """\
import json, os, signal, socket, sys
asked = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
    code = int(server.recv(16) or b"70")
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
BEFORE = ("torch", "torch._dynamo", "torch.utils.data", "numpy", "PIL.Image", "yaml", "pydantic", "pytest")


@cache
def warm_python() -> tuple[str, ...]:
    """The command; where a process cannot be forked, or waited for, the interpreter itself."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return (sys.executable,)
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    client, address = folder / "client.py", folder / "socket"
    client.write_text(CLIENT, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)],
        env={**kept, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.communicate)  # which closes its stdin, and so it ends
    while not address.exists():
        assert server.poll() is None
        time.sleep(0.01)
    return sys.executable, "-SI", str(client), str(address)


def serve(address: str) -> None:
    """Forks for everybody who asks, until stdin is closed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(64)
    Path(f"{address}.new").rename(address)
    looked = selectors.DefaultSelector()
    looked.register(sys.stdin, selectors.EVENT_READ, None)
    looked.register(listener, selectors.EVENT_READ, None)
    children: dict[int, tuple[socket.socket, int]] = {}  # process -> who waits for it, and its pidfd
    while True:
        for key, _ in looked.select():
            if key.fileobj is sys.stdin:
                for pid in children:
                    os.killpg(pid, signal.SIGKILL)
                return
            if key.fileobj is listener:
                asked, _ = listener.accept()
                wanted, files = _read(asked)
                pid = os.fork()
                if pid == 0:
                    for other in (listener, asked, *(child for child, _ in children.values())):
                        other.close()
                    os.setsid()
                    _become(wanted, files)
                    return
                for file in files:
                    os.close(file)
                children[pid] = asked, os.pidfd_open(pid)
                looked.register(children[pid][1], selectors.EVENT_READ, pid)
                looked.register(asked, selectors.EVENT_READ, pid)
            elif key.data in children:
                if key.fileobj is children[key.data][0]:
                    # A signal, or nobody waits any more: what was not to be caught.
                    os.kill(key.data, *(children[key.data][0].recv(1) or [signal.SIGKILL]))
                    continue
                _, status = os.waitpid(key.data, 0)
                _answer(looked, children.pop(key.data), os.waitstatus_to_exitcode(status))


def _answer(looked: selectors.BaseSelector, child: tuple[socket.socket, int], code: int) -> None:
    asked, pidfd = child
    looked.unregister(asked)
    looked.unregister(pidfd)
    os.close(pidfd)
    with contextlib.suppress(OSError):
        asked.sendall(str(code).encode())
    asked.close()


def _read(asked: socket.socket) -> tuple[bytes, list[int]]:
    """What somebody wants, and the three files that are to be its."""
    size, files, _, _ = socket.recv_fds(asked, 8, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += asked.recv(1 << 16)
    return text, files


def _become(wanted: bytes, files: list[int]) -> None:
    """Takes over what the client had, and runs what it was asked for."""
    arguments, folder, environment = json.loads(wanted)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it was ignored
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = ["", *_paths(environment.get("PYTHONPATH", "")), *sys.path[1:]]
    kind, what, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        sys.path[0] = folder
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c"
        exec(compile(what, "<string>", "exec", dont_inherit=True), {"__name__": "__main__"})


def _paths(text: str) -> Iterable[str]:
    return filter(None, text.split(os.pathsep))


if __name__ == "__main__":
    for name in BEFORE:
        __import__(name)
    serve(sys.argv[1])
