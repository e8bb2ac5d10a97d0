"""The supervisor: processes, sockets and signals, as `supervision.py` decides.

Rule: one loop that waits for whatever comes first, hears all that has come, and then does what is decided. Each worker
leads a session of its own: Ctrl-C at a terminal is for the supervisor, which passes it on.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.units import SECOND, format_address
from apiflux_grpc.workers import words
from apiflux_grpc.workers.folder import shared_folder
from apiflux_grpc.workers.port import Port
from apiflux_grpc.workers.supervision import Announce, Bounds, Kill, Start, Supervision, Terminate, how_it_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apiflux_grpc.settings import Settings
    from apiflux_grpc.settings.types import StateSettings
    from apiflux_grpc.workers.supervision import Action

_log = logging.getLogger("apiflux.supervisor")


def _searches_here() -> bool:
    """Whether we look for modules in the current folder. With `-m` alone the workers would, though we don't."""
    try:
        return os.getcwd() in sys.path
    except FileNotFoundError:  # it is gone
        return False


ENDING: Final = (signal.SIGTERM, signal.SIGINT)
COMMAND: Final = (sys.executable, *(() if _searches_here() else ("-P",)), "-m", "apiflux_grpc.workers")


# Beyond the grace, for what a server may take after it: see Server.stop.
AFTER_GRACE: Final = 15 * SECOND


class CantServe(Exception):
    """Why, as people read it; `code` is the exit code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def supervise(
    settings: Settings,
    log_level: str,
    log_format: str,
    announce: Callable[[str], object],
    bounds: Bounds | None = None,
) -> int:
    """Serve with `settings.workers` workers until SIGTERM or SIGINT, and return the exit code. `announce` is told
    HOST:PORT once all serve. Raises CantServe."""
    if sys.platform != "linux":  # others have SO_REUSEPORT too, but one socket gets all connections
        raise CantServe(2, "workers need Linux, which shares connections out; serve without --workers")
    bounds = bounds or Bounds(drain=settings.grace + AFTER_GRACE)
    with ExitStack() as held:
        heard = held.enter_context(_signals())
        port, ops = _held(held, settings.host, settings.port), settings.ops
        if ops is not None:
            ops = replace(ops, port=_held(held, ops.host, ops.port))
        for warning in settings.warnings:
            _log.warning(warning)
        settings = replace(settings, port=port, ops=ops, state=_shared(settings.state, held))

        def task(number: int) -> words.Task:
            return words.Task(number, settings.workers, settings, log_level, log_format)

        supervisor = _Supervisor(
            Supervision(settings.workers, bounds), task, lambda: announce(format_address(settings.host, port))
        )
        with supervisor:
            return supervisor.run(heard)


def _held(held: ExitStack, host: str, port: int) -> int:
    """The port of all workers, held until the end."""
    try:
        return held.enter_context(Port(host, port)).number
    except OSError as error:
        address = format_address(host, port)
        raise CantServe(2, f"can't listen on {address}; is another program using it?") from error


def _shared(state: StateSettings, held: ExitStack) -> StateSettings:
    """Where the workers' budgets are: a file that all have, or each would take every limit for its own. With Redis,
    which shares them with other hosts too, the directory is for who is paused, if there can be one."""
    directory, is_temporary = state.directory, state.directory is None
    if directory is None:
        try:
            directory = held.enter_context(shared_folder())
        except OSError as error:
            if state.redis is not None:
                return state
            why = f"workers share budgets in a file, and can't make one ({error}); set server.state_dir"
            raise CantServe(2, why) from error
    asked_at = state.asked_at or "server.state_dir"
    return replace(state, directory=directory, asked_at=asked_at, is_temporary=is_temporary)


class _Process:
    """A worker's process, and our end of the socket."""

    def __init__(self, task: words.Task) -> None:
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as failed:
            failed.callback(ours.close)
            # Standard output has one line, and that is ours.
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(
                [*COMMAND, str(task.number)], stdin=theirs.fileno(), stdout=2, start_new_session=True
            )
            failed.pop_all()
        self.connection = ours
        self._unread = b""
        with suppress(OSError):  # gone already
            words.give(ours, task)
        ours.setblocking(False)

    def lines(self) -> Iterator[str]:
        """What it has said since."""
        with suppress(OSError):
            while some := self.connection.recv(1 << 16):
                self._unread += some
        *lines, self._unread = self._unread.split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


class _Supervisor:
    def __init__(
        self, supervision: Supervision, task: Callable[[int], words.Task], announce: Callable[[], object]
    ) -> None:
        self._supervision = supervision
        self._task = task
        self._announce = announce
        self._processes: dict[int, _Process] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        """However this ended: no worker is left."""
        for process in self._processes.values():
            process.popen.kill()
            process.popen.wait()
            process.connection.close()
        self._selector.close()

    def run(self, heard: socket.socket) -> int:
        """Until all is over. `heard` tells of signals."""
        supervision = self._supervision
        self._selector.register(heard, selectors.EVENT_READ)
        while True:
            supervision.at(time.monotonic_ns())
            self._hear(heard)
            for action in supervision.decide():
                self._do(action)
            if supervision.exit_code is not None:
                break
            assert supervision.wake_at is not None
            self._selector.select(max(0, supervision.wake_at - time.monotonic_ns()) / SECOND)
        if supervision.why:
            raise CantServe(supervision.exit_code, supervision.why)
        return supervision.exit_code

    def _hear(self, heard: socket.socket) -> None:
        """All that has come: first words, for a worker that has ended may have said why."""
        supervision = self._supervision
        ended = {number: code for number, one in self._processes.items() if (code := one.popen.poll()) is not None}
        for number, process in self._processes.items():
            for line in process.lines():
                match words.read(line):
                    case words.SERVES:
                        supervision.serves(number)
                    case words.BEAT:
                        supervision.beat(number)
                    case words.Fault() as fault:
                        supervision.failed(number, fault)
        for number, code in ended.items():
            level = logging.INFO if supervision.is_stopping else logging.WARNING
            _log.log(level, "worker ended", extra={"worker": number, "how": how_it_ended(code)})
            process = self._processes.pop(number)
            self._selector.unregister(process.connection)
            process.connection.close()
            supervision.ended(number, code)
        with suppress(BlockingIOError):
            for signum in heard.recv(1 << 10):
                if signum in ENDING:
                    supervision.signalled()

    def _start(self, number: int) -> None:
        try:
            process = _Process(self._task(number))
        except OSError as error:  # no more processes or files for us; maybe later
            self._supervision.failed(number, words.Fault(1, f"can't start a worker: {error}"))
            self._supervision.ended(number, 1)
            return
        self._processes[number] = process
        self._selector.register(process.connection, selectors.EVENT_READ)
        _log.info("worker started", extra={"worker": number, "pid": process.popen.pid})

    def _do(self, action: Action) -> None:
        match action:
            case Start(number):
                self._start(number)
            case Terminate(number):
                if process := self._processes.get(number):  # it may not have come to be
                    process.popen.terminate()
            case Kill(number, why):
                _log.error("worker killed", extra={"worker": number, "why": f"it {why}"})
                self._processes[number].popen.kill()
            case Announce():
                self._announce()


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket with a byte for each signal that came."""
    ours, pythons = socket.socketpair()
    with ours, pythons, ExitStack() as after:  # nobody writes to what is closed
        for one in (ours, pythons):
            one.setblocking(False)
        after.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False))
        for signum in (*ENDING, signal.SIGCHLD):  # Python writes the byte only for a signal that has a handler
            after.callback(signal.signal, signum, signal.signal(signum, lambda *_: None))
        yield ours
