"""Who may call, and what they may do: decided here alone, for the gRPC server and the operations port alike.

    callers.admit(credentials) -> Identity      who is it? raises Unauthenticated
    identity.require(role)                      may they do this at all? raises Forbidden

Rule: what isn't allowed is denied, and a refusal never says which token, or which part of one, was wrong. Of a token
only its SHA-256 is known. It is found by one look into a table and then compared in constant time, always once: how
long that takes depends neither on which token it is nor on whether it is one, for who doesn't know a token can't choose
the first bytes of its digest.

Credentials are plain values: the header as it came, and the names in the peer's certificate, which whoever checked the
certificate vouches for.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from apiflux_grpc.core.errors import CredentialsInvalid, CredentialsMissing, Forbidden, KeyUnknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

LONGEST_TOKEN: Final = 8192  # bytes; a longer one is refused before anything reads it
DIGEST: Final = "sha256:"
PREFIX: Final = "apiflux_"  # of our own tokens, so that scanners for leaked secrets can know them
_NOBODY: Final = bytes(32)  # the digest of no known input


class Role(StrEnum):
    """Each may do what those before it may."""

    READER = "reader"  # see pools and keys, estimate
    CALLER = "caller"  # send calls
    ADMIN = "admin"  # change keys, see and end other people's batches


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


def highest(roles: Iterable[Role]) -> Role:
    """The one of them that may do most."""
    return max(roles, key=_RANKS.__getitem__)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many calls in `per` ns."""

    max: int
    per: int


@dataclass(frozen=True, slots=True)
class Access:
    """What one caller may do. None: whatever the pool and the server allow."""

    role: Role = Role.CALLER
    pools: frozenset[str] | None = None
    methods: frozenset[str] | None = None
    paths: tuple[str, ...] | None = None
    weight: float = 1.0
    max_queued_calls: int | None = None
    max_batches: int | None = None
    rate: Rate | None = None

    @property
    def has_quotas(self) -> bool:
        return not (self.max_queued_calls is None and self.max_batches is None and self.rate is None)


EVERYTHING: Final = Access(Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, and what they may do. `until`: ns of the wall clock when their credentials end; None: never."""

    name: str
    access: Access = Access()
    until: int | None = None

    def may(self, role: Role) -> bool:
        return _RANKS[self.access.role] >= _RANKS[role]

    def require(self, role: Role) -> None:
        """Raises Forbidden if the role of this caller isn't enough."""
        if not self.may(role):
            raise Forbidden(f"this needs the role `{role}`, and the role of {self.name} is `{self.access.role}`")


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller as configured: `digests` are the SHA-256 of the tokens, `names` those of certificates."""

    name: str
    access: Access = Access()
    digests: tuple[bytes, ...] = field(default=(), repr=False)
    names: tuple[str, ...] = ()

    @property
    def has_credentials(self) -> bool:
        """False: it is known by name alone, to somebody who issues tokens."""
        return bool(self.digests or self.names)


class Issuer(Protocol):
    """Tokens that somebody else makes."""

    def identity(self, token: str) -> Identity:
        """Whose token this is. Raises Unauthenticated or Forbidden; KeyUnknown if it may be known after `renew`."""
        ...

    async def renew(self) -> None:
        """Wait for what is on its way to tell more tokens, if anything is."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody shows: each `authorization` header, and the names in the certificate of their connection."""

    authorization: tuple[str, ...] = field(default=(), repr=False)
    names: tuple[str, ...] = ()


class Callers:
    """All who may call. False: nobody is configured, so there is nothing to check."""

    def __init__(self, callers: Iterable[Caller] = (), issuer: Issuer | None = None) -> None:
        self._issuer = issuer
        self._by_digest: dict[bytes, tuple[bytes, Identity]] = {}
        self._by_name: dict[str, Identity] = {}
        self._unknown = (_NOBODY, Identity(""))
        for caller in callers:
            identity = Identity(caller.name, caller.access)
            self._by_digest.update((digest, (digest, identity)) for digest in caller.digests)
            self._by_name.update((name, identity) for name in caller.names)

    def __bool__(self) -> bool:
        return bool(self._by_digest or self._by_name or self._issuer)

    @property
    def by_certificate(self) -> bool:
        """Whether a certificate may say who somebody is."""
        return bool(self._by_name)

    def admit(self, credentials: Credentials) -> Identity:
        """Who it is. Raises CredentialsMissing or CredentialsInvalid. A token goes before a certificate."""
        if credentials.authorization:
            return self.of_token(bearer(credentials.authorization))
        for name in credentials.names:
            if identity := self._by_name.get(name):
                return identity
        raise CredentialsInvalid() if credentials.names else CredentialsMissing()

    def of_token(self, token: str) -> Identity:
        """Whose token this is. Raises Unauthenticated; Forbidden if what it claims gives no role."""
        if self._issuer is not None and "." in token:  # none of ours has one, and each of an issuer's has
            return self._issuer.identity(token)
        digest = digest_of(token)
        stored, identity = self._by_digest.get(digest, self._unknown)
        if not hmac.compare_digest(stored, digest):
            raise CredentialsInvalid()
        return identity

    async def admit_soon(self, credentials: Credentials) -> Identity:
        """As `admit`, and if the keys of their issuer are on their way, by those."""
        try:
            return self.admit(credentials)
        except KeyUnknown:
            if self._issuer is not None:
                await self._issuer.renew()
            return self.admit(credentials)

    def __repr__(self) -> str:
        return f"<Callers {len(self._by_digest)} tokens, {len(self._by_name)} names>"


def bearer(authorization: tuple[str, ...]) -> str:
    """The token of the header. Raises CredentialsInvalid if there are several headers, or it isn't a bearer token."""
    if len(authorization) != 1 or len(authorization[0]) > LONGEST_TOKEN + len("bearer "):
        raise CredentialsInvalid()
    scheme, _, token = authorization[0].partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise CredentialsInvalid()
    return token


def digest_of(token: str) -> bytes:
    """What is kept of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def parse_digest(text: str) -> bytes:
    """`sha256:` and 64 hexadecimal digits. Raises ValueError, which doesn't repeat the text: it may be a token."""
    digits = text.removeprefix(DIGEST)
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if not text.startswith(DIGEST) or len(digits) != 64 or len(digest) != 32:
        raise ValueError(f"must be `{DIGEST}` and 64 hexadecimal digits, as `apiflux token new` prints it")
    return digest


def narrowed(mapping: Mapping[str, T], access: Access) -> Mapping[str, T]:
    """Of what is kept by pool, what this caller sees."""
    if access.pools is None:
        return mapping
    return {name: one for name, one in mapping.items() if name in access.pools}
