"""A caller's own methods and paths narrow what its pool allows."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.caller_checks import CallerChecks, checks_for, common_paths
from apiflux_grpc.core.callers import Access
from apiflux_grpc.core.checks import Checks
from apiflux_grpc.core.model import Key, Pool

POOL = Pool("p", (Key("k", "s", ()),), allow_paths=("/v1/",))
ACCESS = Access(methods=frozenset({"GET", "HEAD"}), paths=("/v1/a/", "/v2/"))


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("", "/v1/a/x", []),
        ("HEAD", "v1/a/x", []),
        ("POST", "/v1/a/x", ["method"]),
        ("GET", "/v1/b", ["path"]),
        ("GET", "/v2/x", ["path"]),  # the pool's rule
        ("GET", "/v1/%61/x", ["path"]),  # another way to write it isn't looked through
        ("PUT", "/v1/a", ["method", "path"]),
    ],
)
def test_a_call_must_be_allowed_by_both(method: str, path: str, fields: list[str]) -> None:
    """Each fault names its field, and says what is allowed."""
    faults = checks_for(POOL, ACCESS).call("", method, path, (), (), None, None)
    assert [fault.field for fault in faults] == fields


def test_who_may_all_has_the_checks_of_the_pool() -> None:
    """Nothing is done for each call of who isn't narrowed."""
    assert type(checks_for(POOL, Access(pools=frozenset({"p"})))) is Checks
    assert type(checks_for(POOL, ACCESS)) is CallerChecks


@pytest.mark.parametrize(
    ("some", "others", "both"),
    [
        ((), ("/a",), ("/a",)),
        (("/a",), (), ("/a",)),
        (("/a/", "/b/"), ("/a/x", "/c"), ("/a/x",)),
        (("/a/x",), ("/", "/a/"), ("/a/x",)),
        (("/a",), ("/b",), ()),
    ],
)
def test_paths_that_both_allow(some: tuple[str, ...], others: tuple[str, ...], both: tuple[str, ...]) -> None:
    """The longer of each pair of which one begins with the other."""
    assert common_paths(some, others) == both
