"""Broken variants of the lease protocol, by the rule that they break; as in variants.py."""

from __future__ import annotations

from typing import Final

LEASE: Final = "apiflux_grpc/core/lease/"
OF_SERVE: Final = ("tests/core/lease/test_serve.py",)
OF_LEDGER: Final = ("tests/core/lease/test_ledger.py",)
OF_FLEET: Final = ("tests/core/lease/test_fleet.py",)
OF_LEASES: Final = (*OF_SERVE, *OF_LEDGER, *OF_FLEET, "tests/core/lease/test_lease_machine.py::TestLeases")

LEASES: Final = (
    # Rule 1: whose budget, and the limits of several configurations.
    (
        "leases: of like limits the higher holds",
        LEASE + "entry.py",
        "min(most, caps.get((per, counts), most))",
        "max(most, caps.get((per, counts), most))",
        OF_LEASES,
    ),
    (
        "leases: a limit ends when its side has left",
        LEASE + "entry.py",
        "if now < member.gone_at() + at_most(per):",
        "if now < member.gone_at():",
        OF_LEASES,
    ),
    (
        "leases: who crashes has left at once",
        LEASE + "entry.py",
        "return self.seen + LAPSE if self.left_at is None else self.left_at",
        "return self.seen if self.left_at is None else self.left_at",
        OF_LEASES,
    ),
    (
        "leases: a longer limit takes what it can't know for free",
        LEASE + "log.py",
        "new = Log(per, 0 if unknown + at_most(per) <= now else unknown + at_most(per))",
        "new = Log(per)",
        OF_SERVE,
    ),
    # Rule 2: incarnations and rounds.
    (
        "leases: a round that is asked again is served again",
        LEASE + "serve.py",
        "if member is not None and round.number == member.number:",
        "if False:",
        OF_LEASES,
    ),
    (
        "leases: an old round is served",
        LEASE + "serve.py",
        "if member is not None and round.number < member.number:",
        "if False:",
        OF_SERVE,
    ),
    (
        "leases: a reply to another round is heard",
        LEASE + "ledger.py",
        "if under_way is None or reply.number != under_way.number:",
        "if under_way is None:",
        OF_LEASES,
    ),
    (
        "leases: what isn't listed stays leased",
        LEASE + "serve.py",
        "for number in [number for number in member.leases if number not in listed]:",
        "for number in []:",
        OF_SERVE,
    ),
    # Rule 3: totals.
    (
        "leases: what is returned is given back each time it is told",
        LEASE + "serve.py",
        "lease.calls -= new_calls + held.returned.calls - lease.returned.calls",
        "lease.calls -= new_calls + held.returned.calls",
        OF_SERVE,
    ),
    (
        "leases: what landed counts each time it is told",
        LEASE + "serve.py",
        "new_calls = held.landed.calls - lease.landed.calls",
        "new_calls = held.landed.calls",
        OF_SERVE,
    ),
    (
        "leases: what is returned may still be taken",
        LEASE + "lent.py",
        "            self.calls = self.cost = 0\n",
        "",
        OF_LEASES,
    ),
    (
        "leases: what landed since is acknowledged with it",
        LEASE + "lent.py",
        "known = [self.landings.popleft() for _ in range(self._told)]",
        "known = [self.landings.popleft() for _ in range(len(self.landings))]",
        OF_LEDGER,
    ),
    (
        "leases: a call that went out late isn't counted",
        LEASE + "serve.py",
        "    new_calls = sum(group.calls for group in held.groups)\n",
        "    new_calls = 0\n",
        OF_SERVE,
    ),
    # Rule 4: ages.
    (
        "leases: a call counts from when it was told",
        LEASE + "serve.py",
        "entry.record(entry.last - group.age, calls, cost)",
        "entry.record(entry.last, calls, cost)",
        OF_SERVE,
    ),
    (
        "leases: a call without an answer lands when it is sent",
        LEASE + "lent.py",
        "self._land(flying.last + late, flying.calls, flying.settled, span)",
        "self._land(flying.last, flying.calls, flying.settled, span)",
        OF_LEASES,
    ),
    (
        "leases: a call without an answer lands before its J",
        LEASE + "lent.py",
        "while self.flying and self.flying[0].last + late <= now:",
        "while self.flying and self.flying[0].last <= now:",
        OF_LEDGER,
    ),
    (
        "leases: landed together, as old as the oldest",
        LEASE + "lent.py",
        "(Group(one.calls, one.cost, at_least(now - one.last)) for one in landings)",
        "(Group(one.calls, one.cost, at_least(now - one.first)) for one in landings)",
        OF_LEDGER,
    ),
    # Rule 5: grants.
    (
        "leases: granted is what is wanted",
        LEASE + "shares.py",
        "granted = _even(me, _part(me, share), free)",
        "granted = me.want",
        OF_LEASES,
    ),
    (
        "leases: who comes first takes all",
        LEASE + "shares.py",
        "        fair((one.want.calls for one in present), free[CALLS]), fair",
        "        free[CALLS], fair",
        OF_SERVE,
    ),
    (
        "leases: a share of less than one is none",
        LEASE + "shares.py",
        "return max(1, share)",
        "return share",
        OF_LEASES,
    ),
    (
        "leases: a turn never lapses",
        LEASE + "shares.py",
        "if one == name or now <= members[one].due + members[one].turn]",
        "if True]",
        OF_SERVE,
    ),
    (
        "leases: nobody is refused for its J",
        LEASE + "serve.py",
        "if other.jitter != round.jitter:",
        "if False:",
        OF_SERVE,
    ),
    (
        "leases: nobody is refused for how long its leases live",
        LEASE + "serve.py",
        "if other.life != round.life:",
        "if False:",
        OF_SERVE,
    ),
    (
        "leases: nobody is refused for its round trip",
        LEASE + "serve.py",
        "if 4 * round.round_trip > round.life:",
        "if False:",
        OF_SERVE,
    ),
    (
        "leases: what is leased isn't charged",
        LEASE + "shares.py",
        "_sum(entry.logs[per].used, entry.leased(entry.logs[per], now))",
        "entry.logs[per].used",
        OF_LEASES,
    ),
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
        LEASE + "serve.py",
        "arrived = entry.last + round.life + at_most(round.jitter)",
        "arrived = entry.last + round.life",
        OF_SERVE,
    ),
    (
        "leases: what went out late is no debt",
        LEASE + "ledger.py",
        "if at >= lent.until:",
        "if False:",
        OF_LEDGER,
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
        "if other != name and not member.refusal and self.last < member.gone_at():",
        "if False:",
        OF_LEASES,
    ),
    # Rule 8: a store that forgets.
    (
        "leases: another run of the server goes on with what it has",
        LEASE + "hours.py",
        "    if entry.run_id != run_id:\n        return True",
        "    if entry.run_id != run_id:\n        return False",
        OF_FLEET,
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
        "whole = at_most(per + round.life + round.jitter + FAILOVER_LAG)",
        "whole = at_most(per)",
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
        "known = bool(entry.registered) and entry.roster <= entry.registered",
        "known = bool(entry.registered)",
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
        "return self._under_way._replace(floor=self._floor(now))",
        "return self._under_way._replace(number=0)",
        OF_LEASES,
    ),
)
