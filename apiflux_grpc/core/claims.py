"""Who a token of somebody else's issuer is, by what it claims.

Rule: whoever verified the signature says only that the issuer has written this. That it is meant for us, now, and for
whom, is checked here on every request: `iss`, `aud`, `exp` and `nbf` must all be there and be right. What a claim
doesn't grant isn't granted.

A caller of the configuration without credentials of its own is one of these, by its name: it has what is written there
and nothing by claims. A name that a caller with credentials has is no other's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core.callers import Access, Identity, Role, highest
from apiflux_grpc.core.errors import CredentialsExpired, CredentialsInvalid, Forbidden
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from apiflux_grpc.core.callers import Caller

    Claims = Mapping[str, object]

# Asymmetric ones alone: with HS256 whoever knows the public key, everybody, could sign.
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    "Ed25519",
)
LEEWAY: Final = 10 * SECOND  # that the issuer's clock may be ahead of ours
LONGEST_NAME: Final = 256
OWN_ROLES: Final = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a token must claim, and where it says what its caller may do.

    `role_claim` "": all are callers; else one of `roles` must be there. `pools_claim` "": all pools; else those there.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    caller_claim: str = "sub"
    role_claim: str = ""
    roles: Mapping[str, Role] = field(default_factory=lambda: OWN_ROLES)
    pools_claim: str = ""


class Verifier(Protocol):
    """Knows the issuer's keys."""

    def claims(self, token: str) -> Claims:
        """What the token says, if the issuer signed it. Raises CredentialsInvalid, or KeyUnknown for now."""
        ...

    async def renew(self) -> None:
        """Wait until the keys that are being fetched are here, if any are."""
        ...


class Issued:
    """The callers of one issuer. `wall` tells ns of the wall clock."""

    def __init__(self, rules: Rules, verifier: Verifier, callers: Iterable[Caller], wall: Callable[[], int]) -> None:
        self._rules = rules
        self._verifier = verifier
        self._wall = wall
        self.renew = verifier.renew
        callers = list(callers)
        self._named = {one.name: one.access for one in callers if not one.has_credentials}
        self._taken = frozenset(one.name for one in callers if one.has_credentials)

    def identity(self, token: str) -> Identity:
        """Whose token this is. Raises Unauthenticated or Forbidden."""
        return self._identity(self._verifier.claims(token))

    def _identity(self, claims: Claims) -> Identity:
        rules, now = self._rules, self._wall()
        if claims.get("iss") != rules.issuer or rules.audience not in texts_in(claims.get("aud")):
            raise CredentialsInvalid()
        begins, ends = instant(claims.get("nbf")), instant(claims.get("exp"))
        if begins is None or ends is None or now < begins - LEEWAY:
            raise CredentialsInvalid()
        if now >= ends:
            raise CredentialsExpired()
        name = claim(claims, rules.caller_claim)
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise CredentialsInvalid()
        if name in self._taken:
            raise CredentialsInvalid()
        access = self._named.get(name)
        return Identity(name, self._access(claims) if access is None else access, ends)

    def _access(self, claims: Claims) -> Access:
        rules = self._rules
        role, pools = Role.CALLER, None
        if rules.role_claim:
            found = [rules.roles[text] for text in texts_in(claim(claims, rules.role_claim)) if text in rules.roles]
            if not found:
                raise Forbidden("the token has no role that may use this server")
            role = highest(found)
        if rules.pools_claim:
            pools = frozenset(texts_in(claim(claims, rules.pools_claim)))
        return Access(role, pools)


def claim(claims: Claims, name: str) -> object:
    """A claim by its name, or by the names that lead to it, with dots between them: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def texts_in(value: object) -> list[str]:
    """The texts of a claim that is one, or a list of some."""
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def instant(value: object) -> int | None:
    """Seconds of the wall clock, as ns; None: it is no such thing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value * SECOND) if abs(value) < 1e12 else None  # no NaN is
