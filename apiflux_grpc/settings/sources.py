"""Reads the sources: the TOML file, `.env` and the environment, which comes first.

Rule: an empty variable is an unset one. `.env` is read without substitution, because a secret may hold a "$".
"""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apiflux_grpc.settings.findings import Findings
from apiflux_grpc.settings.judging import judged
from apiflux_grpc.settings.presets import with_presets
from apiflux_grpc.settings.tables import Environment, File

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.settings.findings import Place


class Sources:
    """What was read: `env` and `file`, each field judged by itself; and what was found on the way.

    `set_names` are the variables that say something. `preset_rules` tells of a pool with a preset how many of its
    `answers`, the last ones, are the preset's.
    """

    def __init__(self, config: Path | None, environ: Mapping[str, str], dotenv: Path | None) -> None:
        self.findings = Findings()
        self.file_name = "" if config is None else str(config)
        self._folder = Path() if config is None else config.parent
        self._environ = environ
        self._dotenv = _dotenv(dotenv, self.findings)
        self._dotenv_name = "" if dotenv is None else dotenv.name
        self.set_names = frozenset(name for name in Environment.model_fields if self._value(name))
        raw = {name: self._value(name) for name in self.set_names}
        self.env = judged(Environment, raw, self._source, self.findings)
        tables = {} if config is None else _toml(config, self.findings)
        self.preset_rules = with_presets(tables, self.findings, self.toml_place())
        self.file = judged(File, tables, lambda _: self.file_name, self.findings)

    def _value(self, name: str) -> str:
        return self._environ.get(name) or self._dotenv.get(name, "")

    def _source(self, name: str | int) -> str:
        return "" if self._environ.get(str(name)) else self._dotenv_name

    def variable(self, name: str) -> str | None:
        """What this variable holds, be it empty; None: it is in neither source."""
        return self._environ.get(name, self._dotenv.get(name))

    def path(self, text: str) -> Path:
        """A path of the TOML file: relative to its folder."""
        return self._folder / text

    def env_place(self, name: str) -> Place:
        return (self._source(name), name)

    def toml_place(self, *way: str | int) -> Place:
        return (self.file_name, *way)


def why(error: OSError | ValueError) -> str:
    """Why a file can't be read."""
    return (isinstance(error, OSError) and error.strerror) or "not a path"


def _read(path: Path, findings: Findings, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # Notepad and Excel begin a file with a byte order mark
    except UnicodeDecodeError:
        findings.fault((source,), "is not UTF-8")
    except (OSError, ValueError) as error:
        findings.fault((source,), f"can't be read: {why(error)}")
    return ""


def _toml(path: Path, findings: Findings) -> dict[str, Any]:
    text = _read(path, findings, str(path))
    try:
        return tomllib.loads(text)
    except RecursionError:
        findings.fault((str(path),), "is nested too deeply")
    except ValueError as error:
        # "Expected '=' (at line 3, column 7)", or "(at end of document)"; numbers that are too long have no place.
        message, _, at = str(error).partition(" (at ")
        line = at.rstrip(")") if at.startswith("line") else f"line {text.count(chr(10)) + 1}"
        findings.fault((f"{path}: {line}",), message)
    return {}


def _dotenv(path: Path | None, findings: Findings) -> dict[str, str]:
    if path is None or not path.exists():  # a file in the current folder that most people don't have
        return {}
    from dotenv.parser import parse_stream  # slow to import, so only if there is something to read

    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(_read(path, findings, path.name))):
        if binding.error:
            text = binding.original.string
            # The parser counts from the empty lines before the bad one.
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            findings.fault((f"{path.name}: line {line}",), "is not NAME=value")
        elif binding.key is not None:
            values[binding.key] = binding.value or ""
    return values
