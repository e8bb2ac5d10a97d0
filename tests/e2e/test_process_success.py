"""What counts as a failure is the pool's `success`: in lines, table, exit code, --retry-failed and the clients."""

from __future__ import annotations

import threading
from pathlib import Path

from apiflux_grpc.client import Call, SyncClient
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from tests.e2e.test_cli import Server, Upstream
from tests.e2e.test_process_files import KEYS, rows_of, run, write_lines

STATUSES = {200: "", 201: "HTTP_2XX", 404: "", 400: "HTTP_4XX", 503: "HTTP_5XX"}


def test_success_is_what_the_pool_says(tmp_path: Path) -> None:
    """A 404 that counts as success is no failure and not sent again; a 201 that doesn't is both."""

    class Own(Upstream):
        arrived: list[str] = []  # noqa: RUF012  # one per class

    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    write_lines(source, [{"path": f"/status/{status}"} for status in STATUSES])
    extra = 'success = ["200", "404"]\nretry = { max_attempts = 1 }'
    with Server(("127.0.0.1", 0), Own) as upstream:
        threading.Thread(target=upstream.serve_forever, args=(0.05,)).start()
        try:
            url = f"http://127.0.0.1:{upstream.server_port}"
            with ServedProcess(config_for(url, (), list(KEYS), extra), secrets_for(KEYS)) as served:
                done = run(served.target, source, "--output", output, cwd=tmp_path)
                rows = sorted(rows_of(output), key=lambda row: int(row["index"]))
                Own.arrived.clear()
                again = run(served.target, source, "--output", output, "--retry-failed", cwd=tmp_path)
                sent_again = sorted(Own.arrived)
                with SyncClient(served.target) as client:
                    stream = client.process([Call(f"/status/{status}") for status in STATUSES], ordered=True)
                    results = list(stream)
        finally:
            upstream.shutdown()
    assert (done.returncode, again.returncode) == (3, 3)
    assert [row.get("failure", "") for row in rows] == list(STATUSES.values())
    assert "3: HTTP_2XX 1, HTTP_4XX 1, HTTP_5XX 1" in done.stderr
    assert sent_again == ["GET /status/201", "GET /status/400", "GET /status/503"]
    assert [result.failure for result in results] == list(STATUSES.values())
    assert stream.summary is not None
    assert stream.summary.failed_by_reason == {"HTTP_2XX": 1, "HTTP_4XX": 1, "HTTP_5XX": 1}
