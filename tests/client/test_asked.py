"""A call is written as people know it from httpx, and what can't be sent is refused with the name of its field."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest

from apiflux_grpc.client import Call
from apiflux_grpc.client.calls import process_request

SURROGATE = "\ud83d"  # half of a pair


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head"])
def test_a_method_has_its_shortcut(method: str) -> None:
    """Call.get("/x") and its siblings are the call of that method, with every other field as the constructor has it."""
    made = getattr(Call, method)("/v1/x", query={"q": "a"}, id="one", timeout=2.5, cost=7, idempotent=True)
    assert made == Call("/v1/x", method.upper(), (("q", "a"),), (), b"", "one", 2.5, 7, True)
    assert made == Call.request(
        method.upper(), "/v1/x", params={"q": "a"}, id="one", timeout=2.5, cost=7, idempotent=True
    )


def test_json_is_written_compactly_and_names_its_type() -> None:
    """As httpx writes it; a Content-Type of the caller's own, in any case, is left alone."""
    call = Call.post("/v1/x", json={"name": "Zoë", "n": [1, 2.5, None, True]})
    assert call.body == '{"name":"Zoë","n":[1,2.5,null,true]}'.encode()
    assert call.headers == (("Content-Type", "application/json"),)
    call = Call.post("/v1/x", json=[], headers={"content-type": "application/vnd.api+json", "X-A": "1"})
    assert (call.body, call.headers) == (b"[]", (("content-type", "application/vnd.api+json"), ("X-A", "1")))
    assert (Call.post("/v1/x").body, Call.post("/v1/x", json=None).headers) == (b"", ())


def test_content_is_bytes_or_text() -> None:
    """`content` takes both, as httpx does, and `text` a string; none of them has a Content-Type of its own."""
    for options in (
        {"content": "Zoë"},
        {"content": "Zoë".encode()},
        {"text": "Zoë"},
        {"content": bytearray("Zoë", "utf-8")},
    ):
        call = Call.put("/v1/x", **options)
        assert (call.body, call.headers) == ("Zoë".encode(), ())
    assert Call.put("/v1/x", content="").body == b""


def test_values_of_a_query_are_written_as_httpx_writes_them() -> None:
    """Numbers, bools and None become strings, a list in a mapping repeats its name, and pairs keep their order."""
    call = Call.get("/v1/x", params={"n": 5, "f": 0.5, "yes": True, "no": False, "none": None, "tag": ["a", 1]})
    assert call.query == (
        *(("n", "5"), ("f", "0.5"), ("yes", "true"), ("no", "false"), ("none", "")),
        *(("tag", "a"), ("tag", "1")),
    )
    assert Call.get("/v1/x", query=[("b", 1), ("a", ""), ("b", "0")]).query == (("b", "1"), ("a", ""), ("b", "0"))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"params": {"q": "a"}, "query": {"q": "a"}}, ValueError, "^params conflicts with query; set one of them$"),
        ({"json": 1, "text": "a"}, ValueError, "^json conflicts with text; set one of them$"),
        ({"content": b"", "text": ""}, ValueError, "^content conflicts with text; set one of them$"),
        (
            {"json": {"at": datetime(2026, 1, 1, tzinfo=UTC)}},
            TypeError,
            "^json can't be written: .*datetime is not JSON",
        ),
        ({"json": math.nan}, ValueError, "^json can't be written: .*[Nn]a[nN]|^json can't be written: Out of range"),
        ({"json": {"a": SURROGATE}}, ValueError, "^json has half of a surrogate pair"),
        ({"content": 5}, TypeError, "^content must be bytes or a string, not int$"),
        ({"content": SURROGATE}, ValueError, "^content has half of a surrogate pair"),
        ({"text": b"a"}, TypeError, "^text must be a string, not bytes$"),
        ({"params": "q=a"}, TypeError, r"^params must be a mapping, or a list of \(name, value\), not str$"),
        ({"params": {"q": object()}}, TypeError, r"^params\.q must be a string, not object$"),
        ({"params": {5: "a"}}, TypeError, "^a name in params must be a string, not int$"),
        ({"query": [("a", "1"), ("b",)]}, TypeError, r"^query\[1\] must be \(name, value\)$"),
        ({"query": ["ab"]}, TypeError, r"^query\[0\] must be \(name, value\)$"),
        ({"headers": {"X-A": 5}}, TypeError, r"^headers\.X-A must be a string, not int$"),
        ({"headers": [("X-A", None)]}, TypeError, r"^headers\[0\] must be a string, not None$"),
        ({"headers": {"X-A": SURROGATE}}, ValueError, r"^headers\.X-A has half of a surrogate pair"),
        ({"id": 5}, TypeError, "^id must be a string, not int$"),
        ({"timeout": "5"}, TypeError, "^timeout must be a number of seconds, not str$"),
        ({"timeout": math.nan}, ValueError, "^timeout must be a number of seconds, not nan$"),
        ({"timeout": 1e12}, ValueError, "^timeout is too long$"),
        ({"cost": 1.5}, TypeError, "^cost must be a whole number, not float$"),
        ({"cost": 1 << 63}, ValueError, r"^cost must be a whole number below 2\^63$"),
        ({"idempotent": "yes"}, TypeError, "^idempotent must be True, False or None, not str$"),
    ],
)
def test_bad_input_names_its_field(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """It is refused where the call is written, before anything is sent."""
    with pytest.raises(kind, match=message):
        Call.post("/v1/x", **options)


def test_a_path_is_a_string() -> None:
    """The one field that has no name in front of it."""
    with pytest.raises(TypeError, match=r"^path must be a string, not PurePosixPath$"):
        Call.get(PurePosixPath("/v1/x"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call("/v1/x", query={"q": 5}), r"^Call\('/v1/x'\): query\.q must be a string, not int$"),  # type: ignore[dict-item]
        (Call("/v1/x", id="oslo", headers={"X-A": 5}), r"^the call 'oslo': headers\.X-A must be"),  # type: ignore[dict-item]
        (Call("/v1/x", timeout="5"), r"^Call\('/v1/x'\): timeout must be a number of seconds"),  # type: ignore[arg-type]
        (Call(f"/{SURROGATE}"), r"^Call\(.*\): path has half of a surrogate pair"),
        (Call("/v1/x", body=5), r"body must be bytes, not int$"),  # type: ignore[arg-type]
        (Call("/v1/x", cost=1 << 63), r"cost must be a whole number below 2\^63$"),
    ],
)
def test_a_bad_call_of_a_batch_is_told_apart(call: Call, message: str) -> None:
    """The plain constructor takes anything, and the batch that it is passed in says which call it is."""
    with pytest.raises((TypeError, ValueError), match=message):
        process_request([Call("/v1/good"), call], pool="", priority=0, correlation_id="", retry=None, ordered=False)
