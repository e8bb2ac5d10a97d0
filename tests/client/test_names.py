"""Targets that are names: all servers that have one, those that come and go, and what a target may not be."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import Client, Unavailable
from apiflux_grpc.client import roster as in_roster
from apiflux_grpc.client import targets as in_targets
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.scripted import answers, answers_all, gets, scripted
from tests.client.test_spreading import take_all


class Names:
    """A resolver of one name: it has whatever a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
        self.hosts = hosts
        self.asked = threading.Event()
        monkeypatch.setattr(in_targets, "lookup", self._lookup)

    def _lookup(self, name: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
        assert name == "replicas.example"
        self.asked.set()
        if not self.hosts:
            raise OSError("no such name")
        return [(socket.AF_INET6 if ":" in host else socket.AF_INET, host) for host in self.hosts]


async def test_one_name_is_all_servers_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of one family, each a server of its own."""
    Names(monkeypatch, "127.0.0.2", "127.0.0.1", "127.0.0.1", "::1")
    async with Client("dns:///replicas.example:50051") as client:
        assert client.targets == ["127.0.0.1:50051", "127.0.0.2:50051"]


@pytest.mark.parametrize("why", ["now and then", "a connection is lost"])
async def test_a_server_that_a_name_has_later_gets_work(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """The name is asked now and then, and when a connection is lost."""
    monkeypatch.setattr(in_roster, "LOOK_EVERY", 0.01 if why == "now and then" else 3600)
    monkeypatch.setattr(in_roster, "LOOK_PAUSE", 0.01)
    names = Names(monkeypatch, "127.0.0.1")
    begun, there = asyncio.Event(), asyncio.Event()

    async def waits_for_the_other(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        begun.set()
        await there.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        yield pb.ProcessResponse()

    async def comes(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        there.set()
        async for message in answers_all(requests, context):
            yield message

    async with scripted(waits_for_the_other if why == "now and then" else answers(3)) as (first, _):
        port = port_of(first)
        async with (
            scripted(comes, host="127.0.0.2", port=port) as (_, second),
            Client(f"dns:///replicas.example:{port}") as client,
        ):
            assert client.targets == [first]
            reading = asyncio.create_task(take_all(client.process_stream(gets(100), resume=True)))
            if why == "now and then":
                await begun.wait()
            names.hosts = ("127.0.0.2",)
            results = await reading
            assert client.targets == [f"127.0.0.2:{port}"]
            assert second.connections == 1
    assert sorted(item.index for item in results) == list(range(100))


async def test_a_name_that_has_no_address_for_a_while_keeps_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be asked says nothing about them; any request has a name asked again, and doesn't wait for that."""
    names = Names(monkeypatch, "127.0.0.1")
    async with scripted(answers_all) as (target, _), Client(f"dns:///replicas.example:{port_of(target)}") as client:
        names.hosts = ()
        names.asked.clear()
        monkeypatch.setattr(in_roster, "LOOK_EVERY", -1.0)
        await client.info()
        await asyncio.to_thread(names.asked.wait, 30)
        monkeypatch.undo()
        assert len(await take_all(client.process_stream(gets(3), resume=True))) == 3
        assert client.targets == [target]


def port_of(target: str) -> int:
    return int(target.rpartition(":")[2])


async def test_a_name_without_an_address_is_unavailable() -> None:
    """As a server that isn't there."""
    with pytest.raises(Unavailable, match=r"the name nowhere\.invalid has no address"):
        await Client("dns:///nowhere.invalid:50051").__aenter__()


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("a:1,a:1", "the target a:1 is there twice; name each server once"),
        (["a:1", "A:1"], "the target A:1 is there twice"),
        ([], "there must be at least one target"),
        ("a:1,", "the target '' has no port"),
        ("", "the target '' has no port"),
        (["a:1", "nonsense"], "the target 'nonsense' has no port"),
        ([f"a:{port}" for port in range(1, 102)], "there can be at most 100 targets"),
        ("dns:///nonsense", "the target 'nonsense' has no port"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets: str | list[str], words: str) -> None:
    """Before anything is connected."""
    with pytest.raises(ValueError, match=words):
        Client(targets)
