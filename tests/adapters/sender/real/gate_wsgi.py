"""httpbin for gunicorn. SEEN names the file for the query of each request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from httpbin import app as httpbin  # type: ignore[import-untyped]

LOG = Path(os.environ["SEEN"]).open("ab", buffering=0)  # noqa: SIM115 - until the process ends


def app(environ: Any, start_response: Any) -> Any:
    LOG.write(environ["QUERY_STRING"].encode() + b"\n")
    return httpbin(environ, start_response)
