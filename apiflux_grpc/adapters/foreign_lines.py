"""Lines that others write: gRPC's C core and its Cython layer, asyncio, Python itself.

Anyone who can connect can make them write some, with what was sent in it: a header that is no UTF-8 is logged with its
value. And some go around logging, straight to standard error, so they aren't JSON though that was asked for.

Rule: of a line that isn't ours the words of its author are kept, and where it happened, but no value: arguments, the
texts of exceptions, and all but the first line are left out. In a process whose log is JSON, all that Python writes to
standard error goes through logging, and gRPC's C core writes nothing.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

_log = logging.getLogger("apiflux.stderr")
_FRAME: Final = re.compile(r'  File "[^"]*", line \d+(, in [\w.<>]+)?')
_KIND: Final = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Warning)\b")
_KNOWN: Final = ("Traceback (most recent call last):", "Exception ignored in", "Fatal Python error")
WITHHELD: Final = "a line of a library, left out since it may hold what a caller sent"


def is_foreign(record: logging.LogRecord) -> bool:
    """Whether somebody else wrote it."""
    return record.name.partition(".")[0] != "apiflux"


def words_of(record: logging.LogRecord) -> str:
    """What a foreign record says, without values: what was put into the text before it came here is in later lines."""
    message = record.msg
    return message.partition("\n")[0] if isinstance(message, str) else type(message).__name__


def trace_of(error: BaseException | None, trace: TracebackType | None) -> str:
    """Where it happened, and the kind of the exception without its text."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False)  # a source line has values
    places = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n' for frame in frames]
    return "".join([*places, type(error).__name__])


def shown(line: str) -> str:
    """What may be shown of a line on standard error."""
    if known := next((known for known in _KNOWN if line.startswith(known)), None):
        return known
    found = _FRAME.match(line) or _KIND.match(line)
    return found.group().strip() if found else WITHHELD


class _Lines(io.TextIOBase):
    """Stands for standard error: each line becomes one of the log."""

    def __init__(self) -> None:
        self._begun = ""

    def writable(self) -> bool:
        return True

    def say(self, text: str) -> None:
        """A line of ours, as it is."""
        _log.error("%s", text)

    def write(self, text: str, /) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                _log.error(shown(line))
        return len(text)


def take_over() -> None:
    """Send all that Python writes to standard error from now on through logging, and silence gRPC's C core.

    Before grpc is imported, which reads then what it is to say.
    """
    os.environ["GRPC_VERBOSITY"] = "NONE"
    os.environ.pop("GRPC_TRACE", None)
    logging.captureWarnings(True)
    sys.stderr = _Lines()
    sys.excepthook = _uncaught
    sys.unraisablehook = _ignored
    threading.excepthook = _ended


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("unhandled exception", exc_info=(kind, error, trace))


def _ignored(what: sys.UnraisableHookArgs) -> None:
    _log.error("exception ignored", extra={"trace": trace_of(what.exc_value, what.exc_traceback)})


def _ended(what: threading.ExceptHookArgs) -> None:
    thread = what.thread.name if what.thread is not None else ""
    _log.error("a thread ended", extra={"trace": trace_of(what.exc_value, what.exc_traceback), "which": thread})
