"""Broken variants of what processes tell each other of a budget: facts, claims, and what they do with blocks."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

LEASE: Final = "apiflux_grpc/core/lease/"
BLOCKS: Final = "apiflux_grpc/core/shared_blocks.py"
BLOCK: Final = "apiflux_grpc/core/block.py"
BREAKER: Final = "apiflux_grpc/core/breaker.py"
FLEET: Final = "apiflux_grpc/core/fleet.py"
OF_LESS: Final = ("tests/core/lease/test_less.py",)
OF_LEARNT: Final = ("tests/core/test_others_of_fleet.py",)
OF_STRANGERS: Final = ("tests/engine/test_strangers.py",)
OF_FACTS: Final = ("tests/core/lease/test_facts.py",)
OF_BLOCKS: Final = ("tests/engine/test_shared_blocks.py",)
OF_ONE: Final = ("tests/core/test_shared_blocks.py",)

SHARED: Final = tuple(
    Variant(f"shared: {name}", file, old, new, tests)
    for name, file, old, new, tests in (
        (
            "the fact that was told last holds",
            LEASE + "facts.py",
            "max(facts.get(name, (0, 0)), (entry.last + left, amount))",
            "(entry.last + left, amount)",
            OF_FACTS,
        ),
        (
            "facts are told for ever",
            LEASE + "facts.py",
            "entry.facts.items() if until > now)",
            "entry.facts.items())",
            OF_FACTS,
        ),
        (
            "a process that gets no lease keeps the probe",
            BLOCKS,
            "elif owner.budget.opens_at > now:",
            "elif owner.budget is None:",
            OF_ONE,
        ),
        ("an entry keeps all facts", LEASE + "facts.py", "while len(facts) > MOST_FACTS:", "while False:", OF_FACTS),
        (
            "the claim of another is taken",
            LEASE + "facts.py",
            "(whose == mine or until <= entry.last) and",
            "",
            OF_FACTS,
        ),
        (
            "a claim is never let go",
            LEASE + "facts.py",
            "if whose == mine and name not in round.claims]",
            "if False]",
            OF_FACTS,
        ),
        ("what has ended is kept", LEASE + "facts.py", "if until <= entry.last]", "if False]", OF_FACTS),
        (
            "a fact is told once, heard or not",
            LEASE + "news.py",
            "if self._told.get(name) == (began + left, amount):",
            "if True:",
            OF_FACTS,
        ),
        (
            "what a store forgot isn't told again",
            LEASE + "news.py",
            "self._untold |= self._told.keys()",
            "pass",
            OF_FACTS,
        ),
        (
            "one's own word comes back as another's",
            LEASE + "news.py",
            " and not _is_own(fact, ours.get(fact.name))",
            "",
            OF_FACTS,
        ),
        ("news wait for the beat", LEASE + "ledger.py", "if self.news.is_due:", "if False:", OF_FACTS),
        (
            "who has a claim isn't heard",
            LEASE + "ledger.py",
            " or now < counts_until or self.news.claims:",
            " or now < counts_until:",
            OF_FACTS,
        ),
        (
            "facts don't age while a round is asked again",
            LEASE + "ledger.py",
            "later(self._under_way.facts, now - self._began)",
            "self._under_way.facts",
            OF_FACTS,
        ),
        ("a wait is one process's alone", BLOCKS, "self._tell(WAIT, 0, block.until, now)", "pass", OF_BLOCKS),
        (
            "a guess is one process's alone",
            BLOCKS,
            "self._tell(GUESS, block.guesses, block.until + KEPT, now)",
            "pass",
            OF_BLOCKS,
        ),
        (
            "a rejection is one process's alone",
            BLOCKS,
            "self._tell(REJECTED, status, self._after_all(until + KEPT), now)",
            "pass",
            OF_BLOCKS,
        ),
        ("a success ends only its own block", BLOCKS, "self._tell(GUESS, 0, now + PASSED, now)", "pass", OF_BLOCKS),
        (
            "a key that works works for one process",
            BLOCKS,
            "self._tell(REJECTED, 0, self._after_all(now + PASSED), now)",
            "pass",
            OF_BLOCKS,
        ),
        (
            "each process probes",
            BLOCKS,
            "if self._gone or self._probes.store.is_silent or PROBE in",
            "if True or PROBE in",
            OF_BLOCKS,
        ),
        (
            "without its store none probes",
            BLOCKS,
            "if self._gone or self._probes.store.is_silent or PROBE in",
            "if self._gone or PROBE in",
            OF_BLOCKS,
        ),
        (
            "an idle process claims the probe",
            BLOCKS,
            "elif not waits or now < self._pauses_until:",
            "elif now < self._pauses_until:",
            OF_ONE,
        ),
        (
            "a claim that can't be used is kept",
            BLOCKS,
            "elif self._claimed_at is None or now >= self._claimed_at + UNUSED:",
            "elif False:",
            OF_ONE,
        ),
        (
            "who starts believes that a key is rejected",
            BLOCKS,
            "elif not self.is_new:",
            "else:",
            OF_BLOCKS,
        ),
        (
            "what ends a rejection before its time is forgotten for it",
            BLOCKS,
            "return max(until, self._last.get(REJECTED, 0) + LATER)",
            "return until",
            OF_ONE,
        ),
        ("what others found out of a key isn't in the log", BLOCKS, "if not was_open:", "if False:", OF_BLOCKS),
        (
            "a key that works again elsewhere isn't in the log",
            BLOCKS,
            "if breaker.closed(now):",
            "if not breaker.closed(now):",
            OF_BLOCKS,
        ),
        ("guesses of others aren't counted", BLOCK, "self.guesses = max(self.guesses, guesses)", "pass", OF_BLOCKS),
        (
            "what was told ends by another's success",
            BLOCK,
            "if self.block is not None and not (self.block.told and self.block.until > now):",
            "if self.block is not None:",
            OF_ONE,
        ),
        (
            "what was told ends by another's guess",
            BLOCK,
            "        if self.told and self.until > now:\n            return\n        self.told = self._known",
            "        self.told = self._known",
            OF_ONE,
        ),
        (
            "a cool-down doubles for each that finds it",
            BREAKER,
            "if self._state is State.CLOSED or self.until <= now:",
            "if True:",
            OF_ONE,
        ),
        (
            "what strangers take is lent all the same",
            LEASE + "less.py",
            "        less += amount\n",
            "        less += 0\n",
            OF_LESS,
        ),
        (
            "each who tells of strangers fills the bucket anew",
            LEASE + "facts.py",
            "known = max(entry.facts.get(name, (0, 0))[0], entry.last)",
            "known = entry.last",
            OF_LESS,
        ),
        (
            "a cut lowers no grants",
            LEASE + "less.py",
            "less = min(amount, ",
            "less = min(0, ",
            OF_LESS,
        ),
        (
            "an old estimate that is told anew is believed",
            FLEET,
            "amount = max(amount, min(self._least, self._window.others))",
            "pass",
            OF_LEARNT,
        ),
        (
            "one that doesn't send never hears that strangers have gone",
            FLEET,
            "if now < self._low_at + self._lasts:",
            "if True:",
            OF_LEARNT,
        ),
        (
            "what the rest of the fleet has is strangers'",
            FLEET,
            "low = self._least = self._low - most + refused\n",
            "low = self._least = self._low + refused\n",
            OF_STRANGERS,
        ),
        (
            "what was refused to the rest of the fleet counts as spent",
            FLEET,
            "low = self._least = self._low - most + refused\n",
            "low = self._least = self._low - most\n",
            ("tests/core/test_others_of_fleet.py",),
        ),
        (
            "a cut is told to nobody",
            FLEET,
            "self._ledger.news.tell(fact_name(CUT, row.cap), less, until)",
            "pass",
            OF_STRANGERS,
        ),
        (
            "an old estimate is told as if it were as new as a word",
            FLEET,
            "        if not others.is_heard:",
            "        if False:",
            OF_LEARNT,
        ),
        (
            "more of strangers isn't told if it ends no later",
            FLEET,
            "or (until, amount) <= (row.until, row.amount)",
            "or until <= row.until",
            OF_LEARNT,
        ),
        (
            "what was refused to others counts after it has ended",
            FLEET,
            "                refused = min(refused, theirs)",
            "                pass",
            OF_LEARNT,
        ),
    )
)
