"""OpenAI's batch format: what becomes of a line, and of a result, and what a later run reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from apiflux_grpc.client.words import reason_of
from apiflux_grpc.jobs.known import key_of
from apiflux_grpc.jobs.openai_batch import OpenAiBatch
from apiflux_grpc.jobs.rows import Kept
from apiflux_grpc.v1 import apiflux_pb2 as pb

BATCH = OpenAiBatch("https://api.openai.com/v1")


def line(**changes: Any) -> str:
    """A good line with some fields changed; None: left out."""
    fields = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def answered(status: int, body: bytes = b'{"a":1}', failure: str = "", **headers: str) -> pb.CallResult:
    result = pb.CallResult(index=3, id="a", key_label="key-1", attempts=1)
    result.response.status_code = status
    result.response.body = body
    result.completed_at.FromNanoseconds(1_767_261_600_327_807_165)
    for name, value in {"content-type": "application/json", "x-request-id": "req_1", **headers}.items():
        result.response.headers.add(name=name, value=value)
    if failure:
        result.failure = reason_of(failure)
    return result


def failed(reason: str, may_have_run: bool) -> pb.CallResult:
    result = pb.CallResult(index=3, id="a", failure=reason_of(reason))
    result.error.message = "no answer"
    detail = any_pb2.Any()
    metadata = {"may_have_run": "true" if may_have_run else "false"}
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="apiflux.v1", metadata=metadata))
    result.error.details.append(detail)
    return result


def fields_of(result: pb.CallResult, *, idempotent: bool = False) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(BATCH.line(result, idempotent))
    return fields


def test_a_line_is_a_call() -> None:
    """Its id, method and path; the body byte by byte as it is written, and called JSON."""
    body = '{ "temperature": 1.10, "seed": 12345678901234567890, "x": {"stream": true}, "x": 2 }'
    call = BATCH.call(f'{{"custom_id":"a", "method":"POST", "url":"/v1/embeddings?v=1", "body": {body} }}\n')
    assert call == pb.Call(
        id="a",
        method="POST",
        path="/embeddings",
        query=[pb.QueryParameter(name="v", value="1")],
        headers=[pb.Header(name="Content-Type", value="application/json")],
        body=body.encode(),
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"custom_id": None}, "custom_id is missing; a line has custom_id, method, url, body"),
        ({"method": None}, "method is missing"),
        ({"url": None}, "url is missing"),
        ({"body": None}, "body is missing"),
        ({"custom_id": ""}, "custom_id is empty; give each line its own"),
        ({"custom_id": 7}, "custom_id must be a string"),
        ({"custom_id": "\ud800"}, "half of a surrogate pair"),
        ({"method": "GET"}, "method is 'GET'; a batch has POST alone"),
        ({"method": "post"}, "method is 'post'; a batch has POST alone"),
        ({"url": ["/v1/x"]}, "url must be a string"),
        ({"url": "https://example.com/v1/x"}, "url leaves the pool's base URL https://api.openai.com/v1"),
        ({"url": "/v1/../x"}, "segment"),
        ({"body": "{}"}, "body must be an object"),
        ({"body": [{}]}, "body must be an object"),
        ({"body": {"a": "\ud800"}}, "body has half of a surrogate pair"),
        ({"body": {"stream": True}}, "body.stream asks for a stream, and a result is one line; leave it out"),
        ({"body": {"stream": 1}}, "body.stream asks for a stream"),
        ({"customid": "a"}, "unknown field 'customid'; did you mean 'custom_id'?"),
        ({"priority": 1}, "unknown field 'priority'; a line has custom_id"),
        ({"id": "batch_req_1", "response": {}}, "is a result; name the file with the calls of the batch"),
        ({"path": "/v1/x"}, "'path' is a field of APIFlux's own format"),
        ({"json": {}}, "write all lines in one format"),
        ({"timeout": 5}, "write all lines in one format"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(changes: dict[str, Any], said: str) -> None:
    """In the names of the format, and with what to do."""
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        BATCH.call(line(**changes))


@pytest.mark.parametrize(
    ("body", "is_stream"),
    [
        ('{"stream": false}', False),
        ('{"stream": null}', False),
        ('{"prompt": "\\"stream\\": true"}', False),
        ('{"\\u0073tream": true}', True),
        ('{"stream": false, "stream": true}', True),
    ],
)
def test_a_stream_is_found_however_it_is_spelled(body: str, is_stream: bool) -> None:
    """And nothing else is taken for one."""
    text = f'{{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {body}}}'
    if is_stream:
        with pytest.raises(ValueError, match=r"body\.stream"):
            BATCH.call(text)
    else:
        assert BATCH.call(text).body == body.encode()


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/v1/x?a=1%2B2&b=x+y&b=", "/v1/a%2Fb/", "/v1"])
def test_a_call_is_written_as_a_line_again(url: str) -> None:
    """Which makes the same call: of a pipe nothing else is left."""
    text = line(custom_id='"\u00e4', url=url).replace('"m"', '"m", "t": 1.10, "t": "\\u0041"')
    call = BATCH.call(text)
    written = BATCH.written(call)
    assert BATCH.call(written.decode()) == call
    assert (written.count(b"\n"), written[-1:]) == (1, b"\n")


def test_an_answer_is_a_line_of_openais() -> None:
    """With its four members and no other; the body as it came, the request's id from its header."""
    result = answered(200, b'{"usage": {"total_tokens": 39}, "t": 1.10}\n')
    text = BATCH.line(result, True).decode()
    assert text.endswith('"body":{"usage": {"total_tokens": 39}, "t": 1.10}},"error":null}\n')
    fields = json.loads(text)
    assert fields.pop("id").startswith("batch_req_")
    body = {"usage": {"total_tokens": 39}, "t": 1.1}
    assert fields == {
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "req_1", "body": body},
        "error": None,
    }


def test_a_bad_answer_is_an_answer() -> None:
    """Its body has the error, as in OpenAI's own files; `error` is for calls without an answer."""
    fields = fields_of(answered(400, b'{"error": {"message": "no"}}', failure="HTTP_4XX"))
    assert (fields["response"]["status_code"], fields["error"]) == (400, None)
    assert fields["response"]["body"] == {"error": {"message": "no"}}
    assert "failure" not in fields


def test_a_call_without_an_answer_has_an_error() -> None:
    """Its code is the reason, and `response` is null."""
    fields = fields_of(failed("TIMEOUT", may_have_run=True))
    assert (fields["custom_id"], fields["response"]) == ("a", None)
    assert fields["error"] == {"code": "TIMEOUT", "message": "no answer", "may_have_run": True, "idempotent": False}


def test_ids_tell_results_apart() -> None:
    """One call that was sent again has another; the same result has the same."""
    first, second = answered(500, failure="HTTP_5XX"), answered(500, failure="HTTP_5XX")
    assert fields_of(first)["id"] == fields_of(second)["id"]
    second.completed_at.nanos += 1
    assert fields_of(first)["id"] != fields_of(second)["id"]


@pytest.mark.parametrize(
    ("body", "kind", "members"),
    [
        (b"Bad gateway", "text/html", {"body": "Bad gateway"}),
        (b"", "application/json", {"body": ""}),
        (b"[NaN]", "application/json", {"body": "[NaN]"}),
        (b"\xff", "audio/mpeg", {"body": None, "body_base64": "/w=="}),
    ],
)
def test_a_body_that_is_no_document_is_text_or_bytes(body: bytes, kind: str, members: dict[str, str | None]) -> None:
    """Nothing of it is lost; and without an id of its own, the request's is empty."""
    result = answered(200, body)
    del result.response.headers[:]
    result.response.headers.add(name="content-type", value=kind)
    response = fields_of(result)["response"]
    assert response == {"status_code": 200, "request_id": "", **members}


def test_what_reads_like_the_place_of_a_body_is_not_it() -> None:
    """Neither an id nor a header."""
    result = answered(200, b'{"x": 1.10}', **{"x-request-id": '"body":null'})
    result.id = '"body":null'
    fields = fields_of(result)
    assert (fields["custom_id"], fields["response"]["request_id"]) == ('"body":null', '"body":null')
    assert fields["response"]["body"] == {"x": 1.1}


@pytest.mark.parametrize(
    ("result", "is_failed", "doubt"),
    [
        (answered(200), False, ""),
        (answered(400, failure="HTTP_4XX"), True, ""),
        (answered(500, failure="HTTP_5XX"), True, ""),
        (answered(404), False, ""),
        (answered(200, failure="LIMITED"), True, ""),
        (answered(200, failure="HTTP_2XX"), True, ""),
        (failed("NOT_SENT", may_have_run=False), True, ""),
        (failed("DRAINING", may_have_run=False), True, ""),
        (failed("UNKNOWN", may_have_run=True), True, "UNKNOWN"),
        (failed("TIMEOUT", may_have_run=True), True, "TIMEOUT"),
    ],
)
@pytest.mark.parametrize("idempotent", [False, True])
def test_a_later_run_reads_what_it_must_know(
    result: pb.CallResult, is_failed: bool, doubt: str, idempotent: bool
) -> None:
    """Which call it was, whether the pool counts it as a failure, and why it may have run, if it may."""
    assert BATCH.kept(BATCH.line(result, idempotent)) == Kept(key_of("a", 0), is_failed, doubt)


@pytest.mark.parametrize(
    ("text", "is_failed", "doubt"),
    [
        ('{"response": {"status_code": 200, "request_id": "r", "body": {}}, "error": null}', False, ""),
        ('{"response": {"status_code": 400, "request_id": "r", "body": {}}, "error": null}', True, ""),
        ('{"response": null, "error": {"code": "batch_expired", "message": "m"}}', True, "UNKNOWN"),
    ],
)
def test_lines_of_openai_itself_are_read(text: str, is_failed: bool, doubt: str) -> None:
    """A file that the Batch API made can be continued; what has no answer may have run."""
    own = text.replace("{", '{"id": "batch_req_1", "custom_id": "a", ', 1)
    assert BATCH.kept(own.encode()) == Kept(key_of("a", 0), is_failed, doubt)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"custom_id": "a"}',
        '{"custom_id": "", "response": {"status_code": 200}, "error": null}',
        '{"custom_id": 1, "response": {"status_code": 200}, "error": null}',
        '{"custom_id": "a", "response": null, "error": null}',
        '{"custom_id": "a", "response": {"status_code": "200"}, "error": null}',
        '{"custom_id": "a", "response": {}, "error": null}',
        '{"custom_id": "a", "response": null, "error": "x"}',
        '{"custom_id": "a", "method": "POST", "url": "/", "body": {}}',
        '{"custom_id": "a", "response": {"status_code": 200}, "error": nu',
    ],
)
def test_what_is_no_result_is_refused(text: str) -> None:
    """A cut line, a line of the input, and other files."""
    with pytest.raises(ValueError, match="is not a result of this command"):
        BATCH.kept(text.encode())
