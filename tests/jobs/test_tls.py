"""`apiflux process` over TLS, with a token from the environment."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import trustme

from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc


class Answering(apiflux_pb2_grpc.FluxServiceServicer):
    """Answers every call of a stream with 200."""

    Process = Estimate = GetInfo = None  # type: ignore[assignment]  # never asked for
    token: str | None = None

    async def ProcessStream(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[pb.ProcessResponse]:
        self.token = dict(context.invocation_metadata()).get("authorization")
        count = 0
        async for request in request_iterator:
            for _ in request.calls:
                yield pb.ProcessResponse(
                    results=[pb.CallResult(index=count, response=pb.HttpResponse(status_code=200))]
                )
                count += 1
        yield pb.ProcessResponse(summary=pb.Summary(total=count, succeeded=count))


async def test_process_over_tls(tmp_path: Path) -> None:
    """With --ca-file the results come; half a certificate is bad usage, and the token is never shown."""
    ca = trustme.CA()
    cert = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
    service = Answering()
    server = grpc.aio.server()
    apiflux_pb2_grpc.add_FluxServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call,unused-ignore]
    credentials = grpc.ssl_server_credentials([(cert.private_key_pem.bytes(), chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "apiflux_grpc", "process", "-", "--target", f"localhost:{port}", *options]
        environ = os.environ | {"APIFLUX_TOKEN": "canary-e07d", "COLUMNS": "300"}
        calls = '{"path": "/1"}\n{"path": "/2"}\n'
        return subprocess.run(
            command, input=calls, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path, env=environ
        )

    try:
        good, half, missing, strange = await asyncio.gather(
            asyncio.to_thread(run, "--ca-file", "ca.pem"),
            asyncio.to_thread(run, "--cert-file", "ca.pem"),
            asyncio.to_thread(run, "--ca-file", "missing.pem"),
            asyncio.to_thread(run, "--tls"),
        )
    finally:
        await server.stop(None)
    assert good.returncode == 0, good.stderr
    assert [json.loads(line)["index"] for line in good.stdout.splitlines()] == [0, 1]
    assert service.token == "Bearer canary-e07d"
    assert (half.returncode, missing.returncode, strange.returncode) == (2, 2, 4)
    assert "key_file" in half.stderr
    assert "can't read missing.pem" in missing.stderr
    for done in (good, half, missing, strange):
        assert "canary" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
