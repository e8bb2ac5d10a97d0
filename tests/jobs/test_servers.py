"""The servers of a job in words."""

from __future__ import annotations

import grpc
import pytest

from apiflux_grpc.client import Overloaded, Unavailable
from apiflux_grpc.client.same_pool import OtherPool
from apiflux_grpc.jobs.servers import Servers, all_of


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["a:1"], "a:1"),
        (["a:1", "b:1"], "a:1 and b:1"),
        (["a:1", "b:1", "c:1"], "a:1, b:1 and c:1"),
        (["a:1", "b:1", "c:1", "d:1"], "a:1, b:1 and 2 others"),
    ],
)
def test_a_few_are_named_and_many_counted(targets: list[str], words: str) -> None:
    """So that the first line of a job stays one."""
    assert all_of(targets) == words
    assert all_of(targets[:2], "or") in ("a:1", "a:1 or b:1")


def test_what_becomes_of_each_server_is_told_once() -> None:
    """That it is lost, why, and that it is there again; however often it is tried meanwhile."""
    said: list[str] = []
    now = 0.0
    servers = Servers(said.append, lambda: now)
    servers.are(lambda: ["a:1", "b:1", "c:1", "d:1"])
    gone = Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE)
    servers.changed("a:1", None)
    assert said == []
    servers.changed("a:1", gone)
    servers.changed("a:1", gone)
    servers.changed("b:1", Unavailable("draining", code=grpc.StatusCode.UNAVAILABLE, reason="DRAINING"))
    servers.changed("c:1", Overloaded("full", code=grpc.StatusCode.RESOURCE_EXHAUSTED))
    now = 3.0
    servers.changed("a:1", None)
    servers.changed("a:1", gone)
    servers.changed("a:1", OtherPool("a:1 and b:1 differ", code=grpc.StatusCode.FAILED_PRECONDITION))
    assert said == [
        "a:1 is not there (UNAVAILABLE: gone); the others go on",
        "b:1 is shutting down; the others go on",
        "c:1 takes no more for now (RESOURCE_EXHAUSTED: full); the others go on",
        "a:1 is there after 3 s",
        "a:1 is not there (UNAVAILABLE: gone); the others go on",
        "a:1 is left out: a:1 and b:1 differ; the others go on",
    ]


def test_others_go_on_only_if_there_are_any() -> None:
    """Not if a name has one address, nor when the last of several is lost; one that came later counts."""
    said: list[str] = []
    there = ["a:1"]
    servers = Servers(said.append, lambda: 0.0)
    servers.are(lambda: there)
    gone = Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE)
    servers.changed("a:1", gone)
    servers.changed("a:1", None)
    there.append("b:1")
    servers.changed("a:1", gone)
    servers.changed("b:1", gone)
    assert [line for line in said if "not there" in line] == [
        "a:1 is not there (UNAVAILABLE: gone)",
        "a:1 is not there (UNAVAILABLE: gone); the others go on",
        "b:1 is not there (UNAVAILABLE: gone)",
    ]
