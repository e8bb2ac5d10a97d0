"""An issuer whose tokens say who calls: `[auth.jwt]`.

Rule: what isn't said can't be guessed: issuer, audience and algorithms are required.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from apiflux_grpc.core.callers import Role
from apiflux_grpc.core.claims import OWN_ROLES, Rules
from apiflux_grpc.settings.types import JwtSettings

if TYPE_CHECKING:
    from apiflux_grpc.settings.sources import Sources


def jwt_of(sources: Sources) -> JwtSettings | None:
    """None: there is no such table."""
    table, findings = sources.file.auth.jwt, sources.findings
    if table is None:
        return None
    here = sources.toml_place("auth", "jwt")
    if find_spec("joserfc") is None:
        findings.fault(here, "needs joserfc: pip install 'apiflux-grpc[jwt]'")
    for name in ("issuer", "audience", "algorithms"):
        if not getattr(table, name):
            findings.fault((*here, name), "is missing")
    given = [name for name in ("jwks_file", "jwks_url") if getattr(table, name) is not None]
    findings.exclusive(here, given, ("jwks_file", "jwks_url"))
    if table.roles and table.role_claim is None:
        findings.fault((*here, "roles"), "needs `role_claim`, the claim whose values these are")
    rules = Rules(
        issuer=table.issuer or "",
        audience=table.audience or "",
        algorithms=tuple(one for one in table.algorithms or () if one is not None),
        caller_claim=table.caller_claim,
        role_claim=table.role_claim or "",
        roles={text: Role(role) for text, role in table.roles.items()} or OWN_ROLES,
        pools_claim=table.pools_claim or "",
    )
    return JwtSettings(rules, None if table.jwks_file is None else sources.path(table.jwks_file), table.jwks_url or "")
