"""The blocking client's `resume` with a server that dies or drains, and comes back on the same port."""

from __future__ import annotations

import signal

import pytest

from apiflux_grpc.client import Call, Result, SyncClient
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.client.scripted import free_port
from tests.e2e.pairs import judging, pool_toml

LIMIT = Limit(80, 1_000_000_000)


@pytest.mark.parametrize(
    # A drain costs five seconds, since the server says that it is back then; tests/client has it without them.
    "signum",
    [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_a_batch_outlives_its_server(signum: signal.Signals) -> None:
    """One result each; a killed server costs the POSTs that were handed over, one that drains costs none.

    The second server has keys of its own: it can't know what a killed one had sent with the keys of the first.
    """
    calls = [Call(f"/n/{number}", method="POST" if number % 2 else "GET", id=f"c{number}") for number in range(300)]
    results: list[Result] = []
    port = free_port()
    with judging(["first", "second"], [LIMIT], latency=(20, 60)) as judge:

        def served(keys: str) -> ServedProcess:
            return ServedProcess(pool_toml("default", judge.url, [LIMIT], 2, "", keys_from=keys), {}, port=port)

        with SyncClient(f"127.0.0.1:{port}") as client:
            with served("first") as server:
                stream = client.process_stream(calls, resume=True, window=50)
                while len(results) < 100:
                    results.append(next(stream))
                server.kill() if signum == signal.SIGKILL else server.terminate()
            with served("second"):
                results += stream
        arrived, report = judge.calls(), judge.report()
    assert report.rejected == 0
    assert report.worst <= 1.0
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
