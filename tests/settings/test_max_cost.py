"""The most that one call of a configured pool may cost: what some key could take at once, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.errors import InvalidRequest
from apiflux_grpc.core.model import Pool
from apiflux_grpc.server.checking import Checking
from apiflux_grpc.settings import load
from apiflux_grpc.v1 import apiflux_pb2 as pb

WINDOW = '{ max = 100, per = "1s", counts = "cost" }'
BURST = '{ max = 100, per = "1s", burst = 60, counts = "cost" }'
BUCKET = '{ max = 100, per = "1s", kind = "bucket", burst = 50, counts = "cost" }'  # 50 - 100/s * 250 ms = 25
SPACED = '{ max = 100, per = "1s", kind = "bucket", burst = 20, counts = "cost" }'  # the jitter eats it
CALLS = '{ max = 5, per = "1s" }'


def pool_of(folder: Path, keys: dict[str, str], groups: list[tuple[str, str]]) -> Pool:
    """A pool; keys are (label: limits), groups (labels: limits)."""
    text = '[pools.default]\nbase_url = "http://127.0.0.1:9000"\narrival_jitter = "250ms"\n'
    for label, limits in keys.items():
        text += f'[[pools.default.keys]]\nlabel = "{label}"\nsecret = "secret-{label}"\nlimits = [{limits}]\n'
    for labels, limits in groups:
        text += f"[[pools.default.groups]]\nkeys = [{labels}]\nlimits = [{limits}]\n"
    file = folder / "c.toml"
    file.write_text(text)
    return load(file, environ={}).pools[0].pool


def refused(pool: Pool, cost: int) -> str | None:
    request = pb.ProcessRequest(calls=[pb.Call(path="/x", cost=cost)])
    checking = Checking(request, pool, "caller", default_repeat=1, max_calls=10, max_bytes=1 << 20)
    try:
        for _ in checking.slices():
            pass
    except InvalidRequest as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("keys", "groups", "most"),
    [
        ({"a": WINDOW}, [], 100),
        ({"a": f"{WINDOW}, {BURST}"}, [], 60),
        ({"a": BUCKET}, [], 25),
        ({"a": SPACED}, [], 1),
        ({"a": f"{WINDOW}, {BUCKET}, {CALLS}"}, [], 25),
        # the key that takes the most decides
        ({"a": BUCKET, "b": WINDOW}, [], 100),
        # a group binds its own keys, and only them
        ({"a": WINDOW, "b": WINDOW}, [('"a", "b"', BUCKET)], 25),
        ({"a": WINDOW, "b": BURST}, [('"a"', BUCKET)], 60),
        ({"a": CALLS}, [('"a"', BURST)], 60),
        ({"a": WINDOW, "b": WINDOW}, [('"a"', BUCKET), ('"b"', BURST)], 60),
        # one key without a limit of cost takes anything
        ({"a": WINDOW, "b": CALLS}, [], LARGEST_COST),
        ({"a": CALLS, "b": CALLS}, [('"a"', BUCKET)], LARGEST_COST),
        ({"a": WINDOW, "b": CALLS}, [('"b"', CALLS)], LARGEST_COST),
    ],
)
def test_the_most_that_a_call_may_cost(
    tmp_path: Path, keys: dict[str, str], groups: list[tuple[str, str]], most: int
) -> None:
    """What some key could take at once, by its limits and its group's, is taken; one more is refused at the door."""
    pool = pool_of(tmp_path, keys, groups)
    assert refused(pool, most) is None
    assert refused(pool, most + 1) == (
        f"calls[0].cost: is {most + 1}; no key of this pool takes more than {most} at once"
    )
