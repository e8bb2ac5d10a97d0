"""The blocking client's `resume` with a server that dies or drains, and comes back on the same port."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest

from apiflux_grpc.client import Call, Result, SyncClient
from apiflux_grpc.judge.ledger import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import config_for
from tests.e2e.test_process_files import KEYS, MS, served_again

LIMIT = Limit(40, 500 * MS)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_outlives_its_server(tmp_path: Path, signum: signal.Signals) -> None:
    """One result each; a killed server costs the POSTs that were handed over, one that drains costs none."""
    calls = [Call(f"/n/{number}", method="POST" if number % 2 else "GET", id=f"c{number}") for number in range(300)]
    results: list[Result] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with JudgeProcess(JudgeOptions(KEYS, (LIMIT,), latency_ns=(20 * MS, 60 * MS))) as judge:
        config = config_for(judge.url, (LIMIT,), list(KEYS))
        with SyncClient(f"127.0.0.1:{port}") as client:
            stream = client.process_stream(calls, resume=True, window=50)
            with served_again(tmp_path, config, port) as server:
                while len(results) < 100:
                    results.append(next(stream))
                server.send_signal(signum)
                server.wait()
            time.sleep(1.2)  # for the limits' windows: a server that died can't tell the next what it had sent
            with served_again(tmp_path, config, port):
                results += stream
        arrived = judge.calls()
        assert judge.report().rejected == 0
    assert sorted(one.index for one in results) == list(range(300))
    assert all(one.id == f"c{one.index}" for one in results)
    doubtful = [one for one in results if not one.ok]
    assert all(one.error is not None and one.error.may_have_run for one in doubtful)
    assert all(calls[one.index].method == "POST" for one in doubtful)
    assert all(times == 1 for name, times in arrived.items() if name.startswith("POST"))
    answered = {f"{calls[one.index].method} {calls[one.index].path}" for one in results if one.ok}
    assert answered <= arrived.keys()
    if signum == signal.SIGTERM:
        assert doubtful == []
        assert set(arrived.values()) == {1}
    else:
        assert 0 < len(doubtful) <= 50
    assert stream.summary is not None
    assert (stream.summary.total, stream.summary.failed) == (300, len(doubtful))
