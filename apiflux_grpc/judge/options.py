"""What a judge is told at its start, and how the command line spells it.

The rule: a text that can't be read is refused with the form that it must have; a secret is never shown.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from apiflux_grpc.core import units
from apiflux_grpc.core.units import parse_duration
from apiflux_grpc.judge.apis.known import APIS
from apiflux_grpc.judge.dialects import DIALECTS
from apiflux_grpc.judge.faults import Chance, Rejection
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.places import CostIn, KeyIn


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What a judge is told at its start. `keys` maps labels to secrets; `latency_ns` is a range, drawn uniformly.

    A fault comes after the latency. With a certificate and its key (PEM files) it speaks TLS, the control endpoints
    too. Where keys and costs are, and what answers tell of limits, is as the API that it speaks has it, unless said
    otherwise. Raises ValueError for an unknown API or dialect, a share that is none, a rejection whose label is none of
    `keys`, and where one of the two files is missing or unreadable.
    """

    keys: Mapping[str, str] = field(repr=False)
    limits: tuple[Limit, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    speak: str = "plain"  # the API whose paths, answers and errors it has
    key_in: KeyIn | None = None
    latency_ns: tuple[int, int] = (0, 0)
    faults: tuple[Chance, ...] = ()  # by chance
    rejections: tuple[Rejection, ...] = ()
    seed: int = 0  # of `faults`
    cost_in: CostIn | None = None  # for limits of cost; a request that doesn't say costs 1
    headers: str | None = None  # the dialect that answers tell their key's limits in
    others: float = 0.0  # the share of each key's limits that a second user spends
    tls_cert: str | None = None
    tls_key: str | None = None

    def __post_init__(self) -> None:
        for rejection in self.rejections:
            if rejection.label not in self.keys:
                raise ValueError(f"rejections: no key has the label {rejection.label!r}")
        if self.speak not in APIS:
            raise ValueError(f"speak: {self.speak!r} must be one of {', '.join(APIS)}")
        if self.headers is not None and self.headers not in DIALECTS:
            raise ValueError(f"headers: {self.headers!r} must be one of {', '.join(DIALECTS)}")
        if not 0.0 <= self.others <= 1.0:
            raise ValueError(f"others: {self.others} must be a share from 0 to 1, such as 0.5")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS needs a certificate and its key; give both")
        for path in filter(None, (self.tls_cert, self.tls_key)):
            if not os.access(path, os.R_OK):
                raise ValueError(f"{path} can't be read")


def parse_latency(text: str) -> tuple[int, int]:
    """`0`, `20ms` or `10ms..50ms` as a range in nanoseconds. Raises ValueError for any other form."""
    low, dots, high = text.partition("..")
    try:
        least = 0 if low.strip() == "0" else parse_duration(low.strip())
        most = parse_duration(high.strip()) if dots else least
    except ValueError:
        least, most = 1, 0
    if least > most:
        raise ValueError(f"{text!r} must be 0, a duration or a range, such as 20ms or 10ms..50ms")
    return least, most


def parse_keys(texts: Iterable[str]) -> dict[str, str]:
    """Labels to secrets, of texts like `SECRET` or `LABEL=SECRET`; without a label the nth is `key-n`.

    A text with `=` only at its end is a secret (base64 ends so). Raises ValueError, which names positions and
    labels but no secret.
    """
    keys: dict[str, str] = {}
    for at, text in enumerate(texts, 1):
        label, _, secret = text.partition("=")
        if not secret.strip("="):
            label, secret = f"key-{at}", text
        if not label or not secret.strip("="):
            raise ValueError(f"key {at}: must be SECRET or LABEL=SECRET")
        if label in keys:
            raise ValueError(f"key {at}: the label {label!r} is used twice; choose another")
        if secret in keys.values():
            raise ValueError(f"key {at}: the same secret was given before; give it once")
        keys[label] = secret
    return keys


def parse_key_in(text: str) -> KeyIn:
    """`header:NAME`, `bearer` or `query:NAME`. Raises ValueError for any other form."""
    kind, _, name = text.partition(":")
    if text == "bearer":
        return KeyIn("bearer", "Authorization")
    if kind not in ("header", "query") or not name:
        raise ValueError(f"{text!r} must be header:NAME, bearer or query:NAME")
    return KeyIn(cast("Literal['header', 'query']", kind), name)


def parse_cost_in(text: str) -> CostIn:
    """`header:NAME` or `json:FIELD.FIELD`. Raises ValueError for any other form."""
    kind, _, name = text.partition(":")
    if kind not in ("header", "json") or not all(name.split(".")):
        raise ValueError(f"{text!r} must be header:NAME or json:FIELD, such as json:max_tokens")
    return CostIn(cast("Literal['header', 'json']", kind), name)


def parse_bind(text: str) -> tuple[str, int]:
    """`HOST:PORT`; an IPv6 address in brackets. Raises ValueError for any other form."""
    try:
        return units.parse_address(text)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None
