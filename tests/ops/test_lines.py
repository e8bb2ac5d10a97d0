"""A line of an answer says what protobuf's own printer says of the message."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.ops.lines import line_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
counts = st.integers(0, (1 << 63) - 1)
nanos = st.sampled_from([0, 1, 999_999_999, 5_000, 250_000_000]) | st.integers(0, 999_999_999)
times: Any = st.builds(dict, seconds=st.integers(0, 10**10), nanos=nanos)
rates = st.floats(0, 1e18, allow_nan=False)


def some(**fields: Any) -> Any:
    return st.fixed_dictionaries({}, optional=fields)


def error() -> status_pb2.Status:
    status = status_pb2.Status(code=14, message="gone")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="NOT_SENT", metadata={"may_have_run": "false"}))
    return status


held = some(
    cause=st.sampled_from(pb.HeldCause.values()), reason=text, since=times, until=times, keys=st.lists(text, max_size=2)
)
responses = some(
    status_code=st.integers(0, 599),
    headers=st.lists(some(name=text, value=text), max_size=2),
    body=st.binary(max_size=9),
    truncated=st.booleans(),
)
common = {
    "index": counts,
    "id": text,
    "key_label": text,
    "attempts": st.integers(0, 9),
    "queue_time": times,
    "latency": times,
    "completed_at": times,
    "failure": st.sampled_from(pb.Reason.values()),
}
results = some(response=responses, **common) | some(error=st.just(error()), **common)
messages = some(
    results=st.lists(results, max_size=2),
    progress=some(done=counts, eta=times, held_by=st.lists(held, max_size=2), waits_for=held, rate=rates),
    summary=some(failed_by_reason=st.dictionaries(text, counts, max_size=2), total=counts, elapsed=times),
)


@settings(max_examples=60)
@given(messages)
def test_a_line_is_what_protobuf_prints(fields: dict[str, Any]) -> None:
    """With all fields that it has, absent ones left out where absence means something."""
    response = pb.ProcessResponse(**fields)
    line = line_of(response)
    assert line.count(b"\n") == 1
    assert json.loads(line) == json_format.MessageToDict(response, always_print_fields_with_no_presence=True)
