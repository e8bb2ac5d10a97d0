"""A job of `apiflux process` as a model: what a run has to send and what its output holds then, as it is promised.

Rule: the model knows no code of jobs/. Of each call it keeps what the output and its state say, and a run changes that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.commands import Rows

NONE: Final = "-"  # as a failure: there is no result
UNANSWERED: Final = ("UNKNOWN", "TIMEOUT", "BODY_CUT")  # what --retry-unknown sends again
FOUND: Final = (
    "",
    "",
    "HTTP_5XX",
    "HTTP_4XX",
    *UNANSWERED,
    "INTERNAL",
    "NOT_SENT",
)  # what an earlier run may have left
WAYS: Final = ("o", "o", "o", "f", "n", "x", "fo", "fx", "xo", "xf", "no")
STATUS: Final = {"": 200, "HTTP_4XX": 404, "HTTP_5XX": 500}
_FAILURES: Final = {status: failure for failure, status in STATUS.items()}
_RESULTS: Final = {"o": ("", False), "n": ("HTTP_4XX", False), "f": ("HTTP_5XX", False), "x": ("UNKNOWN", True)}


@dataclass
class Call:
    """`ways` is how the upstream answers each time that it comes: o, n, f, and x for no answer."""

    index: int
    ways: str
    number: int  # no other call of the upstream has it
    method: str
    id: str
    idempotent: bool | None
    cost: int
    failure: str = NONE  # of its result; "": it is a success
    may_have_run: bool = False  # by that result
    handed: bool = False  # an earlier run handed it over, and there is no result
    is_openai: bool = False  # its line and its result are in OpenAI's batch format
    fate: str = ""  # in a run that nothing interrupts: kept, sent, doubt; left by a bound

    @property
    def path(self) -> str:
        return f"/each/{self.ways}/{self.number}"

    @property
    def name(self) -> str:
        """As the upstream knows it."""
        return f"{self.method} {self.path}"

    @property
    def may_run_twice(self) -> bool:
        return self.method == "GET" if self.idempotent is None else self.idempotent

    @property
    def is_ready(self) -> bool:
        """It failed, and --failed may have it."""
        return self.failure not in ("", NONE) and (self.may_run_twice or not self.may_have_run)

    @property
    def fields(self) -> dict[str, Any]:
        """Its line."""
        if self.is_openai:
            return {"custom_id": self.id, "method": self.method, "url": self.path, "body": {}}
        fields: dict[str, Any] = {"method": self.method, "path": self.path, "cost": self.cost}
        fields |= {"id": self.id} if self.id else {}
        return fields if self.idempotent is None else fields | {"idempotent": self.idempotent}

    @property
    def row(self) -> dict[str, Any]:
        """Its result, as an earlier run has written it."""
        if self.is_openai:
            line = {"id": "batch_req_1", "custom_id": self.id, "response": None, "error": None}
            if self.failure in STATUS:
                return line | {"response": {"status_code": STATUS[self.failure], "request_id": "", "body": None}}
            return line | {"error": {"code": self.failure, "message": "", "may_have_run": self.may_have_run}}
        row: dict[str, Any] = {"index": self.index} | ({"id": self.id} if self.id else {})
        row |= {"failure": self.failure} if self.failure else {}
        if self.failure in STATUS:
            return row | {"response": {"statusCode": STATUS[self.failure]}}
        return row | {"error": {"code": 2, "reason": self.failure, "message": "", "mayHaveRun": self.may_have_run}}

    def leave(self, failure: str) -> None:
        """An earlier run has left this result."""
        self.failure, self.may_have_run, self.handed = failure, failure in (*UNANSWERED, "INTERNAL"), False

    def answered(self, times: int) -> None:
        """It has come so often, and its last result is there."""
        self.failure, self.may_have_run = _RESULTS[self.ways[times - 1 : times] or "o"]
        self.handed = False


@dataclass
class Options:
    retry_failed: bool
    retry_unknown: bool
    ordered: bool
    overwrite: bool
    limit: int | None
    max_cost: int | None
    window: int

    @property
    def args(self) -> list[str]:
        """As they are typed."""
        args = []
        for name, value in vars(self).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                args += [option] if value else []
            elif value is not None:
                args += [option, str(value)]
        return args


def some_calls(dice: random.Random, first: int) -> list[Call]:
    """1 to 8 calls: with ids, without, or both. `first` is the number of the first one."""
    if dice.random() < 0.2:
        return [
            Call(index, dice.choice(WAYS), first + index, "POST", f"call-{index}", None, 1, is_openai=True)
            for index in range(dice.randint(1, 8))
        ]
    has_id = dice.choice((0.0, 0.5, 1.0))
    return [
        Call(
            index,
            dice.choice(WAYS),
            first + index,
            dice.choice(("GET", "POST", "POST")),
            f"call-{index}" if dice.random() < has_id else "",
            dice.choice((None, None, None, True, False)),
            dice.choice((1, 1, 1, 2, 5)),
        )
        for index in range(dice.randint(1, 8))
    ]


def some_options(dice: random.Random) -> Options:
    return Options(
        retry_failed=dice.random() < 0.35,
        retry_unknown=dice.random() < 0.3,
        ordered=dice.random() < 0.3,
        overwrite=dice.random() < 0.07,
        limit=dice.choice((None, None, None, 1, 2, 3)),
        max_cost=dice.choice((None, None, None, 0, 1, 3, 8)),
        window=dice.choice((2_000, 2_000, 1, 2)),
    )


def decide(calls: list[Call], options: Options) -> bool:
    """Set each call's fate. Returns whether a bound leaves some."""
    sent = cost = 0
    is_bound = False
    for call in calls:
        if options.overwrite:
            call.failure, call.may_have_run, call.handed = NONE, False, False
        call.fate = _fate(call, options)
        if call.fate != "sent":
            continue
        is_bound = is_bound or sent == options.limit
        is_bound = is_bound or (options.max_cost is not None and cost + call.cost > options.max_cost)
        if is_bound:
            call.fate = "left"
        else:
            sent, cost = sent + 1, cost + call.cost
    return is_bound


def _fate(call: Call, options: Options) -> str:
    if call.failure == NONE:
        is_sent = not call.handed or call.may_run_twice or options.retry_unknown
        return "sent" if is_sent else "doubt"
    if not call.failure:
        return "kept"
    is_sent = options.retry_failed and (call.may_run_twice or not call.may_have_run)
    return "sent" if is_sent or (options.retry_unknown and call.failure in UNANSWERED) else "kept"


def by_index(rows: Rows) -> dict[int, str]:
    """How each call with a result failed, in the order of the file. No call has two."""
    found = dict(map(_told, rows))
    assert len(found) == len(rows)
    return found


def _told(row: dict[str, Any]) -> tuple[int, str]:
    if "index" in row:
        return row["index"], row.get("failure", "")
    failure = row["error"]["code"] if row["error"] else _FAILURES[row["response"]["status_code"]]
    return int(row["custom_id"].removeprefix("call-")), failure
