"""What commands share that talk to a server: the options of TLS, and the token.

Rule: half of a certificate is bad usage, and a token is read from the environment only, for everybody on a machine can
see a command's options.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from apiflux_grpc.client import TlsOptions

TOKEN: Final = "APIFLUX_TOKEN"

TlsOption = Annotated[bool, typer.Option("--tls", help="TLS, trusting the well-known authorities.")]
CaFileOption = Annotated[Path | None, typer.Option("--ca-file", help="TLS: the authorities to trust, a PEM file.")]
CertFileOption = Annotated[
    Path | None, typer.Option("--cert-file", help="TLS: the certificate of this client, a PEM file.")
]
KeyFileOption = Annotated[Path | None, typer.Option("--key-file", help="TLS: the key of that certificate, a PEM file.")]


def tls_options(tls: bool, ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> TlsOptions | None:
    """What these say; None: plaintext. Raises BadParameter."""
    from apiflux_grpc.client import TlsOptions

    if not (tls or ca_file or cert_file or key_file):
        return None
    try:
        return TlsOptions(ca_file, cert_file, key_file)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def token_of_environment(*, refused: int) -> str | None:
    """The token; None: there is none. Raises Exit with the code `refused` for one that can't be sent."""
    from apiflux_grpc.client.channel import check_token

    token = os.environ.get(TOKEN) or None
    try:
        return None if token is None else check_token(token)
    except ValueError as error:
        say(f"the variable {TOKEN}: {error}")
        raise typer.Exit(refused) from None
