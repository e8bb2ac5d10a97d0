"""What commands share that talk to a server: the options of TLS, and the token.

Rule: half of a certificate is bad usage, and a token is read from the environment or a file only, for everybody on a
machine can see a command's options.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.client import TlsOptions
    from apiflux_grpc.client.token import TokenFile

TOKEN: Final = "APIFLUX_TOKEN"

TlsOption = Annotated[bool, typer.Option("--tls", help="TLS, trusting the well-known authorities.")]
CaFileOption = Annotated[Path | None, typer.Option("--ca-file", help="TLS: the authorities to trust, a PEM file.")]
CertFileOption = Annotated[
    Path | None, typer.Option("--cert-file", help="TLS: the certificate of this client, a PEM file.")
]
KeyFileOption = Annotated[Path | None, typer.Option("--key-file", help="TLS: the key of that certificate, a PEM file.")]

TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="The token for a server that asks for one; the file is read again when it has changed. Default: the "
        "variable APIFLUX_TOKEN.",
    ),
]
PlaintextTokenOption = Annotated[
    bool,
    typer.Option("--plaintext-token", help="Send the token without TLS to another machine too: it can be read there."),
]


def tls_options(tls: bool, ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> TlsOptions | None:
    """What these say; None: plaintext. Raises BadParameter."""
    from apiflux_grpc.client import TlsOptions

    if not (tls or ca_file or cert_file or key_file):
        return None
    try:
        return TlsOptions(ca_file, cert_file, key_file)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def token_of(
    file: Path | None, targets: Sequence[str], *, secure: bool, over_plaintext: bool, refused: int
) -> str | TokenFile | None:
    """The token of the file, else of the environment; None: there is none. `secure`: these are reached over TLS.

    Raises Exit with the code `refused` for one that can't be sent, BadParameter for one that must not be.
    """
    from apiflux_grpc.client.targets import targets_of
    from apiflux_grpc.client.token import TokenFile, Tokens

    token: str | TokenFile | None = os.environ.get(TOKEN) or None
    try:
        token = token if file is None else TokenFile(file)
        tokens = Tokens(token, over_plaintext=over_plaintext)
    except OSError as error:
        raise typer.BadParameter(f"{file} can't be read: {error.strerror}", param_hint="--token-file") from None
    except ValueError as error:
        say(f"the variable {TOKEN}: {error}" if file is None else str(error))
        raise typer.Exit(refused) from None
    if not secure:
        try:
            tokens.check_plaintext(target.removeprefix("dns:///") for target in targets_of(targets))
        except ValueError as error:
            raise typer.BadParameter(f"{error}: --plaintext-token") from None
    return token
