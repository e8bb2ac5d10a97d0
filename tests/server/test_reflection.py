"""Server reflection: what is served, for tools that ask."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from apiflux_grpc.client import Client
from tests.server.serving import connected, serving


async def test_reflection_finds_a_method() -> None:
    """ghz looks up the method as a symbol; an unknown one is still not found."""
    async with serving() as server, connected(server) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # it takes both kinds
        names = ("apiflux.v1.FluxService", "apiflux.v1.FluxService.Process", "apiflux.v1.FluxService.Nothing")
        requests = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert [answer.HasField("file_descriptor_response") for answer in answers] == [True, True, False]


async def test_the_contract_has_the_name_of_its_file() -> None:
    """It is the path below protos/ that protoc reads, so stubs made either way fit into one program."""
    async with serving() as server, connected(server) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # it takes both kinds
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="apiflux.v1.FluxService")
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(iter([asked]))]
    described = [FileDescriptorProto.FromString(one) for one in answer.file_descriptor_response.file_descriptor_proto]
    names = {file.name: list(file.dependency) for file in described}
    assert names["apiflux/v1/apiflux.proto"] == [
        "google/protobuf/duration.proto",
        "google/protobuf/timestamp.proto",
        "google/rpc/status.proto",
    ]


async def test_reflection_can_be_switched_off() -> None:
    """Then nobody can ask what is served; the service itself is there."""
    async with serving(with_reflection=False) as server, Client(server.address) as client:
        async with connected(server) as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # it takes both kinds
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest()])):
                    pass
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert (await anext(client.repeat(1))).ok
