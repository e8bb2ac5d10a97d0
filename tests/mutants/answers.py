"""Broken variants of what answers do to calls and keys: verdicts, retries, breakers, hints; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

RETRIES: Final = "apiflux_grpc/core/retries.py"
BREAKER: Final = "apiflux_grpc/core/breaker.py"
BLOCK: Final = "apiflux_grpc/core/block.py"
COMEBACK: Final = "apiflux_grpc/core/comeback.py"
HEALTH: Final = "apiflux_grpc/core/health.py"
OF_REFUSALS: Final = ("tests/core/test_refusals.py",)
OF_REJECTED: Final = ("tests/core/test_rejected.py",)
RETRY: Final = "apiflux_grpc/core/retry.py"
VERDICT: Final = "apiflux_grpc/core/verdict.py"
OTHERS: Final = "apiflux_grpc/core/others.py"
OF_SCHEDULER: Final = (
    "tests/core/test_scheduler.py",
    "tests/core/test_reservation.py",
    "tests/core/test_groups.py",
    "tests/core/test_changed_limits.py",
)
BLAME: Final = "apiflux_grpc/core/blame.py"
OF_BLAME: Final = ("tests/core/test_blame.py",)
OF_WAKING: Final = ("tests/core/test_waking.py",)
OF_BREAKER: Final = ("tests/core/test_breaker.py",)
OF_RETRY: Final = ("tests/core/test_retry.py",)
OF_ENGINE: Final = ("tests/engine/test_engine.py",)

ANSWERS: Final = (
    Variant("a block may be shortened", BLOCK, "if until > self.until:", "if True:", OF_SCHEDULER),
    Variant(
        "a retry before its time",
        RETRIES,
        "while heap and heap[0][0] <= now:",
        "while heap and heap[0][0] <= now + 1:",
        OF_SCHEDULER,
    ),
    Variant(
        "a dropped batch leaves its retries",
        RETRIES,
        "        self._heap = [entry for entry in self._heap if entry[2] is not batch]\n",
        "",
        OF_SCHEDULER,
    ),
    Variant(
        "a refusal for an endpoint's limit blocks the key",
        BLAME,
        "owners.pop() if len(owners) == 1 else permit.key",
        "permit.key",
        OF_BLAME,
    ),
    Variant(
        "a hint that something is left names its limit",
        BLAME,
        "for hint in told if is_short(hint, permit))",
        "for hint in told)",
        OF_BLAME,
    ),
    Variant(
        "the block of a shared limit never ends by a success",
        HEALTH,
        "for one in permit.owners if key.block or permit.shares else ():",
        "for one in (key,):",
        ("tests/core/test_refusals.py",),
    ),
    Variant(
        "only limits of all calls are cut",
        BLAME,
        "for owner in permit.owners\n        for place",
        "for owner in permit.key.owners\n        for place",
        OF_BLAME,
    ),
    Variant(
        "any number of probes",
        BREAKER,
        "FAR if self.probing or (",
        "FAR if (",
        OF_BREAKER,
    ),
    Variant(
        "a probe given up is never replaced",
        BREAKER,
        "        if not self.is_probe(era):",
        "        if True:",
        OF_BREAKER,
    ),
    Variant(
        "cool-downs don't double", BREAKER, "min(2 * self._cool_down, self._longest)", "self._cool_down", OF_BREAKER
    ),
    Variant(
        "what may have run is sent again",
        RETRY,
        "if not idempotent and reason not in NOT_EXECUTED:",
        "if False:",
        (*OF_RETRY, *OF_ENGINE),
    ),
    Variant(
        "a refusal costs an attempt",
        COMEBACK,
        "    again.avoid |= 1 << key.index\n",
        "    again.avoid |= 1 << key.index\n    again.charged += 1\n",
        OF_REFUSALS,
    ),
    Variant(
        "all calls come back after a guess",
        BLOCK,
        "FAR if waits else self.until",
        "self.until",
        OF_REFUSALS,
    ),
    Variant(
        "refusals in flight double the guess", BLOCK, "return taken_at <= self.renewed", "return False", OF_REFUSALS
    ),
    Variant(
        "keys are to blame for calls that are forbidden with all",
        HEALTH,
        "                    self._others_are_excused(key, now)\n",
        "                    pass\n",
        OF_REJECTED,
    ),
    Variant(
        "forbidden calls are probe after probe",
        "apiflux_grpc/core/keyring.py",
        "if now < key.breaker.until + GIVES_WAY)",
        "if False)",
        OF_REJECTED,
    ),
    Variant(
        "a key is excused of what stands",
        BREAKER,
        "self._state is State.CLOSED or self._run >= self._threshold:",
        "self._state is State.CLOSED:",
        OF_BREAKER,
    ),
    Variant(
        "a rejected call tries a key again",
        COMEBACK,
        "            again.avoid |= again.tried\n",
        "",
        OF_REJECTED,
    ),
    Variant(
        "a told wait is forgotten",
        COMEBACK,
        "now + max(wait, told)",
        "now + wait",
        ("tests/core/test_dispatcher.py",),
    ),
    Variant(
        "a 5xx shows that its key works",
        VERDICT,
        "_class_of(status), KeyVerdict.UNSEEN, upstream,",
        "_class_of(status), KeyVerdict.WORKS, upstream,",
        ("tests/core/test_verdict.py",),
    ),
    Variant(
        "one call finds out after a refusal that others explain",
        BLOCK,
        "return not self.told and not self._known",
        "return not self.told",
        ("tests/core/test_full_use.py",),
    ),
    Variant(
        "an answer that comes after a period says what is left",
        OTHERS,
        "if now - word.sent_at > self._lasts:",
        "if False:",
        ("tests/core/test_full_use.py",),
    ),
    Variant(
        "what others had used up holds beyond the wait that was told",
        OTHERS,
        "self._doubted_at = at",
        "self._doubted_at = FAR",
        ("tests/core/test_refusals.py",),
    ),
    Variant(
        "what long calls leave to others they never get back",
        OTHERS,
        "window.others - self._step))",
        "window.others))",
        ("tests/core/test_full_use.py",),
    ),
    Variant(
        "a newer word leaves its key held back",
        HEALTH,
        "words.held_until(now) < held_until:",
        "words.held_until(now) < 0:",
        OF_WAKING,
    ),
    Variant(
        "the end of a word wakes nobody",
        "apiflux_grpc/core/told.py",
        "wait = max(wait, word.ends_at)",
        "return FAR",
        OF_WAKING,
    ),
    Variant(
        "a word that has ended holds back",
        "apiflux_grpc/core/told.py",
        "word.ends_at > now and word.spent",
        "word.spent",
        OF_WAKING,
    ),
    Variant(
        "a resource that is used up holds back all calls",
        "apiflux_grpc/core/resources.py",
        "names = self._names.get(_segment(path), ())\n        return sum",
        "names = {name: None for one in self._names.values() for name in one}\n        return sum",
        ("tests/core/test_hearing.py",),
    ),
    Variant(
        "calls of a resource come back all at once",
        "apiflux_grpc/core/resources.py",
        "return at + (spent[name].line - 1) * spent[name].step",
        "return at",
        ("tests/core/test_hearing.py", "tests/core/test_resources.py"),
    ),
    Variant(
        "a lower limit of the upstream's is ignored",
        OTHERS,
        "max(word.max, window.nominal)",
        "word.max",
        ("tests/core/test_full_use.py", "tests/core/test_holding.py"),
    ),
    Variant(
        "our own lateness opens the upstream's breaker",
        VERDICT,
        "KEPT_BACK if outcome.cause.ours else _NO_ANSWER[Reason.NOT_SENT]",
        "_NO_ANSWER[Reason.NOT_SENT]",
        ("tests/engine/test_what_the_upstream_says.py",),
    ),
    Variant(
        "one condition of a rule is enough",
        "apiflux_grpc/core/matching.py",
        "if all(",
        "if not rule.conditions or any(",
        ("tests/core/test_matching.py",),
    ),
)
