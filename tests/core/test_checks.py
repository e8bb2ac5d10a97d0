"""The checks of calls take plain values, and their shortcut for usual paths lets nothing through that is wrong.

Every text that they can say, and its field, is in tests/server/test_wire.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apiflux_grpc.core.checks import Checks, Fault, Ids
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import SECOND

POOL = Pool("pool", (Key("key-1", "secret", (Limit(1, SECOND),)),))
CHECKS = Checks(POOL)
ALLOWED = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")


def found(
    path: str = "/",
    *,
    id: str = "",
    method: str = "",
    headers: Sequence[tuple[str, str]] = (),
    query: Sequence[tuple[str, str]] = (),
    timeout: int | None = None,
    cost: int | None = None,
) -> list[str]:
    """The fields in which a call is wrong."""
    return [fault.field for fault in CHECKS.call(id, method, path, headers, query, timeout, cost)]


def right(path: str) -> bool:
    """The rule in its plainest form, RFC 3986: relative to the pool's base URL, and nobody's way out of it."""
    segments = path.replace("%2e", ".").replace("%2E", ".").split("/")
    return (
        ALLOWED.fullmatch(path) is not None
        and not path.startswith("//")
        and ":" not in path.split("/")[0]
        and not {".", ".."} & set(segments)
    )


PIECES = ["/", "/", ".", "..", "%2e", "%2E", "%20", "%", "%3a", "a", ":", "~", "b", "?", "#", "é", " ", "\n", "@"]


@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join))
@example("/a/%2e./b")
@example("a/b:c")
@example("//")
@example("/./")
@example("")
def test_a_path_is_right_or_it_is_refused(path: str) -> None:
    """Whatever the path is, the shortcut and the whole check together say what the plain rule says."""
    assert found(path) == ([] if right(path) else ["path"])


@pytest.mark.parametrize("piece", ["a", "/a", "a%20", "/a.", "%2e", "."])
@pytest.mark.parametrize("end", ["", "?", "%"])
def test_a_long_path_takes_no_time_that_matters(piece: str, end: str) -> None:
    """A pattern that went back and forth over so many characters would not return in this century."""
    path = piece * 20_000 + end
    assert found(path) == ([] if right(path) else ["path"])


def test_one_call_may_be_wrong_in_every_field() -> None:
    """Each fault is told, with the field from the call that has it."""
    call = found("..", id="x" * 257, method="get", headers=[("Host", "a"), ("b", "\n")], timeout=0, cost=-1)
    assert call == ["id", "method", "path", "headers[0].name", "headers[1].value", "timeout", "cost"]
    assert Fault("path", "is wrong").of("calls[3]") == ("calls[3].path", "is wrong")


@pytest.mark.parametrize("character", "aé€\N{GRINNING FACE}")
def test_an_id_has_256_bytes(character: str) -> None:
    """As UTF-8, however few characters they make."""
    most = 256 // len(character.encode())
    assert (found(id=character * most), found(id=character * (most + 1))) == ([], ["id"])


def test_what_is_left_out_is_right() -> None:
    """No method is GET, no path is the root, no cost is 1."""
    assert found("") == []
    assert found(method="PATCH", headers=[("X-A", "")], query=[("api_key", "a")], timeout=POOL.timeout, cost=0) == []


def test_an_id_is_free_again_when_it_was_released() -> None:
    """And not before, whoever asks."""
    ids = Ids(streamed=True)
    assert ids.take("a") is None
    assert ids.take("a") is not None
    ids.release("a")
    ids.release("never taken")
    assert ids.take("a") is None
