"""Tokens that an issuer has signed (JWT), and the issuer's public keys (a JWKS), from a file or over HTTPS.

Rule: of what a token says about itself only `alg` and `kid` are believed, and they only choose among what is configured
and what the issuer has published. A key or an address that a token brings along is a reason to refuse it. A token is a
JWS in its compact form, signed by an asymmetric algorithm of the list, and nothing else.

Keys are fetched again now and then, and sooner for a `kid` that isn't known, but then at most once in PAUSE: a flood of
made-up ones costs the issuer nothing. Keys that can't be fetched leave those that are there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import time
import urllib.request
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, NoReturn

from joserfc import jwk, jws
from joserfc.errors import JoseError

from apiflux_grpc.core.errors import CredentialsInvalid, KeyUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_log: Final = logging.getLogger("apiflux.server")

EVERY: Final = 300.0  # seconds after which keys that are used are fetched again
PAUSE: Final = 30.0  # seconds at least between two fetches
TIMEOUT: Final = 5.0  # seconds of one
LARGEST: Final = 1 << 18  # bytes of a JWKS
MOST_KEYS: Final = 100
REMEMBERED: Final = 10_000  # tokens whose signature was found good
LEAST_RSA: Final = 2048  # bits
_TYPES: Final = ("jwt", "at+jwt", "application/at+jwt")
_OUTSIDE: Final = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "enc", "zip"})
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "Ed25519": "Ed25519"}


class KeysUnusable(Exception):
    """What came isn't a set of keys; the text says what is wrong, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key of the issuer's. "" of `kid` and `alg`: it doesn't say."""

    kid: str
    alg: str
    kind: str  # RSA, or the curve
    key: Any

    def fits(self, alg: str) -> bool:
        """Whether it may have signed with this algorithm."""
        return self.alg in ("", alg) and self.kind == _CURVES.get(alg, "RSA")


class JwtVerifier:
    """Verifies tokens by the keys that `read` gets, which blocks. Owner: the server's loop."""

    def __init__(
        self,
        read: Callable[[], bytes],
        algorithms: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._algorithms = frozenset(algorithms)
        self._clock = clock
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched_at: float | None = None  # or tried
        self._fetching: asyncio.Task[None] | None = None
        self._good: dict[bytes, Mapping[str, object]] = {}

    def load(self) -> None:
        """Read the keys now. Raises OSError or KeysUnusable."""
        self._use(keys_of(self._read()))

    def claims(self, token: str) -> Mapping[str, object]:
        """What the token says, if the issuer signed it. Raises CredentialsInvalid, or KeyUnknown for now."""
        if self._fetched_at is None or self._clock() - self._fetched_at >= EVERY:
            self._fetch()
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        if (known := self._good.get(digest)) is not None:
            return known
        header = _header(token)
        claims = self._verified(token, header)
        if len(self._good) >= REMEMBERED:
            self._good.clear()
        self._good[digest] = claims
        return claims

    async def renew(self) -> None:
        """Wait until the keys that are being fetched are here, if any are."""
        if self._fetching is not None:
            await asyncio.wait([self._fetching])

    def _verified(self, token: str, header: Mapping[str, object]) -> Mapping[str, object]:
        alg, kid = header["alg"], header.get("kid")
        if not isinstance(alg, str) or alg not in self._algorithms:
            raise CredentialsInvalid()
        for key in self._candidates(alg, kid):
            try:
                signed = jws.deserialize_compact(token, key.key, algorithms=[alg])
            except (JoseError, ValueError, TypeError):
                continue
            return _object(signed.payload or b"")
        raise CredentialsInvalid()

    def _candidates(self, alg: str, kid: object) -> list[PublicKey]:
        if kid is None:
            fitting = [key for key in self._keys if key.fits(alg)]
            if len(fitting) != 1:  # which one isn't guessed
                raise CredentialsInvalid()
            return fitting
        named = [key for key in self._keys if key.kid == kid]
        if not named:
            if self._fetch():
                raise KeyUnknown()
            raise CredentialsInvalid()
        return [key for key in named if key.fits(alg)]

    def _fetch(self) -> bool:
        """Whether keys are being fetched."""
        if self._fetching is not None:
            return True
        if self._fetched_at is not None and self._clock() - self._fetched_at < PAUSE:
            return False
        self._fetched_at = self._clock()
        self._fetching = asyncio.get_running_loop().create_task(self._renew())
        return True

    async def _renew(self) -> None:
        try:
            self._use(keys_of(await asyncio.to_thread(self._read)))
        except (OSError, HTTPException, KeysUnusable) as error:
            known = (
                error.strerror if isinstance(error, OSError) else str(error) if isinstance(error, KeysUnusable) else ""
            )
            why = known or type(error).__name__
            _log.warning("the issuer's keys can't be fetched", extra={"why": why, "have": len(self._keys)})
        finally:
            self._fetching = None

    def _use(self, keys: tuple[PublicKey, ...]) -> None:
        if [(key.kid, key.key.as_dict()) for key in keys] != [(key.kid, key.key.as_dict()) for key in self._keys]:
            self._good.clear()  # one of them may have been taken back
            self._keys = keys
        self._fetched_at = self._clock()

    def __repr__(self) -> str:
        return f"<JwtVerifier {len(self._keys)} keys>"


def keys_of(content: bytes) -> tuple[PublicKey, ...]:
    """The keys of a JWKS that can verify. Raises KeysUnusable if there are none."""
    if len(content) > LARGEST:
        raise KeysUnusable(f"has more than {LARGEST} bytes")
    try:
        rows = json.loads(content)["keys"]
        assert isinstance(rows, list)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        raise KeysUnusable("is no JWKS: an object with a list of `keys`") from None
    found = tuple(key for row in rows[:MOST_KEYS] if (key := _key_of(row)) is not None)
    if not found:
        raise KeysUnusable("has no public key that can verify a signature: RSA of 2048 bits or more, EC, or Ed25519")
    return found


def _key_of(row: object) -> PublicKey | None:
    """None: it isn't for this, such as one to encrypt with, or a secret that both sides would know."""
    if not isinstance(row, dict) or row.get("use", "sig") != "sig":
        return None
    if not isinstance(operations := row.get("key_ops", ["verify"]), list) or "verify" not in operations:
        return None
    kid, alg = row.get("kid", ""), row.get("alg", "")
    names = ("kty", "n", "e") if row.get("kty") == "RSA" else ("kty", "crv", "x", "y")
    public = {name: row[name] for name in names if isinstance(row.get(name), str)}
    kind = "RSA" if public.get("kty") == "RSA" else public.get("crv", "")
    if not isinstance(kid, str) or not isinstance(alg, str) or public.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if kind != "RSA" and kind not in _CURVES.values():
        return None
    try:
        if kind == "RSA" and int.from_bytes(_bytes(public["n"])).bit_length() < LEAST_RSA:
            return None
        return PublicKey(kid, alg, kind, jwk.import_key(public))
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def _header(token: str) -> Mapping[str, object]:
    """What a token says of itself. Raises CredentialsInvalid if it is none that is taken here."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts) or not token.isascii():
        raise CredentialsInvalid()
    try:
        header = _object(_bytes(parts[0]))
    except ValueError:
        raise CredentialsInvalid() from None
    kid, typ = header.get("kid"), header.get("typ", "jwt")
    if "alg" not in header or not _OUTSIDE.isdisjoint(header):
        raise CredentialsInvalid()
    if not (kid is None or isinstance(kid, str)) or not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise CredentialsInvalid()
    return header


def _object(content: bytes) -> Mapping[str, object]:
    """Raises CredentialsInvalid if it is no JSON object, or one with a name twice."""
    try:
        found = json.loads(content, object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError):
        raise CredentialsInvalid() from None
    if not isinstance(found, dict):
        raise CredentialsInvalid()
    return found


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is there twice")
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _bytes(text: str) -> bytes:
    """Base64 as RFC 7515 has it: without padding. Raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


# -- where a JWKS is --------------------------------------------------------------------------


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None  # and so it is an HTTPError


def from_file(path: Path) -> Callable[[], bytes]:
    """Reads this file."""

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)

    return read


def from_url(url: str) -> Callable[[], bytes]:
    """Reads what is at this address: no redirects, no proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def read() -> bytes:
        request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})
        with opener.open(request, timeout=TIMEOUT) as response:
            content: bytes = response.read(LARGEST + 1)
            return content

    return read
