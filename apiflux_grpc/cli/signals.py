"""Ctrl-C and SIGTERM: who hears them, from the first line of `main` to the last moment of the interpreter.

Rules:
- Until a command listens, a signal ends the process at once, quietly, with CUT_SHORT: nothing was begun.
- While a command listens, signals are counted and told to it. From the first one on the exit code is CUT_SHORT,
  whatever the command makes of it, so one more signal can't change how the process ends.
- When the exit code is decided, signals are ignored. Nothing less will do: an interpreter that shuts down takes
  Python's handlers away before its last objects are gone, and then only a signal that is ignored can't kill it.

`signal` is all that is imported before the first rule holds, for a signal before that can't be heard. All of this
belongs to the main thread.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

CUT_SHORT: Final = 4  # exit code
BOTH: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The signals of this process: there is one, SIGNALS.

    It does nothing until `arm`, which only `main` calls; so commands can run inside another program, such as a test.
    """

    def __init__(self) -> None:
        self.count = 0  # since a command listens
        self._is_armed = False

    def arm(self, *signums: signal.Signals) -> None:
        """From now on each of these ends the process, but for one that whoever started it wants ignored."""
        self._is_armed = True
        for signum in signums:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, _leave)

    @contextmanager
    def telling(self, listener: Callable[[], None]) -> Iterator[None]:
        """Count signals from now on, and for each of them call `listener` on the running event loop.

        After the block they are still counted, for the loop's own end takes a while.
        """
        if not self._is_armed:
            yield
            return
        import asyncio
        import socket

        loop = asyncio.get_running_loop()
        ours, pythons = socket.socketpair()
        with ours, pythons:
            pythons.setblocking(False)
            loop.add_reader(ours, _heard, ours, listener)
            # Python writes a byte for each signal. Without it a signal that comes just before the loop begins to wait
            # would be noticed when that wait is over.
            signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
            for signum in BOTH:  # an ignored one too: a shell ignores SIGINT for its background jobs
                signal.signal(signum, self._add)
            try:
                yield
            finally:
                signal.set_wakeup_fd(-1)
                loop.remove_reader(ours)

    def raise_interrupts(self) -> None:
        """From now on Ctrl-C is a KeyboardInterrupt, which asyncio.run makes a cancellation of."""
        if self._is_armed and signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def decided(self, code: int) -> int:
        """Ignore signals from now on, and return the exit code: `code`, or CUT_SHORT if one came before."""
        for signum in BOTH:
            signal.signal(signum, signal.SIG_IGN)
        return CUT_SHORT if self.count else code

    def _add(self, *_: object) -> None:
        self.count += 1


SIGNALS: Final = Signals()


def _leave(*_: object) -> NoReturn:
    os._exit(CUT_SHORT)  # an exception could be swallowed by whatever is being imported


def _heard(ours: socket.socket, listener: Callable[[], None]) -> None:
    for _ in ours.recv(64):
        listener()
