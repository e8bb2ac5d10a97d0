"""What an HTTP pool's settings refuse."""

from __future__ import annotations

import pytest

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream
from apiflux_grpc.adapters.upstream_http import HttpUpstream


@pytest.mark.parametrize(
    ("base_url", "fault"),
    [
        ("ftp://host", "http"),
        ("http://", "host"),
        ("http://user:pass@host", "credentials"),
        ("http://host/?a=b", "query"),
        ("http://host/#a", "fragment"),
    ],
)
def test_base_urls_that_are_refused(base_url: str, fault: str) -> None:
    """What can't be used is refused when it is configured, not at the first call."""
    with pytest.raises(ValueError, match=fault):
        HttpSettings(base_url=base_url)


def test_a_key_file_needs_a_certificate() -> None:
    """A private key without its certificate is refused."""
    with pytest.raises(ValueError, match="needs cert_file"):
        HttpSettings(base_url="https://host", key_file="key.pem")


@pytest.mark.parametrize("upstream", [HttpUpstream, AiohttpUpstream])
def test_an_unreadable_ca_file(upstream: type[HttpUpstream | AiohttpUpstream]) -> None:
    """A CA file that isn't there is told at the start."""
    with pytest.raises(OSError, match="No such file"):
        upstream(HttpSettings(base_url="https://host", ca_file="/nonexistent/ca.pem"))
