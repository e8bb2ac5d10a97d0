"""`apiflux process` over TLS, with a token from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import trustme

from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from tests.e2e.commands import indexes, rows_in, run


class Answering(apiflux_pb2_grpc.FluxServiceServicer):
    """Answers every call of a stream with 200."""

    Process = Estimate = None  # type: ignore[assignment]  # never asked for
    token: str | None = None

    def ProcessStream(self, request_iterator: Any, context: Any) -> Iterator[pb.ProcessResponse]:  # noqa: N802
        self.token = dict(context.invocation_metadata()).get("authorization")
        count = 0
        for request in request_iterator:
            for _ in request.calls:
                yield pb.ProcessResponse(
                    results=[pb.CallResult(index=count, response=pb.HttpResponse(status_code=200))]
                )
                count += 1
        yield pb.ProcessResponse(summary=pb.Summary(total=count, succeeded=count))

    def GetInfo(self, request: Any, context: Any) -> pb.GetInfoResponse:  # noqa: N802
        return pb.GetInfoResponse(pools=[pb.PoolInfo(name="only")], default_pool="only")


def test_process_over_tls(tmp_path: Path) -> None:
    """With --ca-file the results come; half a certificate is bad usage, and the token is never shown."""
    ca = trustme.CA()
    cert = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
    service = Answering()
    server = grpc.server(ThreadPoolExecutor(2))
    apiflux_pb2_grpc.add_FluxServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call,unused-ignore]
    credentials = grpc.ssl_server_credentials([(cert.private_key_pem.bytes(), chain)])
    target = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    server.start()
    calls = '{"path": "/1"}\n{"path": "/2"}\n'
    try:
        good, half, missing, strange = (
            run(
                "process",
                "-",
                "--target",
                target,
                *options,
                stdin=calls,
                cwd=tmp_path,
                environ={"APIFLUX_TOKEN": "canary-e07d"},
            )
            for options in (
                ("--ca-file", "ca.pem"),
                ("--cert-file", "ca.pem"),
                ("--ca-file", "missing.pem"),
                ("--tls",),
            )
        )
    finally:
        server.stop(None).wait()
    assert good.returncode == 0, good.stderr
    assert indexes(rows_in(good.stdout)) == [0, 1]
    assert service.token == "Bearer canary-e07d"
    assert (half.returncode, missing.returncode, strange.returncode) == (2, 2, 4)
    assert "key_file" in half.stderr
    assert "can't read missing.pem" in missing.stderr
    for done in (good, half, missing, strange):
        assert "canary" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
