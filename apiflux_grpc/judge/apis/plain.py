"""No API in particular: every path is answered, and an error is a sentence."""

from typing import Final

from apiflux_grpc.judge.apis.api import Api, Said, Trouble, phrase
from apiflux_grpc.judge.dialects import NONE
from apiflux_grpc.judge.places import X_API_KEY, X_COST


def _error(trouble: Trouble) -> Said:
    unsaid = "unknown key" if trouble.status == 401 else phrase(trouble.status)
    return Said(trouble.status, {"ok": False, "error": trouble.message or unsaid})


PLAIN: Final = Api(key_in=X_API_KEY, dialect=NONE, error=_error, cost_in=X_COST)
