"""What a pool's attempts have told so far: how long they take, what went wrong last, for how long no key was usable.

Rule: figures for people and for forecasts, and the bound on waiting while no key can be used; nothing here decides
what is sent.
"""

from __future__ import annotations

from apiflux_grpc.core.margin import RoundTrips


class Pulse:
    """`latency` is a moving mean over answered attempts, ns from permit to settlement."""

    __slots__ = ("_latency", "_sample", "cuts", "last_failure", "malformed", "round_trips")

    def __init__(self) -> None:
        self._latency = 0.0
        self._sample = 0
        self.round_trips = RoundTrips()
        self.cuts = 0  # 429s although every limit was kept, once per limit and window
        self.malformed = 0  # values of headers about limits that couldn't be read
        self.last_failure = ""  # of the upstream, in words

    @property
    def latency(self) -> int:
        return int(self._latency)

    def answered(self, latency: int, sent_at: int, answered_at: int) -> None:
        """An answer came; `latency` is ns since its permit."""
        self._sample += 1
        self._latency += (latency - self._latency) / (16 if self._sample > 15 else self._sample)
        if sent_at >= 0 and not self._sample & 7:  # one in eight is enough; -1: its adapter couldn't say
            self.round_trips.add(max(0, answered_at - sent_at))


class Patience:
    """How long (ns) calls wait while no key can be used and none has said when it can."""

    __slots__ = ("_length", "_since")

    def __init__(self, length: int) -> None:
        self._length = length
        self._since: int | None = None

    def anew(self) -> None:
        """A call succeeded."""
        self._since = None

    def is_over(self, usable: bool, now: int, refused_at: int | None = None) -> bool:
        """Whether no key was usable for so long; to be asked again and again, with how it is now.

        Nobody gives up between two probes: if a probe decides whether a limit still holds, patience lasts until one has
        been refused after its end. `refused_at`: when that was last, of the key for which it is longest ago.
        """
        if usable:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        end = self._since + self._length
        return now >= end and (refused_at is None or refused_at >= end)
