"""The words of the core as the contract's enums, and a request's enums as words.

Rule: a value of an enum is its word in capitals behind the enum's name, so one word needs no table of its own, and a
word that the contract lacks is a KeyError as soon as the server is imported or tested, never a wrong number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.held import Cause
from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

REASONS: Final = {reason: pb.Reason.Value(f"REASON_{reason.value}") for reason in Reason}
CAUSES: Final = {cause: pb.HeldCause.Value(f"HELD_CAUSE_{cause.name}") for cause in Cause}
COUNTS: Final = {counts: pb.LimitCounts.Value(f"LIMIT_COUNTS_{counts.name}") for counts in Counts}
KINDS: Final = {kind: pb.LimitKind.Value(f"LIMIT_KIND_{kind.name}") for kind in Kind}
MODES: Final = {"test": pb.MODE_TEST, "production": pb.MODE_PRODUCTION}
UPSTREAMS: Final = {"simulated": pb.UPSTREAM_KIND_SIMULATED, "http": pb.UPSTREAM_KIND_HTTP}
STATES: Final = {
    "usable": pb.KEY_STATE_USABLE,
    "blocked": pb.KEY_STATE_BLOCKED,
    "rejected": pb.KEY_STATE_REJECTED,
    "paused": pb.KEY_STATE_PAUSED,
}
_WORDS: Final[dict[int, str]] = {number: reason.value for reason, number in REASONS.items()}


def words_of(reasons: Iterable[int]) -> list[str]:
    """The words of a request's reasons; what is none, since it is unspecified or unknown here, as its number."""
    return [_WORDS.get(number, str(number)) for number in reasons]
