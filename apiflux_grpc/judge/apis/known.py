"""The APIs that the judge speaks, by the name that `--speak` has for them; without one it is `plain`."""

from collections.abc import Mapping
from typing import Final

from apiflux_grpc.judge.apis.anthropic import ANTHROPIC
from apiflux_grpc.judge.apis.api import Api
from apiflux_grpc.judge.apis.github import GITHUB
from apiflux_grpc.judge.apis.google_maps import GOOGLE_MAPS
from apiflux_grpc.judge.apis.openai import OPENAI
from apiflux_grpc.judge.apis.plain import PLAIN

APIS: Final[Mapping[str, Api]] = {
    "plain": PLAIN,
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "github": GITHUB,
    "google-maps": GOOGLE_MAPS,
}
