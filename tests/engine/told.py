"""An observer that writes down what it is told, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.events import Event


class Told:
    """`events` in words, times in seconds; `crashes` as they are."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.crashes: list[BaseException] = []

    def tell(self, pool: str, event: Event) -> None:
        self.events.append(in_words(event))

    def crashed(self, error: BaseException, error_id: str) -> None:
        self.crashes.append(error)


def in_words(event: Event) -> str:
    match event:
        case KeyBlocked(key, wait):
            return f"{key} blocked {wait / SECOND:g}"
        case WaitUnread(key, what):
            return f"{key} unread {what}"
        case KeyRejected(key, cool_down, _):
            return f"{key} rejected {cool_down / SECOND:g}"
        case KeyAccepted(key):
            return f"{key} accepted"
        case KeyPaused(key):
            return f"{key} paused"
        case KeyResumed(key):
            return f"{key} resumed"
        case SecretChanged(key):
            return f"{key} has another secret"
        case LimitCut(key, limit):
            return f"{key} cut {limit}"
        case LimitLower(key, why):
            return f"{key} lower: {why}"
        case UpstreamFailing(cool_down, why):
            return f"failing {cool_down / SECOND:g}: {why}"
        case UpstreamBack():
            return "back"
        case NothingUsable(calls, why):
            return f"{calls} given up: {why}"
        case StoreSilent(why):
            return f"store silent: {why}"
        case StoreBack(after):
            return f"store back after {after / SECOND:g}"
        case BudgetsFrozen(keys, count, wait):
            return f"{count} frozen {wait / SECOND:g}: {','.join(keys)}"
        case LeasesRefused(keys, count, why):
            return f"{count} refused: {','.join(keys)}: {why}"
        case LeasesGranted(keys, count, after):
            return f"{count} granted again after {after / SECOND:g}: {','.join(keys)}"
        case SentLate(key, calls):
            return f"{key} sent {calls} late"
