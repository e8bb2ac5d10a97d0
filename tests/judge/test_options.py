"""Every documented form of an option is read exactly; what can't be read is refused without showing a secret."""

from collections.abc import Callable
from typing import Any

import pytest

from apiflux_grpc.judge.faults import (
    Rejection,
    parse_chances,
    parse_rejections,
)
from apiflux_grpc.judge.limits import Limit, parse_limit
from apiflux_grpc.judge.options import (
    JudgeOptions,
    parse_bind,
    parse_cost_in,
    parse_key_in,
    parse_keys,
    parse_latency,
)
from apiflux_grpc.judge.places import CostIn
from apiflux_grpc.judge.process import from_line, to_line
from tests.judge.wires import MINUTE, SECRET


@pytest.mark.parametrize(
    ("parse", "text", "meaning"),
    [
        (parse_limit, "1000/60s", Limit(1000, MINUTE)),
        (parse_limit, "10/1.5m", Limit(10, 3 * MINUTE // 2)),
        (parse_limit, "9/1m:cost", Limit(9, MINUTE, "cost")),
        (parse_limit, "9/1m:fixed", Limit(9, MINUTE, "calls", "fixed")),
        (parse_limit, "9/1m:bucket=4", Limit(9, MINUTE, "calls", "bucket", 4)),
        (parse_limit, "9/1m:bucket=4:cost", Limit(9, MINUTE, "cost", "bucket", 4)),
        (parse_cost_in, "header:X-Tokens", ("header", "X-Tokens")),
        (parse_cost_in, "json:usage.max_tokens", ("json", "usage.max_tokens")),
        (parse_latency, "0", (0, 0)),
        (parse_latency, "20ms", (20_000_000, 20_000_000)),
        (parse_latency, "0..5ns", (0, 5)),
        (parse_key_in, "header:X-Key", ("header", "X-Key")),
        (parse_key_in, "bearer", ("bearer", "Authorization")),
        (parse_key_in, "query:key", ("query", "key")),
        (parse_bind, "127.0.0.1:0", ("127.0.0.1", 0)),
        (parse_bind, "[::1]:8900", ("::1", 8900)),
        (parse_keys, ["a", "two=b", "YQ=="], {"key-1": "a", "two": "b", "key-3": "YQ=="}),
    ],
)
def test_options_are_read(parse: Callable[[Any], object], text: object, meaning: object) -> None:
    """Every documented form of an option has one exact meaning."""
    assert parse(text) == meaning


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parse_limit, text) for text in ("", "10", "0/1s", "-1/1s", "1.5/1s", "10/0s", "10/60")),
        *(
            (parse_limit, f"10/1s:{words}")
            for words in ("", "costs", "cost:cost", "fixed:bucket=1", "bucket", "bucket=0")
        ),
        *((parse_cost_in, text) for text in ("", "json", "json:", "json:a..b", "query:a")),
        *((parse_latency, text) for text in ("", "5", "5ms..", "..5ms", "9ms..1ms")),
        *((parse_key_in, text) for text in ("", "header", "header:", "bearer:", "cookie:key")),
        *((parse_bind, text) for text in ("", "8900", ":8900", "host:", "host:x", "host:65536")),
    ],
)
def test_a_bad_option_is_named(parse: Callable[[str], object], text: str) -> None:
    """An option that can't be read is refused with its text and the form that it must have."""
    with pytest.raises(ValueError, match=r"must be|is missing|has no port") as refused:
        parse(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("texts", [[""], ["="], [f"={SECRET}"], [SECRET, SECRET], [f"a={SECRET}", "a=b"]])
def test_a_bad_key_is_named_by_its_place(texts: list[str]) -> None:
    """A key that can't be taken is refused without showing it."""
    with pytest.raises(ValueError, match=r"^key [12]: ") as refused:
        parse_keys(texts)
    assert SECRET not in str(refused.value)


def test_a_rejection_of_no_key_is_refused() -> None:
    """Options that reject a key which isn't configured are a mistake."""
    with pytest.raises(ValueError, match="rejections: no key has the label 'beta'"):
        JudgeOptions({"alpha": SECRET}, rejections=(Rejection("beta", first=1),))


@pytest.mark.parametrize(("name", "value"), [("headers", "rfc"), ("others", 1.5), ("others", -0.1)])
def test_an_impossible_option_is_refused(name: str, value: object) -> None:
    """An unknown dialect, and a share that is none, are refused by name."""
    with pytest.raises(ValueError, match=f"^{name}: "):
        JudgeOptions({"alpha": SECRET}, **{name: value})  # type: ignore[arg-type]


def test_everything_reaches_a_process() -> None:
    """All that the options say of faults reaches the judge's process unchanged."""

    texts = ["slow;size=2;every=1ms=0.5", "503;retry-date=1=0.25", "redirect;to=http://x/=0.1"]
    options = JudgeOptions(
        {"a": "1"},
        (Limit(1, 2), Limit(9, 3, "cost", "bucket", 4)),
        faults=parse_chances(texts),
        rejections=parse_rejections(["a=1s..2s", "a=3;503;retry-date=1"], "a"),
        seed=5,
        cost_in=CostIn("json", "n"),
        headers="github",
        others=0.25,
    )
    assert from_line(to_line(options, 3)) == (options, 3)
