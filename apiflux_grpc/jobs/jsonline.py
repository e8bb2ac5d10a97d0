"""Lines of JSON that have a document in them.

Rule: the document stands there as it is written. json would make it anew, and with it its numbers, names and escapes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def line_of(fields: Mapping[str, object], name: str = "", document: str | None = None) -> str:
    """The line, without its end. A `document` takes the place of the first member `name`, which has to be None."""
    line = _encode(fields)
    if document is None:
        return line
    # Nothing before the member reads like it: in a string its quotes would be escaped.
    return line.replace(f'"{name}":null', f'"{name}":{document}', 1)
