"""What headers say is left of a limit: every spelling, and whatever else an upstream may send."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NoReturn

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apiflux_grpc.core import hintplan
from apiflux_grpc.core import hints as hints_module
from apiflux_grpc.core.cost import LARGEST_COST as LARGEST
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.structured import LONGEST_VALUE, MOST_ITEMS
from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND
from apiflux_grpc.core.waits import LONGEST_RESET, reset_in

NOW: Final = datetime(2026, 1, 27, 11, 59, 0, tzinfo=UTC)  # 1769515140
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
CALLS: Final = Counts.CALLS
COST: Final = Counts.COST


def hints(headers: Mapping[str, str]) -> tuple[list[Hint], int]:
    """What these headers tell now."""
    return hints_module.hints(Headers.of(headers), NOW)


def read(headers: Mapping[str, str]) -> list[Hint]:
    """The hints of headers without a fault."""
    found, malformed = hints(headers)
    assert malformed == 0
    return found


# -- RateLimit and RateLimit-Policy --------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratelimit", "policy", "expected"),
    [
        # draft-ietf-httpapi-ratelimit-headers-11, section 4.2, and its policies of section 3.2
        ('"default";r=50;t=30', None, [Hint(50, 30 * SECOND, None, None, None)]),
        ('"default";r=999;pk=:dHJpYWwxMjEzMjM=:', None, [Hint(999, None, None, None, None)]),
        ('"default";r=50;t=30', '"default";q=100;w=10', [Hint(50, 30 * SECOND, 100, 10 * SECOND, CALLS)]),
        (
            '"permin";r=1;t=2,"perhr";r=900',
            '"perhr";q=1000;w=3600,"permin";q=50;w=60',
            [Hint(1, 2 * SECOND, 50, MINUTE, CALLS), Hint(900, None, 1000, HOUR, CALLS)],
        ),
        ('"a";r=5', '"a";q=100;w=60;qu="requests"', [Hint(5, None, 100, MINUTE, CALLS)]),
        ('"a";r=5', '"a";q=100;qu="request"', [Hint(5, None, 100, None, CALLS)]),
        ('"a";r=5', '"a";q=100;qu="tokens";w=60', [Hint(5, None, 100, MINUTE, COST)]),
        ('"a";r=5', '"a";q=100;qu="acme-units"', [Hint(5, None, 100, None, COST)]),
        ('"a";r=5,"b";r=6', '"a";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:', [Hint(6, None, None, None, None)]),
        ('"a";r=5', '"a";q=8;qu="concurrent-requests"', []),
        ('"a";r=5', '"b";q=8', [Hint(5, None, None, None, None)]),
        ('"a";r=5', "", [Hint(5, None, None, None, None)]),
        ("", '"a";q=5', []),
        # a name may become a Token; other members, other parameters and spaces mean nothing
        ("default;r=50", "default;q=60;w=1", [Hint(50, None, 60, SECOND, CALLS)]),
        (
            '  "a"; r=5 ;t=6\t,\t"b";r=7  ',
            None,
            [Hint(5, 6 * SECOND, None, None, None), Hint(7, None, None, None, None)],
        ),
        ('"a";r=5;acme;x="; r=9, \\" ";y=?0;z=@12;d=%"%c3";n=-1.5;t=1', None, [Hint(5, SECOND, None, None, None)]),
        ('"one, \\"two\\"; three";r=1', '"one, \\"two\\"; three";q=9', [Hint(1, None, 9, None, CALLS)]),
        ('"a";r=5;r=4', None, [Hint(4, None, None, None, None)]),
        # express-rate-limit's draft-8
        (
            '"100-in-1min"; r=99; t=60',
            '"100-in-1min"; q=100; w=60; pk=:NzZlNTI2YzMxYzVj:',
            [Hint(99, MINUTE, 100, MINUTE, CALLS)],
        ),
        # up to draft -07: a dictionary, and policies without a name
        ("limit=100, remaining=50, reset=5", None, [Hint(50, 5 * SECOND, 100, None, None)]),
        ("limit=100, remaining=50, reset=5", "100;w=10", [Hint(50, 5 * SECOND, 100, 10 * SECOND, None)]),
        ("limit=50, remaining=9, reset=5", "10;w=1;burst=99, 50;w=60", [Hint(9, 5 * SECOND, 50, MINUTE, None)]),
        ("remaining=9", "10;w=1", [Hint(9, None, None, None, None)]),
        ("limit=100, reset=5", None, []),
        # bounds
        (f'"a";r={LARGEST};t={LARGEST}', None, [Hint(LARGEST, LONGEST_RESET, None, None, None)]),
        ('"a";r=0;t=0', '"a";q=0;w=1', [Hint(0, 0, 0, SECOND, CALLS)]),
    ],
)
def test_structured_fields(ratelimit: str, policy: str | None, expected: list[Hint]) -> None:
    """Lists of items with parameters are read as RFC 9651 says, and its dictionaries too."""
    headers = {"ratelimit": ratelimit}
    if policy is not None:
        headers["ratelimit-policy"] = policy
    assert read(headers) == expected


@pytest.mark.parametrize(
    ("ratelimit", "policy", "expected", "malformed"),
    [
        # one fault in the syntax spoils the field, RFC 9651 section 4.2
        ('"a";r=5,', None, [], 1),
        (',"a";r=5', None, [], 1),
        ('"a";r=5 "b";r=6', None, [], 1),
        ('"a";r=5,"b;r=6', None, [], 1),
        ('"a";R=5', None, [], 1),
        ('"a";r=', None, [], 1),
        ('"ä";r=5', None, [], 1),
        ('("a" "b");r=5', None, [], 1),
        ("\x00", None, [], 1),
        ('"a";r=5', '"a";q=', [Hint(5, None, None, None, None)], 1),
        # a fault in a value spoils that value
        ('"a";t=5', None, [], 1),
        ('"a";r,"b";r=6', None, [Hint(6, None, None, None, None)], 1),
        ('"a";r=-1', None, [], 1),
        ('"a";r=1.5', None, [], 1),
        ('"a";r="5"', None, [], 1),
        (f'"a";r={LARGEST + 1}', None, [], 1),
        ('"a";r=5;t=-1', None, [Hint(5, None, None, None, None)], 1),
        ('"a";r=5;t=soon', None, [Hint(5, None, None, None, None)], 1),
        ('"a";r=5', '"a";w=60', [Hint(5, None, None, MINUTE, CALLS)], 1),
        ('"a";r=5', '"a";q=9;w=0', [Hint(5, None, 9, None, CALLS)], 1),
        ('"a";r=5', '"a";q=9;w=1.5', [Hint(5, None, 9, None, CALLS)], 1),
        ('"a";r=5', '"a";q=9;qu=7', [Hint(5, None, 9, None, None)], 1),
        ('"a";r=5', "-9;w=60, 1.5;w=60, 9;w=x", [Hint(5, None, None, None, None)], 3),
        ("limit=many, remaining=50, reset=5", None, [Hint(50, 5 * SECOND, None, None, None)], 1),
        ("limit=100, remaining=none, reset=5", None, [], 1),
    ],
)
def test_malformed_structured_fields(ratelimit: str, policy: str | None, expected: list[Hint], malformed: int) -> None:
    """What can't be read is counted, and what stands beside it still counts."""
    headers = {"ratelimit": ratelimit}
    if policy is not None:
        headers["ratelimit-policy"] = policy
    assert hints(headers) == (expected, malformed)


# -- a header for each value ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        # drafts -00 to -06
        (
            {"ratelimit-limit": "10", "ratelimit-remaining": "1", "ratelimit-reset": "7"},
            [Hint(1, 7 * SECOND, 10, None, None)],
        ),
        (
            {"ratelimit-limit": "10, 10;w=1, 50;w=60", "ratelimit-remaining": "1", "ratelimit-reset": "7"},
            [Hint(1, 7 * SECOND, 10, SECOND, None)],
        ),
        (
            {"ratelimit-limit": '12;w=2;burst=1000;policy="leaky bucket"', "ratelimit-remaining": "1"},
            [Hint(1, None, 12, 2 * SECOND, None)],
        ),
        (
            {"ratelimit-limit": "10;w=1, 1000;w=3600", "ratelimit-remaining": "1"},
            [Hint(1, None, 10, SECOND, None)],
        ),
        (
            {"ratelimit-policy": "10;w=1, 50;w=60", "ratelimit-limit": "50", "ratelimit-remaining": "1"},
            [Hint(1, None, 50, MINUTE, None)],
        ),
        # GitHub, Reddit, Twitter, Envoy, Kong
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "59", "x-ratelimit-reset": "1769515200"},
            [Hint(59, MINUTE, 60, None, None)],
        ),
        (
            {"x-ratelimit-used": "1", "x-ratelimit-remaining": "98.9", "x-ratelimit-reset": "215"},
            [Hint(98, 215 * SECOND, None, None, None)],
        ),
        (
            {"x-rate-limit-limit": "15", "x-rate-limit-remaining": "14", "x-rate-limit-reset": "1769515200"},
            [Hint(14, MINUTE, 15, None, None)],
        ),
        (
            {"x-ratelimit-limit": '10, 10;w=1;name="per-ip", 1000;w=3600', "x-ratelimit-remaining": "9"},
            [Hint(9, None, 10, SECOND, None)],
        ),
        (
            {
                "x-ratelimit-limit-second": "5",
                "x-ratelimit-remaining-second": "4",
                "x-ratelimit-limit-hour": "50",
                "x-ratelimit-remaining-hour": "49",
            },
            [Hint(4, None, 5, SECOND, None), Hint(49, None, 50, HOUR, None)],
        ),
        (
            {"x-ratelimit-remaining-requests-day": "9", "x-ratelimit-remaining-tokens-minute": "8"},
            [Hint(9, None, None, DAY, CALLS), Hint(8, None, None, MINUTE, COST)],
        ),
        # OpenAI
        (
            {
                "x-ratelimit-limit-requests": "5000",
                "x-ratelimit-limit-tokens": "160000",
                "x-ratelimit-remaining-requests": "4999",
                "x-ratelimit-remaining-tokens": "159976",
                "x-ratelimit-reset-requests": "12ms",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            [Hint(4999, 12 * MILLISECOND, 5000, None, CALLS), Hint(159976, 6 * MINUTE, 160000, None, COST)],
        ),
        # Anthropic
        (
            {
                f"anthropic-ratelimit-{unit}-{field}": value
                for unit, left in (("requests", "999"), ("tokens", "3"), ("input-tokens", "2"), ("output-tokens", "1"))
                for field, value in (("limit", "1000"), ("remaining", left), ("reset", "2026-01-27T12:00:00Z"))
            },
            [
                Hint(999, MINUTE, 1000, None, CALLS),
                Hint(3, MINUTE, 1000, None, COST),
                Hint(2, MINUTE, 1000, None, COST),
                Hint(1, MINUTE, 1000, None, COST),
            ],
        ),
        # Atlassian, Spring Cloud Gateway
        (
            {
                "x-ratelimit-limit": "5",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-interval-seconds": "1",
                "x-ratelimit-fillrate": "5",
            },
            [Hint(0, None, 5, SECOND, None)],
        ),
        (
            {
                "x-ratelimit-burst-capacity": "20",
                "x-ratelimit-remaining": "19",
                "x-ratelimit-replenish-rate": "10",
                "x-ratelimit-requested-tokens": "1",
            },
            [Hint(19, None, 20, SECOND, None)],
        ),
        # two gateways in a row
        (
            {"x-ratelimit-limit": "10, 99", "x-ratelimit-remaining": "1, 98", "x-ratelimit-reset": "7, 1769515200"},
            [Hint(1, 7 * SECOND, 10, None, None), Hint(98, MINUTE, 99, None, None)],
        ),
        # several families at once; RateLimit comes first
        (
            {"x-ratelimit-remaining": "1", "ratelimit-remaining": "2", "ratelimit": '"a";r=3'},
            [Hint(3, None, None, None, None), Hint(1, None, None, None, None), Hint(2, None, None, None, None)],
        ),
        # without what is left there is nothing to say
        ({"x-ratelimit-limit": "10", "x-ratelimit-reset": "7"}, []),
        ({"ratelimit-policy": '"a";q=100;w=60'}, []),
        # of no limit that we know
        (
            {
                "anthropic-ratelimit-unified-reset": "1769515200",
                "anthropic-ratelimit-unified-remaining": "1",
                "x-ratelimit-remaining-videos-minute": "1",
                "x-ratelimit-remaining-tokens_usage_based": "1",
                "x-ratelimit-reset-after": "1.5",
                "x-ratelimit-": "1",
                "x-ratelimit-bucket": "abcd",
                "x-ratelimit-remaining-requests-requests": "1",
                "ratelimits": "1",
                "ratelimit-remainings": "1",
                "my-ratelimit-remaining": "1",
                "x-generated-by": "1",
                "x-rate": "1",
                "x-ratelimit-remaining-" + "requests" * 1000: "1",
            },
            [],
        ),
    ],
)
def test_a_header_for_each_value(headers: dict[str, str], expected: list[Hint]) -> None:
    """Limit, remaining and reset in headers of their own make one hint, unit and period from their names."""
    assert read(headers) == expected


@pytest.mark.parametrize(
    ("headers", "resources"),
    [
        ({"x-ratelimit-remaining": "0", "x-ratelimit-resource": "search"}, ["search"]),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-bucket": "abcd"}, ["abcd"]),
        ({"ratelimit-remaining": "0", "x-ratelimit-resource": "search"}, [""]),
        ({"x-ratelimit-remaining": "0"}, [""]),
    ],
)
def test_of_which_calls_a_limit_is(headers: dict[str, str], resources: list[str]) -> None:
    """A resource or a bucket has a name, in the upstream's words; without one, a limit is of all calls."""
    assert [hint.resource for hint in read(headers)] == resources


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "expected", "malformed"),
    [
        ("10", "many", "7", [], 1),
        ("many", "1", "7", [Hint(1, 7 * SECOND, None, None, None)], 1),
        ("10", "1", "soon", [Hint(1, None, 10, None, None)], 1),
        ("many", "more", "soon", [], 3),
        ("-1", "-1", "0", [], 2),  # Azure's, where no limit holds
        ("", "1", "7", [Hint(1, 7 * SECOND, None, None, None)], 1),
        ("10", "", "7", [], 1),
        ("10", "²", "7", [], 1),
        ("10", "1 2", "7", [], 1),
        ("10", "0x1", "7", [], 1),
        ("10", "1e3", "7", [], 1),
        ("10", "9" * 16, "7", [], 1),
        ("10", "18446744073709551615", "7", [], 1),
        ("1000/hour", "1", "7", [Hint(1, 7 * SECOND, None, None, None)], 1),
        ("10;w=0", "1", "7", [Hint(1, 7 * SECOND, 10, None, None)], 1),
        ("10;;w=1", "1", "7", [Hint(1, 7 * SECOND, None, None, None)], 1),
        # what doesn't pair up
        ("10", "1, 2", "7", [Hint(1, None, None, None, None), Hint(2, None, None, None, None)], 2),
        ("10, 20", "1", "7", [Hint(1, 7 * SECOND, None, None, None)], 1),
        ("10, 20", "1, x", "7, 8", [Hint(1, 7 * SECOND, 10, None, None)], 1),
        ("10", "1", "Tue, 27 Jan 2026 12:00:00 GMT", [Hint(1, None, 10, None, None)], 3),
    ],
)
def test_malformed_values(limit: str, remaining: str, reset: str, expected: list[Hint], malformed: int) -> None:
    """What can't be read is counted, and what stands beside it still counts."""
    headers = {"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset}
    assert hints(headers) == (expected, malformed)


# -- when it resets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # lengths of time
        ("6m0s", 6 * MINUTE),
        ("1s", SECOND),
        ("120ms", 120 * MILLISECOND),
        ("1m30.951s", MINUTE + 30_951 * MILLISECOND),
        ("0h2m3.5s", 2 * MINUTE + 3_500 * MILLISECOND),
        ("1h2m3.5s", LONGEST_RESET),
        ("59m59.999999999s", HOUR - 1),
        ("1d", LONGEST_RESET),
        ("0.01d", 864 * SECOND),
        ("0.25h", 15 * MINUTE),
        ("5us", 5 * MICROSECOND),
        ("5\u00b5s", 5 * MICROSECOND),
        ("5\u03bcs", 5 * MICROSECOND),
        ("5\u00c2\u00b5s", 5 * MICROSECOND),
        ("7ns", 7),
        ("0.5ns", 0),
        ("0s", 0),
        (" 2m \t", 2 * MINUTE),
        # seconds
        ("30", 30 * SECOND),
        ("1.5", 1_500 * MILLISECOND),
        ("0", 0),
        ("0.000000001", 1),
        ("0.0000000019", 1),
        ("3599.999999999", HOUR - 1),
        ("3601", LONGEST_RESET),
        ("999999999", LONGEST_RESET),
        # instants: NOW is 1769515140
        ("1769515200", MINUTE),
        ("1769515200.5", MINUTE + SECOND // 2),
        ("1769515140", 0),
        ("1000000000", 0),
        ("1769515139.999", 0),
        ("1769599999", LONGEST_RESET),
        ("1769515200000", MINUTE),
        ("1769515140001", MILLISECOND),
        ("1000000000000", 0),
        ("999999999999999", LONGEST_RESET),
        # RFC 3339
        ("2026-01-27T12:00:00Z", MINUTE),
        ("2026-01-27t12:00:00z", MINUTE),
        ("2026-01-27 12:00:00Z", MINUTE),
        ("2026-01-27T12:00:00.25Z", MINUTE + SECOND // 4),
        ("2026-01-27T12:00:00.123456789Z", MINUTE + 123_456 * MICROSECOND),
        ("2026-01-27T13:00:00+01:00", MINUTE),
        ("2026-01-27T06:30:00-05:30", MINUTE),
        ("2026-01-27T11:59:60Z", MINUTE),
        ("2026-01-27T11:58:00Z", 0),
        ("0001-01-01T00:00:00+23:59", 0),
        ("9999-12-31T23:59:59.999999-23:59", LONGEST_RESET),
    ],
)
def test_reset(text: str, expected: int) -> None:
    """A length of time or an instant; the past is now, and nothing lasts longer than LONGEST_RESET."""
    assert reset_in(text, NOW) == expected
    assert reset_in(text, NOW.astimezone(timezone(timedelta(hours=9)))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "-1",
        "-1s",
        "+1",
        "1.",
        ".5",
        "1e3",
        "1 s",
        "1s ago",
        "s",
        "1h2",
        "1x",
        "1S",
        "1_0",
        "١",  # a digit to Python, and not in HTTP  # noqa: RUF001
        "nan",
        "inf",
        "9" * 16,
        "9" * 13 + "s",
        "1s" * 33,
        "1,5",
        "2026-01-27",
        "2026-01-27T12:00:00",
        "2026-01-27T12:00Z",
        "2026-13-27T12:00:00Z",
        "2026-02-29T12:00:00Z",
        "2026-01-27T24:00:00Z",
        "2026-01-27T12:00:61Z",
        "2026-01-27T12:00:00+24:00",
        "2026-01-27T12:00:00+0100",
        "0000-01-27T12:00:00Z",
        "9999-12-31T23:59:60Z",
        "20260127T120000Z",
        "2026-W05-2T12:00:00Z",
        "\x00",
    ],
)
def test_reset_that_cannot_be_read(text: str) -> None:
    """What is no length of time and no instant is None, and never raises."""
    assert reset_in(text, NOW) is None


# -- whatever comes ------------------------------------------------------------------------------

_words = st.sampled_from(["limit", "remaining", "reset", "requests", "tokens", "minute", "day", "", "policy", "used"])
_names = (
    st.sampled_from(
        ["ratelimit", "ratelimit-policy", "ratelimit-remaining", "x-ratelimit-remaining", "x-ratelimit-reset"]
    )
    | st.builds(
        lambda prefix, words: prefix + "-".join(words),
        st.sampled_from(["ratelimit-", "x-ratelimit-", "x-rate-limit-", "anthropic-ratelimit-", "rate"]),
        st.lists(_words, max_size=4),
    )
    | st.text(max_size=12)
)
_values = (
    st.text(max_size=40)
    | st.text('0123456789.,;=-+:TZmshduw"rtq \t\\ab?@%*', max_size=40)
    | st.from_regex(r'\A"[ab]";[rtqw]=[0-9]{1,3}(;(t|w|qu|q)=("requests"|[0-9]{1,3}))?(, ?"a";r=1)?\Z')
    | st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})\Z")
    | st.integers(min_value=-5).map(str)
)


@settings(deadline=None, print_blob=True)
@given(st.dictionaries(_names, _values, max_size=8))
@example({"ratelimit": '"a";r=\udcff'})
@example({"x-ratelimit-remaining": "\udcff", "x-ratelimit-reset": "9" * 400 + "." + "9" * 400})
def test_no_header_can_break_it(headers: dict[str, str]) -> None:
    """Whatever an upstream sends makes bounded hints or none."""
    found, malformed = hints(headers)
    assert 0 <= malformed <= sum(3 * (value.count(",") + value.count(";") + 1) for value in headers.values())
    for hint in found:
        assert 0 <= hint.remaining <= LARGEST
        assert hint.reset_in is None or 0 <= hint.reset_in <= LONGEST_RESET
        assert hint.max is None or 0 <= hint.max <= LARGEST
        assert hint.per is None or 0 < hint.per <= LARGEST * SECOND


def test_a_list_of_more_items_than_any_upstream_sends_is_malformed() -> None:
    """The work is bounded: such a list is counted and not read."""
    assert len(hints({"x-ratelimit-remaining": ", ".join(["1"] * MOST_ITEMS)})[0]) == MOST_ITEMS
    assert len(hints({"ratelimit": ", ".join(['"a";r=1'] * MOST_ITEMS)})[0]) == MOST_ITEMS
    assert hints({"x-ratelimit-remaining": ", ".join(["1"] * (MOST_ITEMS + 1))}) == ([], 1)
    assert hints({"ratelimit": ", ".join(['"a";r=1'] * (MOST_ITEMS + 1))}) == ([], 1)


@pytest.mark.parametrize("name", ["ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-ratelimit-limit"])
@pytest.mark.parametrize(
    "piece", ["9", "a", '"', ":", " ", "a;", "1;", "1,", '"a",', "1s", "\\", "a=", "%", ";w=1", "ä"]
)
def test_a_huge_value_is_not_looked_at(name: str, piece: str) -> None:
    """One that is too long is malformed as a whole, by its length alone; none as long as allowed takes for ever."""
    longest = (piece * LONGEST_VALUE)[:LONGEST_VALUE]
    hints({name: longest, "x-ratelimit-reset": longest})  # a careless pattern would run into the test's timeout
    assert hints({name: Untouched("1" + piece * LONGEST_VALUE)}) == ([], 1)


def test_a_value_as_long_as_allowed_is_read() -> None:
    """The bound on the length of a value is inclusive."""
    text = '"a";r=5;x="' + "y" * (LONGEST_VALUE - 12) + '"'
    assert len(text) == LONGEST_VALUE
    assert read({"ratelimit": text}) == [Hint(5, None, None, None, None)]


class Untouched(str):
    """A text of which nothing but the length may be asked."""

    __slots__ = ()

    def split(self, *_: object) -> NoReturn:
        raise AssertionError("looked at")

    strip = partition = split


class Counted(Headers):
    """Headers that count how often a value is looked up."""

    looked_up = 0

    def __getitem__(self, name: str) -> str:
        self.looked_up += 1
        return super().__getitem__(name)

    def at(self, place: int) -> str:
        self.looked_up += 1
        return super().at(place)


def test_an_answer_without_hints_costs_its_names_only() -> None:
    """No value is looked at unless its header's name may speak of a limit."""
    headers = Counted(("content-type", "server", "date"), ("text/plain", "nginx", "Tue, 27 Jan 2026 12:00:00 GMT"))
    assert hints_module.hints(headers, NOW) == ([], 0)
    assert headers.looked_up == 0
    headers = Counted(("x-ratelimit-remaining",), ("1",))
    assert hints_module.hints(headers, NOW) == ([Hint(1, None, None, None, None)], 0)
    assert headers.looked_up > 0


def test_a_repeated_header_is_read_once_with_all_its_values() -> None:
    """However often it came: the work is bounded."""
    headers = Counted(("x-ratelimit-remaining",) * 3, ("5", "3", "4"))
    once = Counted(("x-ratelimit-remaining",), ("5, 3, 4",))
    assert hints_module.hints(headers, NOW) == hints_module.hints(once, NOW)
    assert headers.looked_up == 1


def test_names_that_an_upstream_invents_fill_no_memory() -> None:
    """What is kept of names has an end, and no long name gets in."""
    hintplan.place_of.cache_clear()
    hintplan.plans.clear()
    for number in range(1000):
        hints({f"x-ratelimit-{number}-{'x' * 3000}": "1"})
    assert hintplan.place_of.cache_info().currsize == len(hintplan.plans) == 0
    for number in range(1000):
        hints({f"x-ratelimit-{number}": "1"})
    assert 0 < hintplan.place_of.cache_info().currsize <= 256
    assert 0 < len(hintplan.plans) <= 64
