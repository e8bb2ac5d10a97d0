"""`apiflux token new`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from apiflux_grpc.cli.streams import say


class TokenAction(StrEnum):
    new = "new"


def token(action: Annotated[TokenAction, typer.Argument(help="Make one.")]) -> None:
    """Make a token for a caller, and print it with the line of it for the configuration.

    The token itself is printed this once, and kept nowhere: the first line is for the caller, the second for `tokens`
    of `[[callers]]`, or a line of its `tokens_file`. It has 256 random bits.
    """
    import secrets

    from apiflux_grpc.core.callers import DIGEST, PREFIX, digest_of

    made = PREFIX + secrets.token_urlsafe(32)
    print(made)
    print(f"{DIGEST}{digest_of(made).hex()}")
    say("The first line is the caller's secret, and is shown this once; the second goes into the configuration.")
