"""Logs: one line per event, for people (console) or for machines (json), on standard error.

Rule: a line is a message and fields; fields are what the code names explicitly, so no secret can slip in with an
object's repr. Of lines that others write no value is shown: see foreign_lines.py.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

from apiflux_grpc.adapters.foreign_lines import is_foreign, take_over, trace_of, words_of
from apiflux_grpc.core.events import (
    BudgetsFrozen,
    KeyAccepted,
    KeyBlocked,
    KeyPaused,
    KeyRejected,
    KeyResumed,
    LeasesGranted,
    LeasesRefused,
    LimitCut,
    LimitLower,
    NothingUsable,
    SecretChanged,
    SentLate,
    StoreBack,
    StoreSilent,
    UpstreamBack,
    UpstreamFailing,
    WaitUnread,
)
from apiflux_grpc.core.held import FROZEN, rejected
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apiflux_grpc.core.events import Event

_log = logging.getLogger("apiflux.engine")
_KNOWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogObserver:
    """The engine's Observer that logs."""

    def tell(self, pool: str, event: Event) -> None:
        match event:
            case KeyBlocked(key, wait, status, why, group, paths, again):
                extra = {"pool": pool, "key": key, **_seconds(wait), "status": status, "why": why}
                extra |= {"group": ",".join(group)} if group else {}
                extra |= {"paths": ",".join(paths)} if paths else {}
                level = logging.DEBUG if again else logging.WARNING  # one line is enough for a block, however long
                _log.log(level, "key blocked", extra=extra)
            case WaitUnread(key, what):
                _log.warning("can't read how long to wait", extra={"pool": pool, "key": key, "what": what})
            case KeyRejected(key, cool_down, status):
                extra = {"pool": pool, "key": key, **_seconds(cool_down), "status": status, "why": rejected(status)}
                _log.error("key rejected", extra=extra)
            case KeyAccepted(key):
                _log.warning("key accepted again", extra={"pool": pool, "key": key})
            case KeyPaused(key):
                _log.warning("key paused", extra={"pool": pool, "key": key})
            case KeyResumed(key):
                _log.warning("key resumed", extra={"pool": pool, "key": key})
            case SecretChanged(key):
                _log.warning("key has another secret", extra={"pool": pool, "key": key})
            case LimitCut(key, limit):
                _log.warning("limit cut: refused though it was kept", extra={"pool": pool, "key": key, "limit": limit})
            case LimitLower(key, why):
                _log.warning("limit lower than configured", extra={"pool": pool, "key": key, "why": why})
            case UpstreamFailing(cool_down, why):
                _log.error("upstream failing", extra={"pool": pool, **_seconds(cool_down), "why": why})
            case UpstreamBack():
                _log.warning("upstream back", extra={"pool": pool})
            case NothingUsable(calls, why):
                _log.error("no usable key", extra={"pool": pool, "calls": calls, "why": why})
            case StoreSilent(why):
                _log.error("budget store doesn't answer", extra={"pool": pool, "why": why})
            case StoreBack(after):
                _log.warning("budget store answers again", extra={"pool": pool, **_seconds(after)})
            case BudgetsFrozen(keys, count, wait):
                extra = {"pool": pool, **_keys(keys, count), **_seconds(wait), "why": FROZEN}
                _log.warning("budgets frozen", extra=extra)
            case LeasesRefused(keys, count, why):
                _log.error("leases refused", extra={"pool": pool, **_keys(keys, count), "why": why})
            case LeasesGranted(keys, count, after):
                extra = {"pool": pool, **_keys(keys, count), **_seconds(after)}
                _log.warning("leases granted again", extra=extra)
            case SentLate(key, calls):
                _log.warning("sent after its lease ended", extra={"pool": pool, "key": key, "calls": calls})

    def crashed(self, error: BaseException, error_id: str) -> None:
        _log.critical("the engine stopped", exc_info=error, extra={"error_id": error_id})


def _seconds(ns: int) -> dict[str, float]:
    return {"seconds": round(ns / SECOND, 3)}


def _keys(labels: Sequence[str], count: int) -> dict[str, str | int]:
    return {"keys": ",".join(labels), **({"count": count} if count > len(labels) else {})}


class _Line(logging.Formatter):
    def __init__(self, as_json: bool, fields: Mapping[str, object]) -> None:
        super().__init__()
        self._json = as_json
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        fields = {**self._fields, **{name: value for name, value in vars(record).items() if name not in _KNOWN}}
        foreign = is_foreign(record)
        event = words_of(record) if foreign else record.getMessage()
        trace = self._trace(record.exc_info, foreign) if record.exc_info else ""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        if self._json:
            line = {"at": at, "level": record.levelname.lower(), "logger": record.name, "event": event}
            return json.dumps({**line, **fields, **({"trace": trace} if trace else {})}, default=str)
        pairs = " ".join(f"{name}={_plain(value)}" for name, value in fields.items())
        return f"{at} {record.levelname:<7} {event} {pairs}".rstrip() + (f"\n{trace}" if trace else "")

    def _trace(self, raised: Any, foreign: bool) -> str:
        _, error, trace = raised
        return trace_of(error, trace) if foreign else self.formatException(raised)


class _Handler(logging.StreamHandler[TextIO]):
    """A line that can't be formatted or written is told as one that can; by itself logging prints a trace."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # as logging calls it
        with suppress(Exception):
            lost = {"lost": record.name, "trace": trace_of(sys.exc_info()[1], sys.exc_info()[2])}
            line = logging.makeLogRecord({"name": __name__, "levelname": "ERROR", "msg": "a log line is lost", **lost})
            line.name = "apiflux.log"
            self.stream.write(self.format(line) + self.terminator)
            self.flush()


def _plain(value: object) -> str:
    """As it is, unless it could be taken for more: for another line, or for other fields of this one."""
    text = str(value)
    return text if text.isprintable() and not (" " in text and "=" in text) else repr(text)


def configure(level: str, style: str, *, alone: bool = False, **fields: object) -> None:
    """Log to standard error. `level` as in logging, `style` "console" or "json"; each line has these fields.

    `alone`: nothing else writes there if the style is "json". Then it must come before grpc is imported.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Line(style == "json", fields))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if alone and style == "json":
        take_over()
