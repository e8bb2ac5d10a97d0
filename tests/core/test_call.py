"""Which calls may run twice."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.call import decoded, may_run_twice
from apiflux_grpc.core.rules import CallRule

CHAT = CallRule(("POST",), ("/v1/chat/", "/v1/embeddings"))


@pytest.mark.parametrize(
    ("method", "path", "rules", "expected"),
    [
        ("GET", "/v1/files", [], True),
        ("DELETE", "/v1/files", [CHAT], True),
        ("POST", "/v1/chat/completions", [], False),
        ("POST", "/v1/chat/completions", [CHAT], True),
        ("POST", "v1/chat/completions", [CHAT], True),
        ("POST", "/v1/%63hat/completions", [CHAT], True),
        ("POST", "/v1/chat%2Fcompletions", [CHAT], True),
        ("POST", "/v1/chat", [CHAT], False),
        ("POST", "/v2/v1/chat/", [CHAT], False),
        ("PATCH", "/v1/chat/completions", [CHAT], False),
        ("PATCH", "/v1/chat/completions", [CHAT, CallRule(("PATCH",))], True),
        ("PATCH", "", [CallRule((), ("/",))], True),
        ("POST", "/any", [CallRule()], True),
    ],
)
def test_a_call_may_run_twice_by_its_method_or_a_rule(
    method: str, path: str, rules: list[CallRule], expected: bool
) -> None:
    """A rule holds for one of its methods and one of its beginnings of paths; without any, for all."""
    assert may_run_twice(method, path, rules) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", "/"), ("a/b", "/a/b"), ("/a%20b", "/a b"), ("/%C3%A9", "/é"), ("/%ff", "/\ufffd"), ("%2Fa", "/a")],
)
def test_a_path_is_compared_as_the_upstream_reads_it(path: str, expected: str) -> None:
    """Decoded, and with a slash in front."""
    assert decoded(path) == expected
