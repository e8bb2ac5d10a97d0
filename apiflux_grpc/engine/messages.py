"""Everything that crosses between the two loops, and nothing else does.

Rule: a message is frozen, and what it carries has one owner: the sender's until it is posted, the receiver's from
then on. So a batch's calls are the engine's from Submit, and a list of results is the server's from Results. Both
directions are first in, first out. A message about a batch that is over is ignored: a cancel may cross the end.

The last Results of a batch, and only that, carries `over`. Down is the engine's last word, and the end of every
batch that is open then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.batch import Ending, FedCall, Tally
    from apiflux_grpc.core.call import Call
    from apiflux_grpc.core.held import Held
    from apiflux_grpc.core.info import PoolSnapshot
    from apiflux_grpc.core.model import Limit, RetryPolicy
    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.mailbox import Mailbox

FLUSH_BYTES: Final = 256 << 10  # of results in one message, and one result more

# -- to the engine ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """A batch that was found valid."""

    pool: str
    caller: str
    calls: Sequence[Call]  # may make its items when they are asked for: a queued call costs what its bytes cost
    retry: RetryPolicy
    size: int = 0  # bytes of the request that is kept
    costs: Sequence[int] | None = None  # of each call; None: each costs 1
    classes: bytes | None = None  # the path class of each call, one byte; None: not known, or the pool has none
    weight: float = 1.0  # its share among the batches of its caller
    caller_weight: float = 1.0
    ordered: bool = False  # results come by index
    fed: bool = False  # its calls come later, by Feed, until End
    expected: int = 0  # how many of them, as far as the caller knows; 0: it doesn't
    deadline: int | None = None  # ns from the submission, after which nobody waits for it


@dataclass(frozen=True, slots=True)
class Submit:
    """A batch that was admitted."""

    id: int
    spec: BatchSpec


@dataclass(frozen=True, slots=True)
class Feed:
    """More calls of a batch that is fed; and (index, what is wrong with it) of those that can't be made."""

    id: int
    calls: Sequence[FedCall]
    wrong: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class End:
    """No more calls will be fed."""

    id: int


@dataclass(frozen=True, slots=True)
class EndUnsent:
    """No more calls come, and those that wait end as STOPPED."""

    id: int


@dataclass(frozen=True, slots=True)
class Credit:
    """The reader has taken so many results, of so many bytes."""

    id: int
    results: int
    size: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody reads this batch any more: drop what waits, stop what is in flight."""

    id: int


@dataclass(frozen=True, slots=True)
class Drain:
    """No new work: what was never sent ends as DRAINING, what is in flight finishes within `grace` ns."""

    grace: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Are you there? `detail`: tell the state of every key too."""

    detail: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """How long would so many calls of this cost take for this caller, if they came now?"""

    id: int
    pool: str
    caller: str
    calls: int
    cost: float


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """Other limits from now on, for the pool's key at this place, or its group."""

    pool: str
    index: int
    limits: Sequence[Limit]
    of_group: bool


@dataclass(frozen=True, slots=True)
class ChangeMaxInFlight:
    """Another bound on the calls in flight of the pool's key at this place; None: none."""

    pool: str
    index: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Pause:
    """No call gets the key at this place of the pool, or calls may get it again."""

    pool: str
    index: int
    paused: bool


@dataclass(frozen=True, slots=True)
class Rotate:
    """Another secret for the key at this place of the pool."""

    pool: str
    index: int
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel everything and end."""


Change = ChangeLimits | ChangeMaxInFlight | Pause | Rotate
Inbound = Submit | Feed | End | EndUnsent | Credit | Cancel | Drain | Beat | Ask | Change | Stop

# -- from the engine --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Over:
    """The batch's last word: why it ended, and the figures of its summary."""

    ending: Ending
    tally: Tally
    elapsed: int  # ns since it was admitted
    eta: int | None = None  # ns, of an infeasible batch


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a batch; `eta` is ns, `rate` calls a second, None: not known. `held_by`: why calls of it wait, and
    `waits_for` in the ordinary course. `expected`: how many calls it will have, as far as it is known."""

    done: int
    in_flight: int
    eta: int | None
    held_by: Sequence[Held] = ()
    waits_for: Held | None = None
    expected: int = 0
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """Some results of one batch (or none, for its standing alone). `over` comes with the last, and only then."""

    id: int
    items: list[Result]
    size: int  # of the items, in bytes
    standing: Standing
    over: Over | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The engine at one instant."""

    pools: dict[str, PoolSnapshot]
    batches: int


@dataclass(frozen=True, slots=True)
class Up:
    """The engine is ready; its own mailbox."""

    inbox: Mailbox[Inbound]


@dataclass(frozen=True, slots=True)
class Echo:
    """The answer to a Beat; `detail` as it asked."""

    snapshot: Snapshot
    detail: bool


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to an Ask: ns (None: never, as things are), and what binds."""

    id: int
    makespan: int | None
    binding: str


@dataclass(frozen=True, slots=True)
class Down:
    """The engine's last word. `error_id` None: it was stopped."""

    error_id: str | None


Outbound = Results | Up | Echo | Told | Down
