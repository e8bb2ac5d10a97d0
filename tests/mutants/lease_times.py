"""Broken variants of the lease protocol, by the rule that they break, 6 to 11; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.leases import LEASE, OF_BUCKET, OF_FLEET, OF_LEASES, OF_LEDGER, OF_MACHINE, OF_SERVE

OF_THAW: Final = ("tests/core/lease/test_thaw.py",)

LEASE_TIMES: Final = (
    # Rule 6: until when a lease is spent.
    (
        "leases: a lease lives from its reply",
        LEASE + "ledger.py",
        "until = self._began + at_least(self.life)",
        "until = now + at_least(self.life)",
        OF_LEDGER,
    ),
    (
        "leases: a lease lives from its last request",
        LEASE + "ledger.py",
        "until = self._began + at_least(self.life)",
        "until = self._sent_at + at_least(self.life)",
        OF_LEDGER,
    ),
    (
        "leases: what a lease has left counts until its end alone",
        LEASE + "entry.py",
        "return self.life + at_most(self.jitter)",
        "return self.life",
        OF_SERVE,
    ),
    (
        "leases: what went out late is no debt",
        LEASE + "ledger.py",
        "if at >= lent.until:",
        "if False:",
        (*OF_LEDGER, *OF_MACHINE),
    ),
    (
        "leases: a debt is forgotten with the store",
        LEASE + "ledger.py",
        "self.leases = [lent for lent in self.leases if lent.is_late]",
        "self.leases = []",
        OF_LEDGER,
    ),
    # Rule 9: a budget opened by hand.
    (
        "leases: a thaw opens windows alone",
        LEASE + "thaw.py",
        "                level.at = entry.last\n",
        "",
        OF_THAW,
    ),
    (
        "leases: a thaw forgets what a bucket was told since",
        LEASE + "thaw.py",
        "level.filled = max(0, level.filled - depths.get(like, 0) * unit_of(level.per))",
        "level.filled = 0",
        OF_THAW,
    ),
    (
        "leases: a thaw of what another run left is believed",
        LEASE + "thaw.py",
        "if entry is None or entry.run_id != run_id:",
        "if entry is None:",
        OF_THAW,
    ),
    # Rule 7: the store's time.
    (
        "leases: a clock that jumps ahead is believed",
        LEASE + "hours.py",
        "if now - held > off:",
        "if False:",
        OF_LEASES,
    ),
    (
        "leases: a clock that is set back is waited for",
        LEASE + "hours.py",
        "        entry.offset += entry.last - now\n",
        "",
        OF_SERVE,
    ),
    (
        "leases: what the store's time has paused is made up for",
        LEASE + "hours.py",
        "            now = held\n    return now",
        "            now = held\n    return max(now, round.floor) if member and member.established else now",
        OF_SERVE,
    ),
    (
        "leases: a newcomer is granted at once",
        LEASE + "serve.py",
        "member.established = steady or not any(entry.others(round.incarnation))",
        "member.established = True",
        OF_LEASES,
    ),
    (
        "leases: spans are not kept longer",
        LEASE + "terms.py",
        "return span + whole(span // DRIFT) + MICROSECOND",
        "return span",
        OF_FLEET,
    ),
    (
        "leases: who lives is told by a clock that nobody has confirmed",
        LEASE + "entry.py",
        "return not member.refusal and self.last < member.gone_at()",
        "return False",
        OF_LEASES,
    ),
    (
        "leases: who is idle hears of nobody who spends of a long window",
        LEASE + "ledger.py",
        "if self.leases or calls or self._spent is not None or now < counts_until or self.news.claims:",
        "if self.leases or calls or now < counts_until or self.news.claims:",
        OF_FLEET,
    ),
    # Rule 8: a store that forgets.
    (
        "leases: another run of the server goes on with what it has",
        LEASE + "hours.py",
        "    if entry.run_id != run_id:\n        return True",
        "    if entry.run_id != run_id:\n        return False",
        (*OF_FLEET, *OF_MACHINE),
    ),
    (
        "leases: an empty store was never spent of",
        LEASE + "serve.py",
        "trusted = round.trust and not round.epoch",
        "trusted = True",
        OF_SERVE,
    ),
    (
        "leases: trust though somebody has spent of it",
        LEASE + "hours.py",
        'return entry.trusted and round.epoch != ""',
        "return False",
        OF_SERVE,
    ),
    (
        "leases: an empty store is trusted at once",
        LEASE + "hours.py",
        "if entry.trusted and not steady:",
        "if False:",
        OF_SERVE,
    ),
    (
        "leases: a budget is frozen for its window alone",
        LEASE + "hours.py",
        "arrived = round.life + round.jitter + lag",
        "arrived = 0",
        OF_SERVE,
    ),
    (
        "leases: a store that is behind goes on",
        LEASE + "hours.py",
        "return round.number - 1 > member.number",
        "return False",
        OF_SERVE,
    ),
    (
        "leases: leases of another epoch are taken",
        LEASE + "ledger.py",
        "        if self.epoch and reply.epoch != self.epoch:",
        "        if False:",
        OF_LEDGER,
    ),
    (
        "leases: who was silent for long makes a store that forgot",
        LEASE + "hours.py",
        "and round.told < entry.last - _remembered(round.caps)",
        "and False",
        OF_SERVE,
    ),
    # Rule 9: long windows.
    (
        "leases: a long window opens though one is missing",
        LEASE + "hours.py",
        "return bool(entry.registered) and entry.roster <= entry.registered",
        "return bool(entry.registered)",
        OF_FLEET,
    ),
    (
        "leases: a long window is always waited for",
        LEASE + "hours.py",
        "if log.per > LONG and known:",
        "if False:",
        OF_FLEET,
    ),
    (
        "leases: what landed isn't remembered",
        LEASE + "ledger.py",
        "self._spent.record(one.last, one.calls, one.cost)",
        "pass",
        OF_FLEET,
    ),
    (
        "leases: what is on its way isn't remembered",
        LEASE + "ledger.py",
        "self._spent.record(arrived, *lent.left)",
        "pass",
        OF_FLEET,
    ),
    # Rule 10: buckets.
    (
        "leases: a lease leaves room in its bucket",
        LEASE + "level.py",
        "// unit_of(cap.per) - leased",
        "// unit_of(cap.per)",
        OF_BUCKET,
    ),
    (
        "leases: what arrived fills no bucket",
        LEASE + "serve.py",
        "            entry.fill(Amounts(new_calls, new_cost))\n        else:  #",
        "            pass\n        else:  #",
        OF_BUCKET,
    ),
    (
        "leases: what nobody told of never fills a bucket",
        LEASE + "entry.py",
        "if before < lease.arrived <= now:",
        "if False:",
        OF_BUCKET,
    ),
    (
        "leases: what has filled a bucket fills it again when it's told",
        LEASE + "serve.py",
        "        if lease.arrived > entry.last:",
        "        if True:",
        OF_BUCKET,
    ),
    (
        "leases: what is sent late fills no bucket",
        LEASE + "serve.py",
        "entry.fill(Amounts(held.late.calls - lease.late.calls, more))",
        "entry.fill(Amounts(0, more))",
        OF_BUCKET,
    ),
    (
        "leases: a bucket that nothing is known of is empty",
        LEASE + "hours.py",
        "empty if trusted else full(cap, since + at_most(arrived))",
        "empty",
        OF_BUCKET,
    ),
    # Rule 11: fail closed.
    (
        "leases: without the store a lease goes on",
        LEASE + "ledger.py",
        "if lent.until <= now:",
        "if False:",
        OF_LEASES,
    ),
    (
        "leases: a round without a reply is never asked again",
        LEASE + "ledger.py",
        "return self._under_way._replace(floor=self._floor(now), facts=facts)",
        "return self._under_way._replace(number=0)",
        OF_LEASES,
    ),
)
