"""Where a request has what the judge needs of it: its key, and what it costs.

The rule: a place is a kind and a name, and is written KIND:NAME on the command line.
"""

from typing import Final, Literal, NamedTuple


class KeyIn(NamedTuple):
    """Where a request carries its key; for `bearer` the name is that of the header."""

    kind: Literal["header", "bearer", "query"]
    name: str


class CostIn(NamedTuple):
    """Where a request says what it really costs: a header, or a field of its JSON body with dots between the names."""

    kind: Literal["header", "json"]
    name: str


BEARER: Final = KeyIn("bearer", "Authorization")
X_API_KEY: Final = KeyIn("header", "X-API-Key")
X_COST: Final = CostIn("header", "X-Cost")
