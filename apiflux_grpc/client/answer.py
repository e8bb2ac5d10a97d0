"""The upstream's answer, read as httpx reads one.

Rule: reading changes nothing. `body` has every byte as it came, and text and JSON are made of it anew each time.
"""

from __future__ import annotations

import json as jsonlib
import re
from dataclasses import dataclass
from typing import Any, Final

from apiflux_grpc.core.headers import Headers as AnyHeaders

SHOWN: Final = 200  # characters of a body in an error
_CHARSET: Final = re.compile(r""";\s*charset\s*=\s*["']?([\w.:+-]+)""", re.IGNORECASE)


class Headers(AnyHeaders):
    """The headers of an answer by name, in any case, the values of a repeated one joined by ", "; `pairs` are all of
    them as they came, names in lower case."""

    __slots__ = ()

    def get(self, name: str, /, default: Any = None) -> Any:
        return super().get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


@dataclass(frozen=True, slots=True)
class Response:
    """The upstream's answer. `truncated`: the body is only the beginning."""

    status: int
    headers: Headers
    body: bytes
    truncated: bool = False

    @property
    def status_code(self) -> int:
        """The same as `status`."""
        return self.status

    @property
    def content(self) -> bytes:
        """The same as `body`."""
        return self.body

    @property
    def text(self) -> str:
        """The body in the charset of its Content-Type, else UTF-8; what isn't text in it becomes U+FFFD."""
        named = _CHARSET.search(self.headers.get("content-type", ""))
        try:
            return self.body.decode(named[1] if named else "utf-8", "replace")
        except (LookupError, ValueError):  # no charset that we know, or no charset at all, such as `base64`
            return self.body.decode(errors="replace")

    def json(self, **options: Any) -> Any:
        """The body, which is JSON; `options` are those of json.loads. Raises ValueError, a json.JSONDecodeError."""
        try:
            return jsonlib.loads(self.body, **options)
        except jsonlib.JSONDecodeError as error:
            doc, at, why = error.doc, error.pos, error.msg
        except UnicodeDecodeError:
            doc, at, why = self.text, 0, "not UTF-8"
        except RecursionError:
            doc, at, why = self.text, 0, "nested too deeply"
        if self.truncated:
            why = f"it was cut after {len(self.body)} bytes, the pool's body_cap"
        told = f"the body is not JSON: {why}" + (f", in {part!r}" if (part := beginning(self.body)) else "")
        raise jsonlib.JSONDecodeError(told, doc, at)


def beginning(body: bytes) -> str:
    """The first part of a body as one line, for people."""
    text = " ".join(body[: 4 * SHOWN].decode(errors="replace").split())
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:SHOWN])
    return f"{shown} ..." if len(text) > SHOWN or len(body) > 4 * SHOWN else shown
