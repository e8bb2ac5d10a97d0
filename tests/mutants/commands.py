"""Broken variants of the other commands: the command line, settings, plan and judge; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

SIMULATION: Final = "apiflux_grpc/plan/simulation.py"
START: Final = "apiflux_grpc/cli/start.py"
OF_START: Final = ("tests/cli/test_start.py",)
OF_SIMULATION: Final = ("tests/plan/test_simulation.py",)
OF_BINDING: Final = ("tests/plan/test_binding.py",)

COMMANDS: Final = (
    Variant(
        "the judge counts more tokens than a client can know of",
        "apiflux_grpc/judge/apis/tokens.py",
        "1 + asked.seed % max(1, min(most, LONGEST))",
        "2 + asked.seed % max(1, min(most, LONGEST))",
        ("tests/judge/apis",),
    ),
    Variant(
        "what an API refuses takes as much as a call that it answers",
        "apiflux_grpc/judge/speaking.py",
        "            return Heard(0, self._api.missing(lacks))",
        "            return Heard(1, self._api.missing(lacks))",
        ("tests/judge/apis",),
    ),
    Variant(
        "a judge that speaks an API counts calls where it should count tokens",
        "apiflux_grpc/judge/request.py",
        "            self._admit(self.heard.cost)",
        "            self._admit(1)",
        ("tests/judge/apis",),
    ),
    Variant(
        "the judge stamps a call when it is parsed",
        "apiflux_grpc/judge/connection.py",
        "self._chunks.append((stamp, data))",
        "self._chunks.append((0, data))",
        ("tests/judge/test_backlog.py",),
    ),
    Variant(
        "the same secret twice is two keys",
        "apiflux_grpc/settings/keys.py",
        "secrets.setdefault(key.secret, index)) != index",
        "secrets.setdefault(key.secret, index)) > index",
        ("tests/settings/test_keys.py",),
    ),
    Variant(
        "a fault hides those of other fields",
        "apiflux_grpc/settings/judging.py",
        "            _cut_out(raw, way)",
        "            raw.clear()",
        ("tests/settings/test_faults.py",),
    ),
    Variant(
        "a preset's rules come before the pool's own",
        "apiflux_grpc/settings/presets.py",
        "[*own, *more]",
        "[*more, *own]",
        ("tests/settings/test_presets.py",),
    ),
    Variant(
        "a rule that leaves something for a later one is said to leave nothing",
        "apiflux_grpc/settings/answers.py",
        "<= set(one.values)",
        "& set(one.values)",
        ("tests/settings/test_answers.py",),
    ),
    Variant(
        "a plan's timers ring to the nanosecond",
        SIMULATION,
        "max(1, -(-(wake_at - now) // MILLISECOND)) * MILLISECOND",
        "wake_at - now",
        OF_SIMULATION,
    ),
    Variant(
        "a plan's patience isn't begun anew",
        SIMULATION,
        "needed = self._impatient or self._unusable(now)",
        "needed = self._unusable(now)",
        OF_SIMULATION,
    ),
    Variant(
        "a plan's upstream answers every attempt of a call the same",
        SIMULATION,
        "self._draws.send(call, permit.number, key.key.label)",
        "self._draws.send(call, 1, key.key.label)",
        OF_SIMULATION,
    ),
    Variant(
        "a plan's calls all cost 1",
        SIMULATION,
        "costs=load.costs",
        "costs=None",
        OF_SIMULATION,
    ),
    Variant(
        "a plan's calls have no path",
        SIMULATION,
        "classes=load.path_classes(size, self._dispatcher.scheduler.classes)",
        "classes=None",
        OF_SIMULATION,
    ),
    Variant(
        "a limit of cost is named when the smallest call would fit",
        "apiflux_grpc/plan/bounds.py",
        "lacking = used + cost - self._most",
        "lacking = used + 1 - self._most",
        OF_BINDING,
    ),
    Variant(
        "calls of a limit with paths wait only while their key stands still",
        "apiflux_grpc/plan/binding.py",
        "(held[place].whole if met is None else held[place].with_paths)",
        "held[place].whole",
        OF_BINDING,
    ),
    Variant(
        "the judge lets one call too many pass",
        "apiflux_grpc/judge/limits.py",
        "len(stamps) + cost - self._max if",
        "len(stamps) + cost - self._max - 1 if",
        ("tests/judge/test_connection.py",),
    ),
    Variant(
        "the judge has a fixed window last for two",
        "apiflux_grpc/judge/limits.py",
        "else (stamp // per_ns + 1) * per_ns",
        "else (stamp // per_ns + 2) * per_ns",
        ("tests/judge/test_ledger.py",),
    ),
    Variant(
        "the judge forgets what leaked out of a bucket before a late arrival",
        "apiflux_grpc/judge/limits.py",
        "for at in range(place, len(self._stamps)):\n            self._levels[at]",
        "for at in range(place, place + 1):\n            self._levels[at]",
        ("tests/judge/test_ledger.py",),
    ),
    Variant(
        "the judge blames the client for what others spent",
        "apiflux_grpc/judge/ledger.py",
        "own.refusal(now, cost, own.stamps) is None:",
        "own.refusal(now, cost, own.stamps) is not None:",
        ("tests/judge/test_ledger.py",),
    ),
    Variant(
        "the judge tells when more comes back for when all does",
        "apiflux_grpc/judge/telling.py",
        'if self._dialect.resets == "soonest" else left.whole',
        'if self._dialect.resets != "soonest" else left.whole',
        ("tests/judge/test_telling.py",),
    ),
    Variant(
        "the judge takes calls of different bodies for one",
        "apiflux_grpc/judge/request.py",
        "if self._body and not self._call_id:",
        "if self._body and self._call_id:",
        ("tests/judge/test_request.py",),
    ),
    Variant(
        "a late timer of the judge is forgotten",
        "apiflux_grpc/judge/answers.py",
        "            self._answer_due()\n",
        "            self.flush()\n",
        ("tests/judge/test_answers.py",),
    ),
    Variant(
        "a signal while the interpreter ends kills it",
        "apiflux_grpc/cli/signals.py",
        "signal.signal(signum, signal.SIG_IGN)",
        "pass",
        ("tests/e2e/test_process_signals.py::test_signals_while_the_interpreter_ends",),
    ),
    Variant(
        "--version loads the command line",
        START,
        'case ["--version"]:',
        'case ["--version"] if width < WIDTH:',
        OF_START,
    ),
    Variant(
        "help is as wide on a narrow terminal",
        START,
        "os.get_terminal_size(descriptor).columns",
        "WIDTH + 2",
        OF_START,
    ),
    Variant(
        "a command's help reads the options before all commands",
        "apiflux_grpc/cli/app.py",
        "option in HELP and",
        "option not in HELP and",
        OF_START,
    ),
    Variant(
        "the list of commands is cut",
        "apiflux_grpc/cli/app.py",
        "app.command(short_help=short, ",
        "app.command(",
        OF_START,
    ),
)
