"""`url` of a line against the base URL of a pool: what path the call gets."""

from __future__ import annotations

import pytest

from apiflux_grpc.jobs.urls import BaseUrl

OPENAI = "https://api.openai.com"
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("base", "url", "path"),
    [
        (OPENAI, CHAT, CHAT),
        (f"{OPENAI}/v1", CHAT, "/chat/completions"),
        (f"{OPENAI}/v1", "/chat/completions", "/chat/completions"),
        (f"{OPENAI}/v1", "chat/completions", "/chat/completions"),
        ("https://api.groq.com/openai/v1", CHAT, "/chat/completions"),
        ("https://api.groq.com/openai/v1", "/openai/v1/chat/completions", "/chat/completions"),
        ("https://api.groq.com/openai", "/openai/v1/chat/completions", CHAT),
        ("https://example.com/v1/v1", CHAT, "/chat/completions"),
        ("https://example.com/v1/v1", "/v1/v1/x", "/x"),
        ("https://example.com/proxy", CHAT, CHAT),
        (OPENAI, f"{OPENAI}{CHAT}", CHAT),
        (f"{OPENAI}/v1", f"{OPENAI}{CHAT}", "/chat/completions"),
        (f"{OPENAI}/v1", f"HTTPS://API.openai.com:443{CHAT}", "/chat/completions"),
        ("http://localhost:80", f"http://localhost{CHAT}", CHAT),
        (f"{OPENAI}/v1", f"{OPENAI}/v1/v1/x", "/v1/x"),
        (f"{OPENAI}/v1", "/v1", "/"),
        (OPENAI, "/v1/a%2Fb/", "/v1/a%2Fb/"),
        ("", CHAT, CHAT),
        ("", f"{OPENAI}{CHAT}", CHAT),
    ],
)
def test_what_base_and_url_share_is_counted_once(base: str, url: str, path: str) -> None:
    """The last segments of the base that are the first of a relative url; of a whole URL, the base at its beginning."""
    assert BaseUrl(base).path_of(url) == (path, ())


@pytest.mark.parametrize(
    "url",
    [
        f"https://api.openai.org{CHAT}",
        f"http://api.openai.com{CHAT}",
        f"https://api.openai.com:8443{CHAT}",
        f"https://api.openai.com@example.com{CHAT}",
        f"https://me@api.openai.com{CHAT}",
        f"//example.com{CHAT}",
        f"//api.openai.com{CHAT}",
        "https://api.openai.com/v2/chat/completions",
        "https://api.openai.com/v11/chat/completions",
        "https://api.openai.com",
    ],
)
def test_a_url_that_leaves_the_base_is_refused(url: str) -> None:
    """Another scheme, host, port, user or path; the text has the base."""
    with pytest.raises(ValueError, match=r"url leaves the pool's base URL https://api\.openai\.com/v1; write the part"):
        BaseUrl(f"{OPENAI}/v1").path_of(url)


@pytest.mark.parametrize("url", ["/v1/../admin", "/v1/./x", "/v1/%2e%2E/x", "..", f"{OPENAI}/v1/../x", "/.%2e"])
def test_segments_of_dots_are_refused(url: str) -> None:
    """An upstream would resolve them, and so leave the base; escaped or not."""
    with pytest.raises(ValueError, match=r'url has a "\." or "\.\." segment; give the path that it leads to'):
        BaseUrl(f"{OPENAI}/v1").path_of(url)


@pytest.mark.parametrize(
    ("base", "url", "write"),
    [
        (f"{OPENAI}/v1", "/v2/chat/completions", "/chat/completions"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", CHAT, "/chat/completions"),
    ],
)
def test_two_versions_are_refused(base: str, url: str, write: str) -> None:
    """The base's and another one's; the text says what to write."""
    with pytest.raises(ValueError, match=f"not the version in the pool's base URL {base}; write {write}$"):
        BaseUrl(base).path_of(url)


def test_a_query_becomes_names_and_values() -> None:
    """In their order, with repeats, empty values and escapes."""
    path, query = BaseUrl(OPENAI).path_of(f"{CHAT}?api-version=2024-10-21&a=&a=1%2B2&b=x+y&c")
    assert (path, query) == (CHAT, (("api-version", "2024-10-21"), ("a", ""), ("a", "1+2"), ("b", "x y"), ("c", "")))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "url is empty"),
        ("?a=1", "url is empty"),
        (f"{CHAT}#top", "fragment"),
        (f"{CHAT}?a=1#top", "fragment"),
        (f"{CHAT}?=1", "without a name"),
        (f"{CHAT}?", "without a name"),
        (f"{CHAT}?a=%ff", "not UTF-8"),
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str, said: str) -> None:
    """Nothing of it is guessed."""
    with pytest.raises(ValueError, match=said):
        BaseUrl(OPENAI).path_of(url)
