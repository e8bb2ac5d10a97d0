"""What the judge must know of an API to answer as it does.

The rule: an API is data, a table of routes and the shape of its errors; who speaks it (speaking.py) knows none of them
by name. What an answer says depends on its request alone, so a call that is sent again is answered the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from apiflux_grpc.judge.dialects import Dialect
from apiflux_grpc.judge.places import CostIn, KeyIn

OVERLOADED: Final = 529  # Anthropic's; HTTP has no such status


class Asked(NamedTuple):
    """A request: `names` are those in its path, `body` is a JSON object of `size` bytes, empty if there is none.

    `seed`, below 2**64, is decided by the request alone; `now` is in seconds since 1970.
    """

    method: str
    path: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    size: int
    seed: int
    now: int

    @property
    def id(self) -> str:
        """16 hex digits, for the ids of an answer."""
        return f"{self.seed:016x}"

    def text(self, name: str) -> str:
        """A field of the body; empty if it isn't there or is no text."""
        value = self.body.get(name)
        return value if isinstance(value, str) else ""


class Usage(NamedTuple):
    """Tokens that a call takes."""

    input: int = 0
    output: int = 0


class Trouble(NamedTuple):
    """Why a request is refused. `message` is empty if the API has its own words for the status."""

    status: int
    message: str = ""
    param: str | None = None  # the field at fault
    code: str | None = None


class Said(NamedTuple):
    """An answer: `body` is a value to be written as JSON, or the text itself."""

    status: int
    body: object
    content_type: str = "application/json"
    fields: tuple[str, ...] = ()


def _free(asked: Asked) -> Usage:
    return Usage()


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path. In `/repos/{owner}/contents/{path+}` a name is any one segment, with `+` one or more.

    `needs` are the fields that may not be missing, of the body or, for GET, of the query; `a|b` is one of the two.
    """

    method: str
    path: str
    answer: Callable[[Asked, Usage], object]
    needs: tuple[str, ...] = ()
    usage: Callable[[Asked], Usage] = _free
    status: int = 200


def _no_field(name: str) -> Trouble:
    return Trouble(400, f"{name} is missing", name)


@dataclass(frozen=True, slots=True)
class Api:
    """One API. Without `routes` every path is answered with `{"ok": true}`.

    A call costs what it says at `cost_in`; if that is None, what `cost` makes of its usage, in `unit`. `headers` (in
    lower case) have what is said if they are missing. In `fields`, headers of every answer, {id} is `request_id` with a
    number that no other answer has; an error has it in its body too, at `id_in_errors`.
    """

    key_in: KeyIn
    dialect: Dialect
    error: Callable[[Trouble], Said]
    missing: Callable[[str], Trouble] = _no_field
    routes: tuple[Route, ...] = ()
    cost_in: CostIn | None = None
    cost: Callable[[Usage], int] = sum
    unit: str = "cost"
    headers: Mapping[str, Trouble] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    request_id: str = "{:032x}"
    id_in_errors: str = ""


def phrase(status: int) -> str:
    """The words of a status line."""
    return "Overloaded" if status == OVERLOADED else HTTPStatus(status).phrase
