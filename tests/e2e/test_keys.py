"""Keys of a running server: another secret under load, a pause, and what the command says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apiflux_grpc.client import Call, Retry, SyncClient
from apiflux_grpc.client.admin import Admin
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.commands import Done, run

OLD, NEW, OTHER = (f"canary-{name}" for name in ("old", "new", "other"))
LIMIT = Limit(400, SECOND)


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgeProcess]:
    options = JudgeOptions(
        {"old": OLD, "new": NEW, "other": OTHER}, (LIMIT,), latency_ns=(20 * MILLISECOND, 200 * MILLISECOND)
    )
    with JudgeProcess(options) as process:
        yield process


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "secret"
    path.write_text(OLD)
    return path


@pytest.fixture(scope="module")
def server(judge: JudgeProcess, secret: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    config = f"""
        [pools.default]
        base_url = "{judge.url}"
        limits = [{{ max = {LIMIT.max}, per = "1s" }}]
        keys = [{{ label = "a", secret_file = "{secret}" }}, {{ label = "b", secret_env = "OTHER" }}]
    """
    with ServedProcess(config, {"OTHER": OTHER}, state=tmp_path_factory.mktemp("state")) as served:
        yield served


def keys(folder: Path, target: str, *args: str) -> Done:
    return run("keys", *args, "--target", target, cwd=folder)


def test_a_key_is_rotated_under_load_with_no_call_refused(
    judge: JudgeProcess, server: ServedProcess, secret: Path
) -> None:
    """In mid-batch, and every call succeeds though it is tried once and the old secret is rejected as soon as the new
    one is there: what was on its way goes again, and nothing else has the old one any more."""
    with SyncClient(server.target) as client:
        results = client.process([Call(f"/{number}") for number in range(1200)], retry=Retry(max_attempts=1))
        done = [next(results) for _ in range(300)]
        secret.write_text(NEW)
        with Admin(server.target) as admin:
            (rotated,) = admin.rotate(["a"])
            assert rotated.changed == ("default/a",)
        judge.reject("old")
        done += results
    assert {one.status_code for one in done} == {200}
    report = judge.report()
    assert not report.violations
    arrivals = {key.label: key.arrivals for key in report.keys}
    assert sum(arrivals.values()) >= 1200
    assert arrivals["new"] > 0
    with SyncClient(server.target) as client:
        list(client.process([Call(f"/later/{number}") for number in range(20)]))
    assert {key.label: key.arrivals for key in judge.report().keys}["old"] == arrivals["old"]
    assert "canary" not in server.stderr


def test_a_paused_key_is_left_alone_until_it_is_resumed(
    judge: JudgeProcess, server: ServedProcess, tmp_path: Path
) -> None:
    """By the command, which warns of no restart, for the server has a directory to keep it in."""
    done = keys(tmp_path, server.target, "pause", "b")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{server.target}: 1 key paused\n", "")
    before = {key.label: key.arrivals for key in judge.report().keys}["other"]
    with SyncClient(server.target) as client:
        assert all(one.ok for one in client.process([Call(f"/paused/{number}") for number in range(50)]))
    assert {key.label: key.arrivals for key in judge.report().keys}["other"] == before
    listed = keys(tmp_path, server.target, "list")
    assert "paused by an administrator" in listed.stdout
    assert "canary" not in listed.stdout
    assert keys(tmp_path, server.target, "pause", "--all").stdout == f"{server.target}: 1 key paused\n"
    assert keys(tmp_path, server.target, "resume", "--all").stdout == f"{server.target}: 2 keys resumed\n"
    assert not judge.report().violations


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["pause"], "name the keys to pause, or give --all"),
        (["pause", "a", "--all"], "conflicts with the names of keys"),
        (["thaw"], "name one key"),
        (["pause", "c"], "there is no key 'c'; there are a, b"),
        (["rotate", "b"], ""),
    ],
)
def test_what_cannot_be_is_said(server: ServedProcess, tmp_path: Path, args: list[str], said: str) -> None:
    """Exit code 2, and nothing has changed."""
    done = keys(tmp_path, server.target, *args)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Exit code 4, and what to look at."""
    done = keys(tmp_path, "127.0.0.1:1", "list")
    assert done.returncode == 4
    assert done.stderr.endswith("; is the server running there?\n")
