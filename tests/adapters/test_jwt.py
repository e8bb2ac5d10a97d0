"""Tokens of an issuer: only what it has signed, with a key that it has published, in a way that is allowed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from apiflux_grpc.adapters.jwt import (
    EVERY,
    PAUSE,
    JwtVerifier,
    KeysUnusable,
    from_file,
    from_url,
    keys_of,
)
from apiflux_grpc.core.errors import CredentialsInvalid, KeyUnknown

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
OTHER = RSAKey.generate_key(2048, {"kid": "other"})
CLAIMS = {"sub": "canary-caller", "n": 1}
ALGORITHMS = ("RS256", "PS256", "ES256")


def public(*keys: Any, **more: Any) -> list[dict[str, Any]]:
    return [{**key.as_dict(private=False), **more} for key in keys]


def jwks(*rows: Any) -> bytes:
    return json.dumps({"keys": rows}).encode()


def signed(key: Any = RSA, alg: str = "RS256", **header: Any) -> str:
    """A token of this key; a header of None is left out."""
    made = {"alg": alg, "kid": key.kid} | header
    return jwt.encode({k: v for k, v in made.items() if v is not None}, CLAIMS, key, algorithms=[alg])


def b64(content: bytes | dict[str, Any]) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any] | bytes, secret: bytes = b"") -> str:
    """A token with this header, signed as HS256 with this secret."""
    what = f"{b64(header)}.{b64(CLAIMS)}"
    return f"{what}.{b64(hmac.digest(secret, what.encode(), hashlib.sha256))}"


def rehead(token: str, header: bytes | dict[str, Any]) -> str:
    """The token with another header before the same payload and signature."""
    return ".".join([b64(header), *token.split(".")[1:]])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Source:
    """A JWKS that may change, and how often it was read."""

    def __init__(self, *rows: Any) -> None:
        self.content = jwks(*rows)
        self.error: Exception | None = None
        self.read = 0

    def __call__(self) -> bytes:
        self.read += 1
        if self.error is not None:
            raise self.error
        return self.content


def verifier(*rows: Any, algorithms: tuple[str, ...] = ALGORITHMS) -> tuple[JwtVerifier, Source, Clock]:
    source, clock = Source(*rows), Clock()
    made = JwtVerifier(source, algorithms, clock=clock)
    made.load()
    return made, source, clock


KNOWN = verifier(*public(RSA, EC))[0]


@pytest.mark.parametrize(
    "token",
    [
        signed(),
        signed(alg="PS256"),
        signed(EC, "ES256"),
        signed(typ="JWT"),
        signed(typ="at+jwt"),
        signed(EC, "ES256", kid=None),  # the one key that fits
    ],
    ids=["rsa", "pss", "ec", "typ", "access-token", "no-kid"],
)
def test_what_the_issuer_has_signed_is_what_it_says(token: str) -> None:
    """By any of its keys and of the algorithms; the second time by what is remembered."""
    assert KNOWN.claims(token) == KNOWN.claims(token) == CLAIMS


PEM = RSA.as_pem(private=False)
GOOD = signed()
ATTACKS = {
    "alg none": f"{b64({'alg': 'none', 'kid': 'rsa'})}.{b64(CLAIMS)}.",
    "alg none, signed": rehead(GOOD, {"alg": "none", "kid": "rsa"}),
    "alg None": rehead(GOOD, {"alg": "NoNe", "kid": "rsa"}),
    "alg missing": rehead(GOOD, {"kid": "rsa"}),
    "alg a list": rehead(GOOD, {"alg": ["RS256"], "kid": "rsa"}),
    "HS256 with the public key": forged({"alg": "HS256", "kid": "rsa"}, PEM),
    "HS256 with the modulus": forged({"alg": "HS256", "kid": "rsa"}, str(RSA.as_dict(private=False)["n"]).encode()),
    "HS256 called RS256": forged({"alg": "RS256", "kid": "rsa"}, PEM),
    "RS384 isn't in the list": signed(alg="RS384"),
    "its own key": signed(OTHER, kid="rsa"),
    "jwk": signed(OTHER, kid="rsa", jwk=public(OTHER)[0]),
    "jku": signed(jku="https://evil.example/keys"),
    "x5u": signed(x5u="https://evil.example/cert"),
    "x5c": signed(x5c=["MIIB"]),
    "crit": rehead(GOOD, {"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}),
    "b64": rehead(GOOD, {"alg": "RS256", "kid": "rsa", "b64": False}),
    "kid of another kind": signed(kid="ec"),
    "kid a path": signed(kid="../../dev/null"),
    "kid a list": rehead(GOOD, {"alg": "RS256", "kid": ["rsa"]}),
    "kid twice": rehead(GOOD, b'{"alg":"RS256","kid":"rsa","kid":"rsa"}'),
    "alg twice": rehead(GOOD, b'{"alg":"none","alg":"RS256","kid":"rsa"}'),
    "typ of a logout": signed(typ="logout+jwt"),
    "typ a number": rehead(GOOD, {"alg": "RS256", "kid": "rsa", "typ": 1}),
    "JWE": ".".join([b64({"alg": "RSA-OAEP", "enc": "A256GCM"}), *["AAAA"] * 4]),
    "JWE in three parts": rehead(GOOD, {"alg": "RS256", "enc": "A256GCM", "kid": "rsa"}),
    "another payload": ".".join([GOOD.split(".")[0], b64({"sub": "admin"}), GOOD.split(".")[2]]),
    "no signature": ".".join(GOOD.split(".")[:2]) + ".",
    "cut": GOOD[:-4],
    "padding": GOOD + "==",
    "two parts": ".".join(GOOD.split(".")[:2]),
    "dots": "..",
    "not base64": f"{'é'}.{GOOD}",
    "header a list": rehead(GOOD, b"[]"),
    "header deep": rehead(GOOD, b"[" * 3000),
    "surrogate": "\udcff.a.b",
}  # fmt: skip


@pytest.mark.parametrize("token", ATTACKS.values(), ids=ATTACKS)
async def test_what_it_has_not_signed_so_is_refused(token: str) -> None:
    """Whatever else it says of itself, in the words that any bad credential hears."""
    made, source, _ = verifier(*public(RSA, EC))
    with pytest.raises(CredentialsInvalid) as caught:
        made.claims(token)
    assert str(caught.value) == str(CredentialsInvalid())
    assert source.read == 1
    await made.renew()


def test_without_a_kid_nothing_is_guessed() -> None:
    """If two keys could have signed it."""
    made, *_ = verifier(*public(RSA, OTHER))
    with pytest.raises(CredentialsInvalid):
        made.claims(signed(kid=None))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "rsa", "alg": "HS256"}],
        public(RSAKey.generate_key(2048), use="enc"),
        public(RSA, key_ops=["encrypt"]),
        [{**public(RSA)[0], "n": "AQAB"}],
        [{"kty": "RSA"}, 1, None, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}],
        [{"kty": "OKP", "crv": "X25519", "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"}],
    ],
)
def test_a_set_without_a_public_key_to_verify_with_is_unusable(rows: list[Any]) -> None:
    """A secret that both sides would know is none, nor is one that is too short."""
    with pytest.raises(KeysUnusable):
        keys_of(jwks(*rows))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"keys": {}}', b"[" * 100_000, b"\xff", b" " * (1 << 19)])
def test_what_is_no_set_of_keys_is_unusable(content: bytes) -> None:
    """However it comes."""
    with pytest.raises(KeysUnusable):
        keys_of(content)


def test_a_private_key_in_the_set_is_used_as_the_public_one() -> None:
    """Somebody has published too much; nothing of it is kept."""
    (key,) = keys_of(jwks(RSA.as_dict(private=True)))
    assert not key.key.is_private


async def test_a_key_that_is_not_known_is_fetched_once_in_a_while() -> None:
    """A new key is there after one fetch, and a flood of made-up ones costs one in PAUSE."""
    made, source, clock = verifier(*public(RSA))
    source.content = jwks(*public(RSA, OTHER))
    with pytest.raises(CredentialsInvalid) as caught:
        made.claims(signed(OTHER))
    assert type(caught.value) is CredentialsInvalid  # it was read just now
    clock.now += PAUSE
    for _ in range(5):
        with pytest.raises(KeyUnknown):
            made.claims(signed(OTHER))
    await made.renew()
    assert made.claims(signed(OTHER)) == CLAIMS
    for number in range(5):
        with pytest.raises(CredentialsInvalid):
            made.claims(signed(OTHER, kid=f"made-up-{number}"))
    assert source.read == 2


async def test_a_key_that_was_taken_back_ends_what_was_remembered(caplog: pytest.LogCaptureFixture) -> None:
    """Within EVERY; and keys that can't be fetched leave those that are there, which the log says."""
    made, source, clock = verifier(*public(RSA, OTHER))
    token = signed(OTHER)
    assert made.claims(token) == CLAIMS
    for error in (OSError("down"), KeysUnusable("is no JWKS"), IncompleteRead(b"{")):
        source.error = error
        clock.now += EVERY
        assert made.claims(token) == CLAIMS
        await made.renew()
        assert made.claims(token) == CLAIMS
    told = [vars(record)["why"] for record in caplog.records if "can't be fetched" in record.getMessage()]
    assert told == ["OSError", "is no JWKS", "IncompleteRead"]
    source.error, source.content = None, jwks(*public(RSA))
    clock.now += EVERY
    assert made.claims(token) == CLAIMS
    await made.renew()
    with pytest.raises(CredentialsInvalid):
        made.claims(token)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """At the start, and as what it is."""
    made = JwtVerifier(from_file(tmp_path / "keys"), ALGORITHMS)
    with pytest.raises(FileNotFoundError):
        made.load()
    (tmp_path / "keys").write_bytes(jwks(*public(RSA)))
    made.load()
    assert made.claims(GOOD) == CLAIMS


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server of keys, and what it answers by path: bytes, or where it redirects to."""
    answers: dict[str, Any] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # as http.server has it
            found = answers.get(self.path, b"")
            self.send_response(200 if isinstance(found, bytes) else 302)
            if isinstance(found, bytes):
                self.end_headers()
                self.wfile.write(found)
            else:
                self.send_header("Location", found)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_keys_are_fetched_over_http_from_there_alone(
    served: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by way of a proxy of the environment, and not from where it is redirected to."""
    url, answers = served
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answers.update({"/keys": jwks(*public(RSA)), "/moved": "/keys"})
    made = JwtVerifier(from_url(f"{url}/keys"), ALGORITHMS)
    with pytest.raises(KeyUnknown):
        made.claims(GOOD)
    await made.renew()
    assert made.claims(GOOD) == CLAIMS
    with pytest.raises(OSError, match="302"):
        await asyncio.to_thread(from_url(f"{url}/moved"))
