"""The judge as a process: it starts, judges over real sockets, tells its report, and ends by itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess

SECRET = "canary-51d0"
MINUTE = 60_000_000_000
OPTIONS = JudgeOptions(keys={"alpha": SECRET}, limits=(Limit(2, MINUTE),))
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def process() -> Iterator[JudgeProcess]:
    with JudgeProcess(OPTIONS) as judge:
        yield judge


@pytest.fixture
def judge(process: JudgeProcess) -> JudgeProcess:
    process.reset()
    return process


def call(judge: JudgeProcess, path: str, key: str = SECRET) -> int:
    try:
        with DIRECT.open(urllib.request.Request(judge.url + path, headers={"X-API-Key": key})) as answer:
            assert json.load(answer) == {"ok": True}
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_judges_over_http(judge: JudgeProcess) -> None:
    """What real clients send is judged and reported, until a reset forgets it."""
    assert [call(judge, "/a"), call(judge, "/b", "wrong"), call(judge, "/b"), call(judge, "/c")] == [200, 401, 200, 429]
    live = judge.live()
    assert (live.arrivals, live.unknown_arrivals, live.in_flight, live.keys) == (4, 1, 0, {"alpha": (2, 1)})
    report = judge.report()
    assert (report.arrivals, report.accepted, report.rejected, report.unknown_keys) == (4, 2, 1, 1)
    assert report.worst == 1.5
    assert len(report.violations) == 2
    judge.reset()
    assert judge.report().ok
    assert call(judge, "/a") == 200


def test_bad_clients_are_survived(judge: JudgeProcess) -> None:
    """Garbage, resets and ends in the middle of a request neither stop the judge nor count."""
    for data in (b"\x00garbage\r\n\r\n", b"GET / HT", b"", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        for reset in (False, True):
            with socket.create_connection(("127.0.0.1", judge.port)) as client:
                client.sendall(data)
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert judge.report().arrivals == 0
    assert call(judge, "/a") == 200


def test_the_key_is_in_no_argument_and_no_environment(judge: JudgeProcess) -> None:
    """Other users of the machine can't read a key off the judge's process."""
    process = psutil.Process(judge.pid)
    assert SECRET not in " ".join(process.cmdline())
    assert SECRET not in str(process.environ())


def test_it_is_pinned_and_its_verdict_is_the_exit_code() -> None:
    """With `cpu` given, the judge runs on that one alone; it ends with 0 without a violation and with 3 with one."""
    cpu = max(os.sched_getaffinity(0))
    with JudgeProcess(OPTIONS, cpu=cpu) as kept:
        assert os.sched_getaffinity(kept.pid) == {cpu}
        call(kept, "/a")
    with JudgeProcess(OPTIONS) as broken:
        call(broken, "/a", "wrong")
    assert (kept.returncode, broken.returncode) == (0, 3)


def test_a_taken_port_is_said(judge: JudgeProcess) -> None:
    """Where the port is in use the judge doesn't start, and says so."""
    taken = JudgeProcess(JudgeOptions(keys={"alpha": SECRET}, port=judge.port))
    with (
        pytest.raises(RuntimeError, match=rf"can.t listen on 127\.0\.0\.1:{judge.port}: Address already in use"),
        taken,
    ):
        pass
    assert taken.returncode == 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_report(signum: signal.Signals) -> None:
    """At SIGTERM or SIGINT the report is a table on stderr, with labels; stdout had one line when it listened."""
    program = f"""
import sys
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.server import run_judge
sys.exit(run_judge(JudgeOptions(keys={{"alpha": {SECRET!r}}}, limits=(Limit(2, {MINUTE}),))))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signum)
        out, err = process.communicate()
    assert process.returncode == 0
    assert line.startswith("judging on 127.0.0.1:")
    assert out == ""
    assert "alpha" in err
    assert "0 of 2 in 60s" in err
    assert "No violation." in err
    assert SECRET not in err


def test_it_ends_with_a_killed_parent() -> None:
    """A judge doesn't outlive the process that started it, even one that was killed."""
    program = f"""
import signal
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
with JudgeProcess(JudgeOptions(keys={{"alpha": {SECRET!r}}})) as judge:
    print(judge.pid, flush=True)
    signal.pause()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:  # the test's own timeout is the bound
        time.sleep(0.01)
