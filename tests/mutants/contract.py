"""Broken variants of the contract at both ends, and of the checks that both know; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

WORDS: Final = "apiflux_grpc/server/words.py"
CHECKS: Final = "apiflux_grpc/core/checks.py"
OF_WIRE: Final = ("tests/server/test_wire.py",)
OF_STREAM: Final = ("tests/server/test_process_stream.py",)

CONTRACT: Final = (
    Variant("all faults of a request are kept", CHECKS, "for fault in faults[:room]]", "for fault in faults]", OF_WIRE),
    Variant(
        "all faults of a call's headers are looked for",
        CHECKS,
        "if len(faults) >= MOST_FAULTS:",
        "if not headers:",
        OF_WIRE,
    ),
    Variant(
        "a retry policy has as many reasons as fit into a request",
        "apiflux_grpc/server/wire.py",
        "if len(asked.reasons) > MOST_REASONS:",
        "if len(asked.reasons) > MOST_REASONS + 1:",
        OF_WIRE,
    ),
    Variant(
        "a fault while calls are read is silence",
        "apiflux_grpc/server/feeding.py",
        "except Exception as error:  # whatever it is, the stream's writer must hear of it",
        "except InvalidRequest as error:",
        OF_STREAM,
    ),
    Variant(
        "a duration finer than a nanosecond is rounded",
        "apiflux_grpc/core/units.py",
        "    if rest:",
        "    if rest < 0:",
        ("tests/core/test_units.py",),
    ),
    Variant(
        "a limit of cost is read as one of calls",
        "apiflux_grpc/core/units.py",
        '"cost" if match[3] else "calls"',
        '"calls"',
        ("tests/core/test_units.py",),
    ),
    Variant(
        "the pool's word on repeating wins over the call's",
        "apiflux_grpc/server/wire.py",
        "message.idempotent\n        if told\n        else method",
        "message.idempotent\n        or method",
        ("tests/server/test_rules_of_calls.py",),
    ),
    Variant(
        "a cost is rounded down",
        "apiflux_grpc/core/cost_of_call.py",
        "to_integral_value(ROUND_CEILING)",
        "to_integral_value()",
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "of several names only the first counts",
        "apiflux_grpc/core/cost_of_call.py",
        'in path[0].split("|"):',
        'in path[0].split("|")[:1]:',
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "the largest bodies are read",
        "apiflux_grpc/core/cost_of_call.py",
        "if len(body) > LARGEST_JSON or not (",
        "if not (",
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "bodies of too many members cost nothing",
        "apiflux_grpc/core/cost_of_call.py",
        "except TooManyMembers:\n        return Decimal(0), len(body)",
        "except TooManyMembers:\n        return Decimal(0), 0",
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "a hidden .. passes as a usual path",
        CHECKS,
        "|%(?!2[Ee])[0-9A-Fa-f]",
        "|%[0-9A-Fa-f]",
        OF_WIRE,
    ),
    Variant("an id is used twice", CHECKS, "        self._used.add(id)\n", "", OF_WIRE),
    Variant(
        "allow_paths binds only paths that begin with a slash",
        CHECKS,
        'path if path.startswith("/") else f"/{path}"',
        'path if path.startswith("/") else self._pool.allow_paths[0]',
        OF_WIRE,
    ),
    Variant(
        "a caller's reasons widen the pool's",
        CHECKS,
        "own.reasons & asked if reasons",
        "own.reasons | asked if reasons",
        OF_WIRE,
    ),
    Variant(
        "a stream is read however little was answered",
        "apiflux_grpc/server/feeding.py",
        "ticket.unfinished >= window() or ",
        "",
        OF_STREAM,
    ),
    Variant(
        "a cancel during a blocked write is a fault of ours",
        "apiflux_grpc/server/interceptors.py",
        "elif self._context.cancelled() or isinstance(error, grpc.aio.InternalError):",
        "elif self._context.cancelled():",
        ("tests/server/test_cancelling.py",),
    ),
    Variant(
        "calls on their way to the engine are still to come",
        "apiflux_grpc/server/wire.py",
        "max(0, standing.expected - total)",
        "max(0, standing.expected - standing.done)",
        ("tests/server/test_progress.py",),
    ),
    Variant(
        "a progress hook that raises is called again",
        "apiflux_grpc/client/hook.py",
        "self._function = None",
        "pass",
        ("tests/client/test_progress.py",),
    ),
    Variant(
        "a progress hook that raises ends the stream",
        "apiflux_grpc/client/hook.py",
        "        except Exception:\n            self._leave()\n            return None",
        "        except NotImplementedError:\n            self._leave()\n            return None",
        ("tests/client/test_progress.py",),
    ),
    Variant(
        "a call without a response has an empty body",
        "apiflux_grpc/client/results.py",
        "return self._answer.body",
        "return self.response.body if self.response is not None else b''",
        ("tests/client/test_answer.py",),
    ),
    Variant(
        "json takes the place of a Content-Type of the caller's",
        "apiflux_grpc/client/calls.py",
        'if kind and not any(name.lower() == "content-type" for name, _ in fields):',
        "if kind:",
        ("tests/client/test_asked.py",),
    ),
    Variant(
        "a cost that is read from a body isn't judged",
        "apiflux_grpc/server/calls.py",
        "faults += checks.read_cost(cost, call.path)",
        "pass",
        ("tests/jobs/test_rules.py",),
    ),
    Variant(
        "a result is nested as deeply as its answer",
        "apiflux_grpc/core/jsontext.py",
        "and depth(text) > DEEPEST",
        "and False",
        ("tests/jobs/test_rows.py",),
    ),
    Variant(
        "a reason that isn't known is left out",
        WORDS,
        "[_WORDS.get(number, str(number)) for number in reasons]",
        "[_WORDS[number] for number in reasons if number in _WORDS]",
        ("tests/server/test_wire.py",),
    ),
    Variant(
        "a new connection expects the calls that are done",
        "apiflux_grpc/client/resume.py",
        "self.header.expected_calls = len(self.books.ready) + self.to_take",
        "pass",
        ("tests/client/test_resumption.py",),
    ),
    Variant(
        "a lost connection is told at every try",
        "apiflux_grpc/client/whole.py",
        "self._is_lost is (error is None):",
        "(error or self._is_lost):",
        ("tests/client/test_resumption.py",),
    ),
)
