"""Headers of limits with faults: what can't be read is counted, and nothing that is sent breaks the reader."""

from __future__ import annotations

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
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.waits import LONGEST_RESET
from tests.core.reading import MINUTE, NOW, hints, read

CALLS: Final = Counts.CALLS


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


@settings(print_blob=True)
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
