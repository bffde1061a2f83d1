"""One child process with its log, start, end, and death with ours; free ports; waiting on a predicate."""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from ops.devnet.errors import DeadlineExceeded, DevnetError, StartFailed

_LOG_TAIL_BYTES = 6_000
_POLL_SECONDS = 0.02
_DESCENDANTS_GONE_SECONDS = 5
# Below the range from which Linux takes the ports of outgoing connections (32768 and up), which would
# collide.
_PORTS = range(16_000, 32_000)
_reserved_ports: dict[int, socket.socket] = {}
_reserved_lock = threading.Lock()


def wait_until(
    predicate: Callable[[], bool],
    *,
    timeout: float,
    what: str,
    stop_waiting: Callable[[], str | None] | None = None,
) -> None:
    """Waits until `predicate()` is true.

    Args:
        predicate: asked every 20 ms; what it raises is passed on.
        timeout: in seconds.
        what: what is waited for, for the error message.
        stop_waiting: says why waiting has become pointless, or None.

    Raises:
        DeadlineExceeded: it did not become true in time.
        DevnetError: `stop_waiting` gave a reason.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        reason = stop_waiting() if stop_waiting is not None else None
        if reason is not None:
            raise DevnetError(f"{what} will not come: {reason}")
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(what, timeout)
        time.sleep(_POLL_SECONDS)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that ended and waits for its parent to notice (a zombie) does not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """Returns a TCP port that is free on 127.0.0.1 and that no other process of ours was given.

    The claim is an abstract Unix socket named after the port, held until this process ends: the kernel frees
    it then, so two test runs side by side never choose the same port between looking and listening.

    Raises:
        DevnetError: none was found.
    """
    for port in random.sample(_PORTS, 200):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0strongroom-port-{port}")
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        with _reserved_lock:
            _reserved_ports[port] = claim
        return port
    raise DevnetError("no free port on 127.0.0.1 in 200 tries")


def release_port(port: int) -> None:
    """Gives up the claim of `free_port` on a port; one that is not claimed is left alone."""
    with _reserved_lock:
        claim = _reserved_ports.pop(port, None)
    if claim is not None:
        claim.close()


_Spawned = Future[subprocess.Popen[bytes]]
_Orders = queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], _Spawned]]


class _Spawner:
    """Starts children from one thread that lives as long as this process.

    Linux sends the parent-death signal when the *thread* that forked ends, not when the process does. Were
    children started from a short-lived thread, they would die with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._work: _Orders = queue.SimpleQueue()

    def spawn(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._pid != os.getpid():  # first use, or a fork, which inherits the object but not the thread
                self._work = queue.SimpleQueue()
                self._pid = os.getpid()
                threading.Thread(target=self._serve, args=(self._work,), name="spawner", daemon=True).start()
        spawned: _Spawned = Future()
        self._work.put((start, spawned))
        return spawned.result()

    @staticmethod
    def _serve(work: _Orders) -> None:
        while True:
            start, spawned = work.get()
            try:
                spawned.set_result(start())
            except OSError as error:
                spawned.set_exception(error)


_spawner = _Spawner()


class ManagedProcess:
    """A child with a log file. It is killed when this process ends, however that ends.

    It runs in a session of its own: Ctrl-C in our terminal does not reach it, so that we decide in which
    order parts stop; `kill` and the end of `stop` take its own children (prefork workers) along. When *we*
    are killed, the kernel kills the child itself only: a program whose children outlive it must notice that
    by itself, as PostgreSQL's do.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Describes the process; `start` starts it.

        Args:
            name: for messages.
            argv: the program, found on PATH unless a path, and its arguments.
            log_path: standard output and error are appended to it.
            env: the whole environment; None passes ours on.
            cwd: working directory; None is ours.
            user: name of the user to run as; needs root. None is ourselves.
            stop_signal: what asks the program to end in good order.
        """
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log_path = log_path
        self.env = env
        self.cwd = cwd
        self.user = user
        self.stop_signal = stop_signal
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"ManagedProcess({self.name!r}, pid={self.pid})"

    @property
    def pid(self) -> int | None:
        """Process id of the running or last child; None before the first start."""
        return None if self._child is None else self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child has been started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code of the ended child (negative: the signal that ended it), or None."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """Starts the child and returns at once; see `wait_ready`.

        Raises:
            DevnetError: it is running already.
            StartFailed: the program cannot be executed.
        """
        if self.running:
            raise DevnetError(f"{self.name} is running already (pid {self.pid})")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        # setpriv sets the death signal after it has changed the user (a change of user clears it), then
        # becomes the program: same pid, no preexec_fn, which is unsafe beside threads.
        guard = ["setpriv", "--pdeathsig", "KILL"]
        if self.user is not None:
            guard += ["--reuid", self.user, "--regid", str(pwd.getpwnam(self.user).pw_gid), "--clear-groups"]
        with self.log_path.open("ab") as log:
            try:
                self._child = _spawner.spawn(
                    lambda: subprocess.Popen(
                        [*guard, "--", *self.argv],
                        env=None if self.env is None else dict(self.env),
                        cwd=self.cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            except OSError as error:
                raise StartFailed(self.name, str(error), self.log_tail()) from error

    def wait_ready(self, predicate: Callable[[], bool], *, timeout: float = 30) -> None:
        """Waits until the child is ready, as `predicate` finds it from outside. Kills it when it does not
        get there.

        Raises:
            StartFailed: it ended first, or the time was up; carries the end of its log.
        """
        try:
            wait_until(
                predicate, timeout=timeout, what=f"{self.name} to be ready", stop_waiting=self._why_ended
            )
        except DevnetError as error:
            self.kill()
            raise StartFailed(self.name, str(error), self.log_tail()) from error
        except BaseException:
            self.kill()
            raise

    def stop(self, *, timeout: float = 30) -> int | None:
        """Asks the child to end and waits; kills it when it does not. Stopping what does not run changes
        nothing.

        Returns:
            Its exit code; -9 where it had to be killed; None when it never ran.
        """
        if self._child is None:
            return None
        if self.running:
            self._child.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout)
        self._kill_session()
        return self._child.wait()

    def kill(self) -> None:
        """Kills the child and its own children (SIGKILL), waits until it is gone. Again changes nothing."""
        if self._child is not None:
            self._kill_session()
            self._child.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the child itself, such as SIGSTOP, SIGCONT or SIGHUP.

        Raises:
            DevnetError: it does not run.
        """
        if self._child is None or not self.running:
            raise DevnetError(f"{self.name} does not run")
        self._child.send_signal(number)

    def wait(self, *, timeout: float) -> int:
        """Waits for the child to end by itself and returns its exit code.

        Raises:
            DeadlineExceeded: it still runs after `timeout` seconds.
            DevnetError: it was never started.
        """
        if self._child is None:
            raise DevnetError(f"{self.name} was never started")
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(f"{self.name} to end", timeout) from error

    def log_tail(self) -> str:
        """Returns the last few thousand characters of the log."""
        if not self.log_path.exists():
            return "(no log)"
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def __enter__(self) -> Self:
        """Starts the child."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the child."""
        self.stop()

    def _why_ended(self) -> str | None:
        return None if self.running else f"it ended with {self.exit_code}"

    def _kill_session(self) -> None:
        """Kills the child, its process group, and descendants that left the group, as PostgreSQL's do."""
        if self._child is None:
            return
        descendants: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(self._child.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(
            lambda: not any(map(is_alive, descendants)),
            timeout=_DESCENDANTS_GONE_SECONDS,
            what=f"the children of {self.name} to be gone",
        )
