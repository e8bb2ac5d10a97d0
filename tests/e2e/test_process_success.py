"""What counts as a failure is the pool's `success`: in lines, table, exit code, --retry-failed and the clients."""

from __future__ import annotations

from pathlib import Path

from apiflux_grpc.client import Call, SyncClient
from tests.e2e.commands import rows_of, write_lines
from tests.e2e.house import House

STATUSES = {200: "", 201: "HTTP_2XX", 404: "", 400: "HTTP_4XX", 503: "HTTP_5XX"}


def test_success_is_what_the_pool_says(tmp_path: Path, house: House) -> None:
    """A 404 that counts as success is no failure and not sent again; a 201 that doesn't is both."""
    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    write_lines(source, [{"path": f"/status/{status}"} for status in STATUSES])
    arguments = (source, "--output", output, "--pool", "counted")
    done = house.process(*arguments, cwd=tmp_path)
    rows = rows_of(output)
    house.upstream.begin()
    again = house.process(*arguments, "--retry-failed", cwd=tmp_path)
    sent_again = sorted(house.upstream.arrived)
    with SyncClient(house.target) as client:
        stream = client.process([Call(f"/status/{status}") for status in STATUSES], pool="counted", ordered=True)
        results = list(stream)
    assert (done.returncode, again.returncode) == (3, 3)
    assert [row.get("failure", "") for row in rows] == list(STATUSES.values())
    assert "3: HTTP_2XX 1, HTTP_4XX 1, HTTP_5XX 1" in done.stderr
    assert sent_again == ["GET /status/201", "GET /status/400", "GET /status/503"]
    assert [result.failure for result in results] == list(STATUSES.values())
    assert stream.summary is not None
    assert stream.summary.failed_by_reason == {"HTTP_2XX": 1, "HTTP_4XX": 1, "HTTP_5XX": 1}
