"""What a Redis URL means, and what is said of one that means nothing: never a part of its password."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.redis_url import RedisUrl, parse_redis_url

SECRET = "s3cr/et"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://h", RedisUrl("one", (("h", 6379),))),
        ("redis://u:p%40@[::1]:1/2", RedisUrl("one", (("::1", 1),), db=2, username="u", password="p@")),
        ("REDIS://:p@h", RedisUrl("one", (("h", 6379),), password="p")),
        ("unix:///run/r%20s?db=3", RedisUrl("one", (), socket="/run/r s", db=3)),
        (
            "rediss://h?ssl_ca_certs=/a/ca.pem&ssl_check_hostname=false",
            RedisUrl("one", (("h", 6379),), tls=True, ssl={"ssl_ca_certs": "/a/ca.pem", "ssl_check_hostname": False}),
        ),
        (
            "redis+sentinel://:p@a,b:1/main/4?sentinel_password=q",
            RedisUrl(
                "sentinel",
                (("a", 26379), ("b", 1)),
                service="main",
                db=4,
                password="p",
                sentinel={"password": "q"},
            ),
        ),
        ("rediss+cluster://a:1,b", RedisUrl("cluster", (("a", 1), ("b", 6379)), tls=True)),
    ],
)
def test_a_url_names_a_place(url: str, place: RedisUrl) -> None:
    """One server, a socket, Sentinels or a cluster, with or without TLS."""
    assert parse_redis_url(url) == place


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "must be a URL"),
        ("h:6379", "must be a URL"),
        ("http://h", "must be a URL"),
        ("redis+other://h", "must be a URL"),
        ("redis://", "must be a URL"),
        (f"redis://h:{SECRET}", "percent-encoded"),
        ("redis://h:1/x", "number of the database"),
        ("redis://a,b", "several servers"),
        ("redis+sentinel://a", "must name the primary"),
        ("redis+cluster://a/2", "only one"),
        ("unix://run/r", "whole path"),
        ("unix+cluster:///run/r", "whole path"),
        (f"redis://h?{SECRET}=1", "these are: db, ssl_ca_certs"),
        ("redis://h?ssl_ca_certs=x", "only rediss:// speaks"),
        ("rediss://h?ssl_check_hostname=no", "true or false"),
    ],
)
def test_a_url_that_names_none_is_refused(url: str, text: str) -> None:
    """With what it must be."""
    with pytest.raises(ValueError, match=text) as caught:
        parse_redis_url(url)
    assert SECRET not in str(caught.value)


def test_a_place_is_shown_without_its_password() -> None:
    """Whoever prints it, however."""
    place = parse_redis_url("rediss+sentinel://user:hunter2@a,b/main/1?sentinel_username=one&sentinel_password=hunter3")
    assert str(place) == "rediss+sentinel://a:26379,b:26379/main/1"
    for text in (str(place), repr(place), f"{place}"):
        assert not any(secret in text for secret in ("hunter", "user", "one:"))
