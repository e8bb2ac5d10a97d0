"""What headers say is left of a limit: every spelling."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.cost import LARGEST_COST as LARGEST
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.core.waits import LONGEST_RESET
from tests.core.reading import HOUR, MINUTE, read

DAY: Final = 24 * HOUR
CALLS: Final = Counts.CALLS
COST: Final = Counts.COST


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
