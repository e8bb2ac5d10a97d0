"""What a pool says beyond HTTP: what an answer means, which calls may run twice, what a call costs.

Rule: data, frozen; settings read them, verdict.py and the doors apply them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apiflux_grpc.core.fields import Field


class Means(Enum):
    """What an answer means."""

    SUCCESS = "success"
    LIMITED = "limited"
    KEY_REJECTED = "key_rejected"
    AGAIN = "again"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Condition:
    """A value at `field` is one of `values`. What is no text in JSON is compared as JSON writes it: `429`, `true`."""

    field: Field
    values: tuple[str, ...]

    def __str__(self) -> str:
        """In words: `error.code is slow_down or quota`."""
        *others, last = self.values
        return f"{self.field} is {', '.join(others)} or {last}" if others else f"{self.field} is {last}"


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """Answers of these statuses that meet all conditions mean `means`.

    `status` has inclusive ranges; empty: any. `wait` is where the wait is told, if not in the usual headers.
    `not_executed`: of AGAIN, a call of any method may be tried again.
    """

    means: Means
    status: tuple[tuple[int, int], ...] = ()
    conditions: tuple[Condition, ...] = ()
    wait: Field | None = None
    not_executed: bool = False

    def __str__(self) -> str:
        """The answers in words: `429, 500-503 if error.code is slow_down`."""
        statuses = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in self.status) or "any"
        conditions = " and ".join(map(str, self.conditions))
        return f"{statuses} if {conditions}" if conditions else statuses


@dataclass(frozen=True, slots=True)
class CallRule:
    """Calls with one of these methods whose decoded path begins with one of these prefixes; empty: any."""

    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words: `POST, PATCH: /v1/chat/`."""
        return f"{', '.join(self.methods) or 'any method'}: {', '.join(self.paths) or 'any path'}"


@dataclass(frozen=True, slots=True)
class CostOfCall:
    """A call's cost from its request: the number at `json` plus `per_byte` for each byte of `per_byte_of`, rounded up.

    A field that is missing counts 0, and the sum is at least `at_least`. `per_byte_of` None: of the whole body. A name
    such as `a|b` is any of several: the largest of those that are there counts.
    """

    json: tuple[str, ...] | None = None
    per_byte: float = 0.0
    per_byte_of: tuple[str, ...] | None = None
    at_least: int = 1

    def __str__(self) -> str:
        """In words: `max_tokens + 0.25 per byte of messages`."""
        parts = [] if self.json is None else [".".join(self.json)]
        if self.per_byte:
            parts.append(f"{self.per_byte:g} per byte of {'.'.join(self.per_byte_of or ('the body',))}")
        least = "" if self.at_least == 1 else f", at least {self.at_least}"
        return " + ".join(parts) + least
