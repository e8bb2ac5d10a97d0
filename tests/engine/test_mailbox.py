"""The mailbox wakes its reader for every message: all interleavings of one poster and one reader.

The class under test is the real one. Its source is read and a `yield` is put before each statement that touches what
the two share, so that post and drain run a step at a time, as two threads might. No statement touches it twice, and
each touch is atomic under the interpreter's lock: there are no finer steps.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from apiflux_grpc.engine import mailbox as mailbox_module
from apiflux_grpc.engine.mailbox import Mailbox

Steps = Generator[None, None, None]
MESSAGES = 3
IN_ORDER = tuple(range(MESSAGES))
REQUEST: ContextVar[str] = ContextVar("REQUEST")


class Stepwise(ast.NodeTransformer):
    """Makes a method a generator that yields before each step."""

    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        for name in ("body", "orelse"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, [each for statement in statements for each in self._with_pause(statement)])
        return node

    def _with_pause(self, statement: ast.stmt) -> list[ast.stmt]:
        header = ast.unparse(statement).splitlines()[0]
        shares = re.search(r"\b(self|queue)\b", header)
        return [ast.Expr(ast.Yield()), statement] if shares else [statement]


def stepwise(change: Callable[[ast.ClassDef], None] = lambda tree: None) -> Any:
    """The class Mailbox, after `change`, with `post` and `_drain` as generators."""
    tree = ast.parse(inspect.getsource(Mailbox))
    (mailbox,) = tree.body
    assert isinstance(mailbox, ast.ClassDef)
    change(mailbox)
    for method in mailbox.body:
        if isinstance(method, ast.FunctionDef) and method.name != "__init__":
            Stepwise().visit(method)
    names = dict(vars(mailbox_module))
    exec(compile(ast.fix_missing_locations(tree), "stepwise", "exec"), names)
    return names["Mailbox"]


class Loop:
    """Keeps what it is told to run; the reader runs it."""

    def __init__(self) -> None:
        self.ready: deque[Callable[[], Steps]] = deque()

    def call_soon_threadsafe(self, callback: Callable[[], Steps], *, context: object) -> None:
        self.ready.append(callback)


class Threads:
    """One poster of `messages` and one reader, both stopped before a step."""

    def __init__(self, mailbox: Any, messages: int) -> None:
        self.read: list[int] = []
        self._loop = Loop()
        self._box = mailbox(self._loop, self.read.append)
        self._posting: Steps | None = begun(self._post(messages))
        self._draining: Steps | None = None

    def _post(self, messages: int) -> Steps:
        for number in range(messages):
            yield from self._box.post(number)

    def choices(self) -> list[bool]:
        """Who can take a step: the poster (True), the reader."""
        return [True] * (self._posting is not None) + [False] * (self._draining is not None or bool(self._loop.ready))

    def step(self, posts: bool) -> None:
        if posts:
            self._posting = advanced(self._posting)
        else:
            self._draining = advanced(self._draining or begun(self._loop.ready.popleft()()))


def begun(steps: Steps) -> Steps:
    next(steps)
    return steps


def advanced(steps: Steps | None) -> Steps | None:
    assert steps is not None
    return steps if next(steps, steps) is None else None


def interleavings(mailbox: Any, messages: int) -> Iterator[list[int]]:
    """What was read in each of them, until nobody can take a step any more."""
    path: list[list[bool]] = []  # for each step, who can still take it; the last of them does
    while True:
        threads = Threads(mailbox, messages)
        for choices in path:
            threads.step(choices[-1])
        while choices := threads.choices():
            path.append(choices)
            threads.step(choices[-1])
        yield threads.read
        while path and len(path[-1]) == 1:
            path.pop()
        if not path:
            return
        path[-1].pop()


def disarm_last(mailbox: ast.ClassDef) -> None:
    """Clear `armed` after the reading."""
    drain = next(method for method in mailbox.body if isinstance(method, ast.FunctionDef) and method.name == "_drain")
    cleared = [ast.unparse(statement) for statement in drain.body].index("self._armed = False")
    drain.body.append(drain.body.pop(cleared))


def test_no_interleaving_loses_a_wake_up() -> None:
    """Every message is read, once and in order, however post and drain overlap."""
    read = Counter(tuple(read) for read in interleavings(stepwise(), MESSAGES))
    assert set(read) == {IN_ORDER}
    assert read.total() > 5_000


def test_clearing_after_reading_loses_wake_ups() -> None:
    """The checker finds the fault that it is there to find."""
    read = Counter(tuple(read) for read in interleavings(stepwise(disarm_last), MESSAGES))
    assert set(read) > {IN_ORDER}


@pytest.mark.parametrize("messages", [1, 1000])
async def test_messages_come_in_order_and_in_one_drain(messages: int) -> None:
    """Messages posted together are handled together, in their order, before what the loop was told later."""
    seen: list[int] = []
    told: list[int] = []
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop, seen.append)
    for number in range(messages):
        mailbox.post(number)
    assert seen == []
    loop.call_soon_threadsafe(lambda: told.extend(seen))
    await asyncio.sleep(0)
    assert told == list(range(messages))


async def test_a_message_posted_while_others_are_read_waits_for_the_next_drain() -> None:
    """A reader that posts to itself leaves the loop a turn in between."""
    seen: list[int] = []

    def handle(number: int) -> None:
        seen.append(number)
        if number < 3:
            mailbox.post(number + 1)

    mailbox = Mailbox(asyncio.get_running_loop(), handle)
    mailbox.post(0)
    for turns in range(4):
        assert seen == list(range(turns))
        await asyncio.sleep(0)


async def test_a_drain_runs_in_an_empty_context() -> None:
    """Or what one request noted would show in the log lines of others."""
    seen: list[str] = []
    mailbox: Mailbox[None] = Mailbox(asyncio.get_running_loop(), lambda _: seen.append(REQUEST.get("none")))
    REQUEST.set("one")
    mailbox.post(None)
    await asyncio.sleep(0)
    assert seen == ["none"]


async def test_a_message_for_a_closed_loop_is_dropped() -> None:
    """The other side may end first, and whoever posts need not know."""
    loop = asyncio.new_event_loop()
    loop.close()
    Mailbox(loop, pytest.fail).post("late")
