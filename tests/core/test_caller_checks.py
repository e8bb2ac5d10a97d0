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
        ("GET", "/v1/a/..%2fb", ["path"]),
        ("GET", "/v1/a/x%5C..%5c..%5cb", ["path"]),
        ("GET", "/v1/a/..;x=1/b", ["path"]),
        ("GET", "v1/a/.%2E%3b/b", ["path"]),
        ("GET", "/v1/a/x%2f..", ["path"]),
        ("GET", "/v1/a/a..b;c/..d/%2f", []),
    ],
)
def test_a_call_must_be_allowed_by_both(method: str, path: str, fields: list[str]) -> None:
    """Each fault names its field, and says what is allowed."""
    faults = checks_for(POOL, ACCESS).call("", method, path, (), (), None, None)
    assert [fault.field for fault in faults] == fields


@pytest.mark.parametrize("path", ["/v1/..%2fadmin", "/v1/x%2F%2e./admin", "/v1/..;/admin", "v1/x%5c.."])
def test_no_path_leads_out_of_its_prefix(path: str) -> None:
    """Nor at a server that takes an escaped slash for one, or leaves out what follows a semicolon: of a pool's prefixes
    or of a caller's, in one fault. Where no prefix is asked for, none is looked at."""
    free = Pool("p", POOL.keys)
    for pool, access in ((POOL, Access()), (free, Access(paths=("/v1/",))), (POOL, Access(paths=("/",)))):
        faults = checks_for(pool, access).call("", "GET", path, (), (), None, None)
        assert [(fault.field, fault.text[:5]) for fault in faults] == [("path", "has a")]
    assert checks_for(free, Access()).call("", "GET", path, (), (), None, None) == []


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
