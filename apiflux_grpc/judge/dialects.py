"""How well-known APIs tell what is left of a limit, as data.

The rule: a dialect is a row of the table, and whoever speaks one (telling.py) knows none of them by name. Where each
row comes from:

- ietf: draft-ietf-httpapi-ratelimit-headers-11: lists of items, a policy's name as a string, times in whole seconds;
  `t` is the same instant as Retry-After, and the body of a refusal a problem of type quota-exceeded.
- openai: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers: a reset is the time until the
  limit is in its initial state again, as Go writes durations.
- anthropic: https://docs.claude.com/en/api/rate-limits#response-headers: a reset is the instant, in RFC 3339, from
  which the limit is fully replenished. The judge knows one cost, so all three kinds of tokens tell the same.
- github: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api: only the primary limit is
  told; when it is used up, a 403 without Retry-After and the reset in epoch seconds. For a secondary limit, which no
  header tells, the refusal is a 429 with Retry-After.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Reset = Literal["seconds", "go", "rfc3339", "epoch"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one API tells. Words in braces are replaced: {unit}, {name} and {unit_of_quota} by what the limit counts,
    {max} and {window} by the limit, {remaining}, {used} and {reset} by what is left.

    `headers` are told on every answer, once per limit; with `lists` all limits are items of one header, else of limits
    that have the same header the one with the smallest share left is told. `units` has the word, or words, for what is
    counted; what has none isn't told. `reset` is until when there is more (`soonest`) or until all is back (`whole`).
    """

    headers: tuple[tuple[str, str], ...] = ()
    lists: bool = False
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reset: Reset = "seconds"
    resets: Literal["soonest", "whole"] = "soonest"
    status: int = 429  # of a refusal
    retry_after: bool = True
    body: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    # Only the limit of the longest period is told; over one of the others the answer is a 429 with this body.
    secondary: Mapping[str, Any] = field(default_factory=dict)


NONE: Final = Dialect(body={"ok": False, "error": "a limit of this key is used up"})

DIALECTS: Final[Mapping[str, Dialect]] = {
    "none": NONE,
    "ietf": Dialect(
        headers=(
            ("RateLimit-Policy", '"{name}";q={max}{unit_of_quota}{window}'),
            ("RateLimit", '"{name}";r={remaining};t={reset}'),
        ),
        lists=True,
        units={"calls": ("requests",), "cost": ("tokens",)},
        body={
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "violated-policies": ["{name}"],
        },
        content_type="application/problem+json",
    ),
    "openai": Dialect(
        headers=(
            ("x-ratelimit-limit-{unit}", "{max}"),
            ("x-ratelimit-remaining-{unit}", "{remaining}"),
            ("x-ratelimit-reset-{unit}", "{reset}"),
        ),
        units={"calls": ("requests",), "cost": ("tokens",)},
        reset="go",
        resets="whole",
        body={
            "error": {
                "message": "Rate limit reached for {unit}: limit {max}.",
                "type": "{unit}",
                "param": None,
                "code": "rate_limit_exceeded",
            }
        },
    ),
    "anthropic": Dialect(
        headers=(
            ("anthropic-ratelimit-{unit}-limit", "{max}"),
            ("anthropic-ratelimit-{unit}-remaining", "{remaining}"),
            ("anthropic-ratelimit-{unit}-reset", "{reset}"),
        ),
        units={"calls": ("requests",), "cost": ("tokens", "input-tokens", "output-tokens")},
        reset="rfc3339",
        resets="whole",
        body={
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "This request would exceed the rate limit of {max} {unit}.",
            },
        },
    ),
    "github": Dialect(
        headers=(
            ("x-ratelimit-limit", "{max}"),
            ("x-ratelimit-remaining", "{remaining}"),
            ("x-ratelimit-used", "{used}"),
            ("x-ratelimit-reset", "{reset}"),
            ("x-ratelimit-resource", "core"),
        ),
        units={"calls": ("requests",)},
        reset="epoch",
        status=403,
        retry_after=False,
        body={
            "message": "API rate limit exceeded.",
            "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api",
        },
        secondary={
            "message": "You have exceeded a secondary rate limit.",
            "documentation_url": "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api"
            "#about-secondary-rate-limits",
        },
    ),
}
