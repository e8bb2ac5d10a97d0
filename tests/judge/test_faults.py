"""Every documented form of a fault is read exactly, and any other is refused with what was expected."""

import pytest

from apiflux_grpc.judge.faults import (
    ELSEWHERE,
    Chance,
    Fault,
    Rejection,
    parse_chances,
    parse_fault,
    parse_rejections,
)
from tests.judge.wires import MINUTE, SECOND


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("500", Fault("500")),
        ("503;retry-after=2", Fault("503", retry_after=2)),
        (" 429 ; retry-date=-2 ", Fault("429", retry_after=-2, as_date=True)),
        ("ok", Fault("ok")),
        ("hang", Fault("hang")),
        ("redirect", Fault("redirect", to=ELSEWHERE)),
        ("redirect;to=https://other.example:8443/a?b=c", Fault("redirect", to="https://other.example:8443/a?b=c")),
        ("cut;size=10", Fault("cut", size=10)),
        ("slow;size=3;every=20ms", Fault("slow", size=3, every_ns=20_000_000)),
        ("huge;size=2MiB", Fault("huge", size=2 << 20)),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    """Every documented form of a fault has one exact meaning."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        *("", "200", "600", "430", "teapot", "500;", "500;retry-after", "500;retry-after=2s", "500;retry-after=-1"),
        *("500;size=1", "hang;size=1", "cut;every=1s", "huge;size=0", "huge;size=1MB", "slow;every=1"),
        *("redirect;to=other.example", "redirect;to=http://a b", "redirect;to=http://a\r\nX: y", "429;retry-date=soon"),
    ],
)
def test_a_bad_fault_is_named(text: str) -> None:
    """A fault that can't be read is refused with its text and the form that it must have."""
    with pytest.raises(ValueError, match=r"must be|takes|use a status") as refused:
        parse_fault(text)
    assert repr(text) in str(refused.value)


def test_chances_are_read() -> None:
    """The probability comes after the last `=`, so that a fault may have parameters."""
    assert parse_chances(["500=0.01", "slow;size=9=0.5"]) == (
        Chance(Fault("500"), 0.01),
        Chance(Fault("slow", size=9, every_ns=SECOND // 10), 0.5),
    )


@pytest.mark.parametrize("text", ["500", "=0.1", "500=", "500=0", "500=1.1", "500=-1", "500=nan", "500=x", "no=0.1"])
def test_a_bad_chance_is_named_by_its_place(text: str) -> None:
    """A chance that can't be read is refused with its position."""
    with pytest.raises(ValueError, match=r"^fault 2: .*(must be|use a status)"):
        parse_chances(["hang=0.1", text])


def test_chances_are_at_most_one_together() -> None:
    """Probabilities that sum up to more than 1 are refused; a sum is taken without its rounding errors."""
    assert len(parse_chances(["500=0.8", *["hang=0.05"] * 4])) == 5
    with pytest.raises(ValueError, match=r"fault 2: the probabilities add up to 1\.1; at most 1 is possible"):
        parse_chances(["500=0.6", "hang=0.5"])


def test_rejections_are_read() -> None:
    """A rejection is a span since the start or a number of calls, for a label that may contain `=`."""
    texts = ["a=2s..5s", "b=x=0..1m", "a=3"]
    assert parse_rejections(texts, ["a", "b=x"]) == (
        Rejection("a", from_ns=2 * SECOND, until_ns=5 * SECOND),
        Rejection("b=x", until_ns=MINUTE),
        Rejection("a", first=3),
    )


@pytest.mark.parametrize("text", ["", "a", "a=", "b=3", "=3", "a=0", "a=x", "a=5s", "a=5s..2s", "a=..5s", "a=2s.."])
def test_a_bad_rejection_is_named_by_its_place(text: str) -> None:
    """A rejection that can't be read, or of a label that no key has, is refused with its position."""
    with pytest.raises(ValueError, match=r"^rejection 2: .*must be LABEL="):
        parse_rejections(["a=1", text], ["a"])
