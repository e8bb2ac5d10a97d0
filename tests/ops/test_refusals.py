"""What POST /process doesn't take is refused as the RPC refuses it, as a problem document, and runs nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.server.defaults import Defaults
from tests.ops.ports import NOBODY, ops_served, problem_in
from tests.server.serving import Held, until

BATCH: Any = {"calls": [{}]}
SMALL = Defaults(max_batch_calls=3, max_batch_bytes=2_000)


@pytest.mark.parametrize(
    ("body", "status", "reason", "field"),
    [
        ({}, 400, "INVALID_REQUEST", "calls"),
        ({"calls": [{"path": "/a"}, {"path": "//b"}]}, 400, "INVALID_REQUEST", "calls[1].path"),
        ({"calls": [{}], "priority": 9}, 400, "INVALID_REQUEST", "priority"),
        ({"calls": [{"pth": "/a"}]}, 400, "INVALID_REQUEST", "calls[0].pth"),
        ({"calls": [{"body": "{}"}]}, 400, "INVALID_REQUEST", "calls[0].body"),
        (b'{"calls": [{}', 400, "INVALID_REQUEST", "request"),
        (b"\xff", 400, "INVALID_REQUEST", "request"),
        (b"", 400, "INVALID_REQUEST", "request"),
        ({"pool": "no", "calls": [{}]}, 404, "POOL_NOT_FOUND", None),
        ({"calls": [{}] * 4}, 413, "BATCH_TOO_LARGE", "calls"),
        ({"repeat": {"count": 4}}, 413, "BATCH_TOO_LARGE", "repeat.count"),
        ({"calls": [{"body": "a" * 3_600}]}, 413, "BATCH_TOO_LARGE", "calls"),
        (b" " * 4_001, 413, "BATCH_TOO_LARGE", None),
    ],
)
async def test_a_bad_batch_is_refused_as_the_rpc_refuses_it(
    body: object, status: int, reason: str, field: str | None
) -> None:
    """By the same checks, with reason and field path; what can't be read names its place. The next request is fine."""
    async with ops_served(defaults=SMALL) as served:
        answer = await served.post(body)
        problem = await problem_in(answer)
        assert (answer.status, problem["reason"]) == (status, reason)
        assert ("violations" not in problem) if field is None else (problem["violations"][0]["field"] == field)
        assert (await served.post(BATCH)).status == 200


async def test_a_full_queue_says_when_to_come_back() -> None:
    """429 with Retry-After, which is how long the queue takes to drain."""
    upstream = Held()
    async with ops_served(upstream=upstream, bounds=Bounds(batches=1)) as served:
        first = asyncio.ensure_future(served.post(BATCH))
        await until(lambda: len(upstream.open) == 1)
        answer = await served.post(BATCH)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (await problem_in(answer))["reason"] == "TOO_MANY_BATCHES"
        upstream.release()
        assert (await first).status == 200


async def test_only_what_is_asked_for_exists() -> None:
    """404 for another path, 405 with what is allowed for another method, and it says what there is."""
    async with ops_served() as served:
        for path, method, status, allowed in (
            ("/", "GET", 404, None),
            ("/process/", "POST", 404, None),
            ("/readyzz", "GET", 404, None),
            ("/process", "GET", 405, "POST"),
            ("/process", "PUT", 405, "POST"),
            ("/livez", "POST", 405, "GET, HEAD"),
            ("/readyz/default", "DELETE", 405, "GET, HEAD"),
        ):
            answer = await served.get(path, method)
            assert (answer.status, answer.headers.get("Allow")) == (status, allowed), (method, path)
            await problem_in(answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json; charset=UTF-8"}, 200),
        ({"Content-Type": 'Application/JSON;charset="utf-8"'}, 200),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/jsonp"}, 415),
        ({"Content-Type": "multipart/form-data"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 200),
    ],
)
async def test_only_json_as_it_is(headers: dict[str, str], status: int) -> None:
    """In UTF-8 and uncompressed: what is compressed could grow without a bound."""
    async with ops_served() as served:
        assert (await served.post(BATCH, **headers)).status == status


async def test_without_callers_only_this_machine_may_call(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever comes from elsewhere gets probes alone."""
    caplog.set_level(logging.INFO, "apiflux.ops")
    async with ops_served(callers=NOBODY, host=own_address()) as served:
        assert (await served.get("/readyz")).status == 200
        for answer in (await served.get("/health"), await served.post(BATCH)):
            assert (answer.status, (await problem_in(answer))["reason"]) == (403, "NOT_ALLOWED")
    assert [record.__dict__["code"] for record in caplog.records if record.msg == "http"] == ["PERMISSION_DENIED"]


async def test_a_fault_of_ours_is_told_by_its_id_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text may hold anything, so it is in the log alone; the connection serves on."""
    async with ops_served() as served:
        monkeypatch.setattr(served.server.engine, "submit", broken)
        answer = await served.post(BATCH)
        problem = await problem_in(answer)
        assert (answer.status, problem["reason"]) == (500, "INTERNAL")
        assert "canary" not in await answer.text()
        assert problem["metadata"]["error_id"] in {record.__dict__.get("error_id") for record in caplog.records}


async def test_no_line_of_the_log_has_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a header's value, nor a path or a body, whatever becomes of the request."""
    caplog.set_level(logging.DEBUG)
    async with ops_served() as served:
        await served.post({"calls": [{"path": "/canary"}]}, **{"X-Canary": "canary", "Authorization": "Bearer canary"})
        await served.get("/canary?canary")
        await served.post(b'{"canary')
        async with served.raw(b"GET /canary\r\ncanary\r\n\r\n") as (reader, _):
            await reader.read()
    ours = [record.__dict__ for record in caplog.records if record.name.startswith("apiflux")]
    assert len(ours) >= 3
    assert "canary" not in str(ours)


def own_address() -> str:
    """One at which this machine is reached that isn't the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but the loopback's")
        return str(probe.getsockname()[0])


def broken(spec: object) -> None:
    raise RuntimeError("canary")
