"""The headers of an answer.

Rule: they stay as their sender wrote them, repeats and order included, since two Set-Cookie can't be taken apart once
they are joined. Who reads one value asks by name, and gets those of a repeated name joined by ", " (RFC 9110, section
5.3): read so, they are a mapping. Frozen, for they cross from the engine's thread to the server's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar, overload

T = TypeVar("T")


class Headers(Mapping[str, str]):
    """The headers of one answer. `names` are in lower case and in the sender's order, each as often as it came."""

    # Two tuples and not one of pairs: one is made for every answer, and its names are nearly always those of an
    # earlier answer, so that they cost nothing.
    __slots__ = ("_values", "names")

    def __init__(self, names: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> None:
        """`names`, which are in lower case already, and the value of each. Raises ValueError if some have none."""
        if len(names) != len(values):
            raise ValueError(f"{len(names)} names of headers have {len(values)} values")
        self.names: Final = names
        self._values: Final = values

    @classmethod
    def of(cls, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
        """From a mapping or from pairs, names in any case."""
        if isinstance(headers, Headers):
            return headers  # as a mapping it would lose its repeats
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        return cls(tuple([name.lower() for name, _ in pairs]), tuple([value for _, value in pairs]))

    def without(self, *names: str) -> Headers:
        """All others."""
        return self.of([pair for pair in self.pairs if pair[0] not in names])

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """Name and value of each header, as they came; begins anew each time."""
        return zip(self.names, self._values)  # noqa: B905  (both are as long; `strict` costs half a header)

    def at(self, place: int) -> str:
        """The value of names[place]."""
        return self._values[place]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | T) -> str | T: ...
    def get(self, name: str, /, default: object = None) -> object:
        # The mapping's own raises and catches an exception for each name that isn't there.
        return self[name] if name in self.names else default

    def __getitem__(self, name: str) -> str:
        names = self.names
        match names.count(name):
            case 0:
                raise KeyError(name)
            case 1:
                return self._values[names.index(name)]
        return ", ".join([value for other, value in self.pairs if other == name])

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self.names))

    def __len__(self) -> int:
        return len(set(self.names))

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self.names)}>"


NO_HEADERS: Final = Headers()


def text_of(value: bytes) -> str:
    """A value as it came: UTF-8, or else Latin-1, of which RFC 9110 (section 5.5) says that it was usual once."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
