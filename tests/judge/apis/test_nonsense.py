"""Whatever a client sends to an API that the judge speaks, it is answered, and in the shape of that API."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.judge.apis.known import APIS
from tests.judge.apis.asking import Answer, ask, speaks

SPOKEN = [api for api in APIS if api != "plain"]
HEADERS = ("anthropic-version: 2023-06-01", "User-Agent: tests")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("model", "messages", "input", "max_tokens", "max_output_tokens", "system", "instructions", "metadata")
MORE = ("title", "body", "state", "query", "dimensions", "encoding_format", "stream")
bodies = st.fixed_dictionaries({}, optional=dict.fromkeys((*FIELDS, *MORE), values))
PARAMETERS = ("address", "latlng", "origin", "origins", "destination", "destinations", "place_id", "q", "per_page")
queries = st.fixed_dictionaries({}, optional=dict.fromkeys((*PARAMETERS, "locations", "input"), st.text(max_size=8)))


def target(path: str, names: str, query: Mapping[str, str]) -> str:
    """The path with this for every name in it."""
    for name in ("user", "org", "owner", "repo", "name", "number", "ref", "path+", "what", "model"):
        path = path.replace(f"{{{name}}}", quote(names, safe="") or "x")
    return f"{path}?{'&'.join(f'{name}={quote(value)}' for name, value in query.items())}"


def is_well(answer: Answer, api: str) -> bool:
    """An answer of the API's, or one of its refusals of the request."""
    return answer.status in (200, 201) or (api, answer.status) in {("github", 422)} or answer.status in (400, 404)


@pytest.mark.parametrize("api", SPOKEN)
@settings(max_examples=40)
@given(data=st.data())
def test_any_value_in_any_field_is_answered(api: str, data: st.DataObject) -> None:
    """Fields of the wrong type, and names and queries of any text: no call is left without an answer."""
    route = data.draw(st.sampled_from(APIS[api].routes))
    where = target(route.path, data.draw(st.text(max_size=6)), data.draw(queries))
    body: Any = None if route.method == "GET" else data.draw(bodies)
    assert is_well(ask(speaks(api), where, body, *HEADERS), api)


def test_no_answer_is_larger_than_the_api_would_make_it() -> None:
    """A small request can't make an answer that takes all memory: the most that the API takes is answered."""
    body = {"model": "m", "input": [""] * 200_000, "dimensions": 1}
    assert len(ask(speaks("openai"), "/v1/embeddings", body).body["data"]) == 2048
    assert len(ask(speaks("openai"), "/v1/moderations", body).body["results"]) == 2048
    places = "|" * 20_000
    wire = speaks("google-maps")
    matrix = ask(wire, f"/maps/api/distancematrix/json?origins={places}&destinations={places}").body
    assert [len(row["elements"]) for row in matrix["rows"]] == [25] * 25
    assert len(ask(wire, f"/maps/api/elevation/json?locations={places}").body["results"]) == 512


@pytest.mark.parametrize("api", ["openai", "anthropic", "github"])
@pytest.mark.parametrize("depth", [500, 20_000, 400_000])
def test_a_body_however_deep_is_answered(api: str, depth: int) -> None:
    """Nesting that a parser or a writer gives up at is a request that is refused, if it isn't answered."""
    nested = "[" * depth + "]" * depth
    fields = dict.fromkeys(("model", "title", "query"), "x") | {"max_tokens": 5}
    text = json.dumps(fields)[:-1] + "".join(f', "{name}": {nested}' for name in ("messages", "input", "metadata"))
    paths = {"openai": "/v1/responses", "anthropic": "/v1/messages", "github": "/repos/a/b/issues"}
    body = (text + "}").encode()[: 1 << 20]
    assert is_well(ask(speaks(api), paths[api], body, *HEADERS), api)
