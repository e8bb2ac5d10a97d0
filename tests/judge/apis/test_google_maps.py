"""The judge answers as Google Maps does: nearly everything with 200, and a status in the body."""

import pytest

from apiflux_grpc.judge.limits import Limit
from tests.judge.apis.asking import ask, speaks
from tests.judge.wires import MINUTE, request

PATH = "/maps/api/{}/json?{}"


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("geocode", "address=1+Main+Street", "results"),
        ("geocode", "latlng=40.7,-73.9", "results"),
        ("directions", "origin=A&destination=B", "routes"),
        ("distancematrix", "origins=A&destinations=B", "rows"),
        ("place/details", "place_id=ChIJ1", "result"),
        ("place/textsearch", "query=pizza", "results"),
        ("place/nearbysearch", "location=1,2&radius=9", "results"),
        ("place/findplacefromtext", "input=pizza&inputtype=textquery", "candidates"),
        ("place/autocomplete", "input=piz", "predictions"),
        ("elevation", "locations=1,2|3,4", "results"),
        ("timezone", "location=1,2&timestamp=0", "timeZoneId"),
    ],
)
def test_each_service_answers(path: str, query: str, field: str) -> None:
    """What is asked for is answered OK; without its parameters the request is invalid, with 200 too."""
    wire = speaks("google-maps")
    answer = ask(wire, PATH.format(path, query))
    assert (answer.status, answer.body["status"]) == (200, "OK")
    assert answer.body[field]
    refused = ask(wire, PATH.format(path, "language=en"))
    assert (refused.status, refused.body["status"]) == (200, "INVALID_REQUEST")
    assert "Missing the" in refused.body["error_message"]


def test_a_place_has_a_location_and_a_matrix_all_its_ways() -> None:
    """An address is found as it was asked for, and each start has a way to each end."""
    wire = speaks("google-maps")
    [place] = ask(wire, PATH.format("geocode", "address=1+Main+Street")).body["results"]
    assert place["formatted_address"] == "1 Main Street"
    assert set(place["geometry"]["location"]) == {"lat", "lng"}
    rows = ask(wire, PATH.format("distancematrix", "origins=A|B|C&destinations=D|E")).body["rows"]
    assert [len(row["elements"]) for row in rows] == [2, 2, 2]


def test_a_key_that_is_not_known_is_denied() -> None:
    """With a wrong key and without one: 200 and REQUEST_DENIED, as the judge's report counts them."""
    wire = speaks("google-maps")
    for key in ("wrong", None):
        answer = ask(wire, PATH.format("geocode", "address=A"), key=key)
        assert (answer.status, answer.body["status"]) == (200, "REQUEST_DENIED")
    assert wire.judge.report().unknown_arrivals == 2


def test_over_a_limit_no_header_tells_anything() -> None:
    """200 and OVER_QUERY_LIMIT, without Retry-After; the judge counts it as rejected."""
    wire = speaks("google-maps", Limit(1, MINUTE))
    ask(wire, PATH.format("geocode", "address=A"))
    answer = ask(wire, PATH.format("geocode", "address=B"))
    assert (answer.status, answer.body["status"]) == (200, "OVER_QUERY_LIMIT")
    assert not {name for name in answer.headers if "limit" in name or "retry" in name}
    assert wire.judge.report().rejected == 1


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [("500", 200, b"UNKNOWN_ERROR"), ("429", 200, b"OVER_QUERY_LIMIT"), ("401", 200, b"DENIED"), ("503", 503, b"<p>")],
)
async def test_injected_errors_are_those_of_the_api(fault: str, status: int, word: bytes) -> None:
    """A status that the API has a word for is that word; others are a page of the servers in front."""
    target = PATH.format("geocode", "address=A&key=canary-0b9e")
    wire = speaks("google-maps")
    [(said, body)] = await wire.exchange(request(target, fault=fault))
    assert said == status
    assert word in body


def test_a_path_that_is_not_there_is_a_page() -> None:
    """404 and no JSON."""
    answer = ask(speaks("google-maps"), "/maps/api/geocode/xml?address=A")
    assert (answer.status, answer.headers["content-type"]) == (404, "text/html; charset=UTF-8")
