"""Quantities in words: what is typed is what is meant, and what is shown can be typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.core.units import (
    LONGEST,
    MICROSECOND,
    MILLISECOND,
    MOST,
    SECOND,
    counted,
    format_address,
    format_duration,
    format_limit,
    is_host,
    parse_address,
    parse_duration,
    parse_limit,
)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("250ms", 250 * MILLISECOND),
        ("1.5s", 1_500 * MILLISECOND),
        ("2m", 120 * SECOND),
        ("1h", 3600 * SECOND),
        ("100us", 100 * MICROSECOND),
        ("5ns", 5),
        ("0.000000001s", 1),
        ("1.1s", 1_100 * MILLISECOND),
        ("0s", 0),
        ("8784h", LONGEST),
    ],
)
def test_a_duration_is_read_exactly(text: str, ns: int) -> None:
    """A duration is a number and a unit, and not one nanosecond is lost."""
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *(
            (text, "must be a number and one of")
            for text in ("", "1", "s", "1 s", "1 d", "-1s", "+1s", "1e3s", "1.s", ".5s", "٣s", "1s\n", " 1s", "nans")
        ),
        *((text, "is finer than a nanosecond") for text in ("0.1ns", "0.5ns", "0.0001us")),
        ("8784.0000001h", "is longer than 366 days"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, why: str) -> None:
    """Nothing is guessed, and nothing is rounded."""
    with pytest.raises(ValueError, match=f"^{why}"):
        parse_duration(text)


@given(st.integers(0, LONGEST))
def test_a_shown_duration_is_read_back(ns: int) -> None:
    """A duration can be typed as it is shown."""
    assert parse_duration(format_duration(ns)) == ns


def test_a_duration_is_shown_in_the_largest_unit_without_a_fraction() -> None:
    """Seconds are the largest unit: a limit of a minute is 60s to everybody."""
    shown = [format_duration(ns) for ns in (60 * SECOND, 1_500 * MILLISECOND, 2 * MICROSECOND, 1_500, 0)]
    assert shown == ["60s", "1500ms", "2us", "1500ns", "0s"]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("1000/60s", (1000, 60 * SECOND, "calls")),
        ("10/1.5m", (10, 90 * SECOND, "calls")),
        ("200000/60s:cost", (200_000, 60 * SECOND, "cost")),
        (f"{MOST}/1ns", (MOST, 1, "calls")),
    ],
)
def test_a_limit_is_read(text: str, limit: tuple[int, int, str]) -> None:
    """A limit is the most and its time, and says so if it counts cost."""
    assert parse_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "must be MAX/DURATION") for text in ("", "10", "-1/1s", "1.5/1s", "1_0/1s", "10/1s:bytes", "10 /1s")),
        *((text, "must be at least 1") for text in ("0/1s", "10/0s", f"{MOST + 1}/1s")),
        ("10/60", "must be MAX/DURATION, such as 1000/60s; the duration must be a number and one of"),
        ("10/400000h", "must be MAX/DURATION, such as 1000/60s; the duration is longer than 366 days"),
    ],
)
def test_what_is_no_limit_is_refused(text: str, why: str) -> None:
    """The reason tells a limit of the wrong form from one of the wrong size."""
    with pytest.raises(ValueError, match=f"^{why}"):
        parse_limit(text)


def test_a_limit_is_shown_as_people_say_it() -> None:
    """A limit says how many of what, and in what time."""
    assert format_limit(1000, 60 * SECOND, "calls") == "1000 calls per 60s"
    assert format_limit(200_000, 500 * MILLISECOND, "cost") == "200000 cost per 500ms"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:1", "localhost", 1),
        ("flux.example.com:443", "flux.example.com", 443),
        ("my_service:50051", "my_service", 50051),
        ("10.0.0.1:65535", "10.0.0.1", 65535),
        ("[::1]:8900", "::1", 8900),
        ("a.:0", "a.", 0),
    ],
)
def test_an_address_is_read_and_shown(text: str, host: str, port: int) -> None:
    """A host is a name or an address, without its brackets; shown, it has them again."""
    assert parse_address(text) == (host, port)
    assert format_address(host, port) == text
    assert is_host(host)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "has no port; write HOST:PORT") for text in ("", "8900", "127.0.0.1")),
        ("http://127.0.0.1:1", "is a URL; write HOST:PORT"),
        *((text, "must be HOST:PORT, with a port from 0 to 65535") for text in ("h:", "h:x", "h:65536", "h:²", "h:-1")),
        ("::1:50051", "must be HOST:PORT, with an IPv6 address in brackets"),
        *(
            (text, "must be HOST:PORT; the host is neither")
            for text in (":1", "[h]:1", "[]:1", "h h:1", "[::1:1", "[::x]:1", "-h:1", "h-:1", "a..b:1", f"{'a' * 64}:1")
        ),
        (f"{'a.' * 127}:1", "must be HOST:PORT; the host is neither"),
    ],
)
def test_what_is_no_address_is_refused(text: str, why: str) -> None:
    """The reason says what to write, whether a port, a host or brackets are missing."""
    with pytest.raises(ValueError, match=f"^{why}"):
        parse_address(text)


def test_nobody_connects_to_port_0() -> None:
    """Port 0 asks for any free port, so it is for those who listen."""
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_address("127.0.0.1:0", least_port=1)


@pytest.mark.parametrize("text", ["canary-7f3a", "canary-7f3a/60s", "canary-7f3a:1:2"])
def test_a_fault_does_not_repeat_what_was_typed(text: str) -> None:
    """A secret in the wrong place isn't shown."""
    for parse in (parse_duration, parse_limit, parse_address):
        with pytest.raises(ValueError, match=r"must be|has no port") as refused:
            parse(text)
        assert "canary" not in str(refused.value)


def test_a_noun_follows_its_number() -> None:
    """One call, and all other numbers of calls; a plural that isn't its noun with an s is told."""
    assert [counted(number, "call") for number in (0, 1, 2, 2500)] == ["0 calls", "1 call", "2 calls", "2,500 calls"]
    assert [counted(number, "batch", "batches") for number in (1, 2)] == ["1 batch", "2 batches"]
