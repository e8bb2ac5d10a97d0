"""Google Maps web services: geocoding, directions, distances, places, elevation and time zones, as JSON.

Its answers: https://developers.google.com/maps/documentation/geocoding/requests-geocoding and the pages of the others.
Its errors are answers, too: 200, and `status` in the body says what it was. No header tells a limit.
https://googlemaps.github.io/google-maps-services-js/enums/Status.html
"""

from collections.abc import Mapping
from typing import Final

from apiflux_grpc.judge.apis.api import Api, Asked, Route, Said, Trouble, Usage, phrase
from apiflux_grpc.judge.dialects import Dialect
from apiflux_grpc.judge.places import X_COST, KeyIn

JSON: Final = "application/json; charset=UTF-8"
MOST_PLACES: Final = 25  # of a matrix, at each side: the API takes no more
MOST_LOCATIONS: Final = 512
HTML: Final = "text/html; charset=UTF-8"
ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("INVALID_REQUEST", "The request is invalid."),
    401: ("REQUEST_DENIED", "The provided API key is missing or invalid."),
    403: ("REQUEST_DENIED", "The key may not use this API."),
    429: ("OVER_QUERY_LIMIT", "You have exceeded your rate limit for this API."),
    500: ("UNKNOWN_ERROR", "The server had an error; the request may succeed if you try again."),
}


def _error(trouble: Trouble) -> Said:
    if trouble.status not in ERRORS:  # a page of the servers in front
        title = f"Error {trouble.status} ({phrase(trouble.status)})"
        return Said(trouble.status, f"<!DOCTYPE html><title>{title}</title><p>{title}</p>", HTML)
    return Said(200, _failed(trouble.status, trouble.message), JSON)


def _failed(status: int, message: str = "") -> dict[str, object]:
    word, unsaid = ERRORS[status]
    return {"error_message": message or unsaid, "results": [], "status": word}


def _missing(name: str) -> Trouble:
    return Trouble(400, f"Missing the '{name}' parameter.", name)


# -- a place on the map --------------------------------------------------------------------------


def _location(seed: int) -> dict[str, float]:
    return {"lat": round(seed % 120_000 / 1000 - 60, 6), "lng": round(seed // 120_000 % 360_000 / 1000 - 180, 6)}


def _place(asked: Asked) -> dict[str, object]:
    at = _location(asked.seed)
    known = next((asked.query[name] for name in ("address", "query", "input") if name in asked.query), None)
    address = known or f"{asked.seed % 200 + 1} Main Street, Springfield"
    return {
        "formatted_address": address,
        "name": address,
        "geometry": {
            "location": at,
            "location_type": "ROOFTOP",
            "viewport": {
                "northeast": {"lat": at["lat"] + 0.001, "lng": at["lng"] + 0.001},
                "southwest": {"lat": at["lat"] - 0.001, "lng": at["lng"] - 0.001},
            },
        },
        "place_id": asked.query.get("place_id") or f"ChIJ{asked.id}",
        "types": ["street_address"],
    }


def _geocode(asked: Asked, usage: Usage) -> object:
    place = _place(asked)
    place["address_components"] = [{"long_name": "Springfield", "short_name": "Springfield", "types": ["locality"]}]
    return {"results": [place], "status": "OK"}


def _places(asked: Asked, usage: Usage) -> object:
    return {"html_attributions": [], "results": [_place(asked)], "status": "OK"}


def _details(asked: Asked, usage: Usage) -> object:
    return {"html_attributions": [], "result": _place(asked), "status": "OK"}


def _candidates(asked: Asked, usage: Usage) -> object:
    return {"candidates": [_place(asked)], "status": "OK"}


def _predictions(asked: Asked, usage: Usage) -> object:
    place = _place(asked)
    return {"predictions": [{"description": place["name"], "place_id": place["place_id"]}], "status": "OK"}


# -- ways ----------------------------------------------------------------------------------------


def _way(seed: int) -> dict[str, object]:
    meters = seed % 500_000 + 100
    return {
        "distance": {"text": f"{meters / 1000:.1f} km", "value": meters},
        "duration": {"text": f"{meters // 900 + 1} mins", "value": meters // 15},
    }


def _directions(asked: Asked, usage: Usage) -> object:
    leg = {
        **_way(asked.seed),
        "start_address": asked.query["origin"],
        "end_address": asked.query["destination"],
        "start_location": _location(asked.seed),
        "end_location": _location(asked.seed // 7),
        "steps": [],
    }
    route = {"summary": "Main Street", "legs": [leg], "overview_polyline": {"points": ""}, "warnings": []}
    return {"geocoded_waypoints": [{"geocoder_status": "OK"}] * 2, "routes": [route], "status": "OK"}


def _distances(asked: Asked, usage: Usage) -> object:
    starts, ends = (asked.query[name].split("|")[:MOST_PLACES] for name in ("origins", "destinations"))
    rows = [
        {"elements": [{"status": "OK", **_way(asked.seed // (row * len(ends) + at + 1))} for at in range(len(ends))]}
        for row in range(len(starts))
    ]
    return {"origin_addresses": starts, "destination_addresses": ends, "rows": rows, "status": "OK"}


# -- of a point ----------------------------------------------------------------------------------


def _elevation(asked: Asked, usage: Usage) -> object:
    results = [
        {"elevation": asked.seed // (at + 1) % 3000, "location": _location(asked.seed // (at + 1)), "resolution": 9.5}
        for at in range(min(MOST_LOCATIONS, asked.query["locations"].count("|") + 1))
    ]
    return {"results": results, "status": "OK"}


def _time_zone(asked: Asked, usage: Usage) -> object:
    zone = {"timeZoneId": "Etc/UTC", "timeZoneName": "Coordinated Universal Time"}
    return {"dstOffset": 0, "rawOffset": 0, **zone, "status": "OK"}


OVER_LIMIT: Final = Dialect(status=200, retry_after=False, body=_failed(429), content_type=JSON)

GOOGLE_MAPS: Final = Api(
    key_in=KeyIn("query", "key"),
    dialect=OVER_LIMIT,
    error=_error,
    missing=_missing,
    routes=tuple(
        Route("GET", f"/maps/api/{path}/json", answer, needs)
        for path, answer, needs in (
            ("geocode", _geocode, ("address|latlng|place_id|components",)),
            ("directions", _directions, ("origin", "destination")),
            ("distancematrix", _distances, ("origins", "destinations")),
            ("place/details", _details, ("place_id",)),
            ("place/textsearch", _places, ("query",)),
            ("place/nearbysearch", _places, ("location",)),
            ("place/findplacefromtext", _candidates, ("input", "inputtype")),
            ("place/autocomplete", _predictions, ("input",)),
            ("elevation", _elevation, ("locations",)),
            ("timezone", _time_zone, ("location", "timestamp")),
        )
    ),
    cost_in=X_COST,
)
