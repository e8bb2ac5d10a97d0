"""Broken variants of the lease protocol, by the rule that they break, 1 to 5; as in variants.py."""

from __future__ import annotations

from typing import Final

LEASE: Final = "apiflux_grpc/core/lease/"
OF_SERVE: Final = ("tests/core/lease/test_serve.py",)
OF_LEDGER: Final = ("tests/core/lease/test_ledger.py",)
OF_FLEET: Final = ("tests/core/lease/test_fleet.py",)
OF_MACHINE: Final = (
    "tests/core/lease/test_lease_machine.py::TestLeases",
    "tests/core/lease/test_lease_machine.py::TestCautiousLeases",
)
OF_LEASES: Final = (*OF_SERVE, *OF_LEDGER, *OF_FLEET, *OF_MACHINE)

OF_COST: Final = ("tests/core/lease/test_cost.py",)
OF_WHO_COUNTS: Final = ("tests/core/lease/test_who_counts_cost.py",)
OF_BUCKET: Final = ("tests/core/lease/test_bucket.py",)

LEASES: Final = (
    # Rule 1: whose budget, and the limits of several configurations.
    (
        "leases: of like limits the higher holds",
        LEASE + "entry.py",
        "cap._replace(max=min(cap.max, held.max), depth",
        "cap._replace(max=max(cap.max, held.max), depth",
        OF_LEASES,
    ),
    (
        "leases: a limit ends when its side has left",
        LEASE + "entry.py",
        "if now < member.gone_at() + at_most(cap.span):",
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
    (
        "leases: nobody is told whose limits hold",
        LEASE + "entry.py",
        "            found.append(Lower(cap, whose))\n",
        "",
        OF_SERVE,
    ),
    (
        "leases: cost is counted of those alone who tell it",
        LEASE + "serve.py",
        "if other.counts_cost and not any(cap.counts == COST for cap in round.caps):",
        "if False:",
        OF_WHO_COUNTS,
    ),
    (
        "leases: what was spent before cost was counted cost nothing",
        LEASE + "serve.py",
        "        unknown_cost(entry, member)\n",
        "        pass\n",
        OF_WHO_COUNTS,
    ),
    (
        "leases: who counted cost once knows what others have spent since",
        LEASE + "serve.py",
        "begins = member.number == 0 or not entry.lends_to(member)",
        "begins = member.number == 0",
        OF_WHO_COUNTS,
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
    # Rule 3: cost, and what becomes of it.
    (
        "leases: a call fits by itself, whatever it costs",
        LEASE + "lent.py",
        "return self.calls > 0 and (not self.by_cost or cost <= self.cost)",
        "return self.calls > 0",
        OF_COST,
    ),
    (
        "leases: cost lands as charged with its call",
        LEASE + "lent.py",
        "self._land(flying.last + late, flying.calls, flying.settled, span)",
        "flying.settled = flying.cost\n                self._land(flying.last + late, flying.calls, flying.cost, span)",
        OF_COST,
    ),
    (
        "leases: what a call cost less stays spent",
        LEASE + "lent.py",
        "            cost = min(cost, actual)\n",
        "",
        OF_COST,
    ),
    (
        "leases: what a call cost more is of what was granted",
        LEASE + "serve.py",
        " - (held.over - lease.over)",
        "",
        OF_COST,
    ),
    (
        "leases: what a call cost more is as old as its call",
        LEASE + "lent.py",
        "self._land(at, 0, over, span)",
        "self._land(flying.last, 0, over, span)",
        OF_COST,
    ),
    (
        "leases: what a call cost more is told of a lease that lives alone",
        LEASE + "ledger.py",
        "        if over:\n            self._list(lent)",
        "        if over:\n            pass",
        OF_COST,
    ),
    (
        "leases: a call without an answer is free",
        LEASE + "lent.py",
        "            flying.settled += cost\n",
        "            flying.cost -= cost\n",
        OF_COST,
    ),
    (
        "leases: what is too little for a call is kept",
        LEASE + "ledger.py",
        "withdraw = not calls or (self.by_cost and self._dear > 0)",
        "withdraw = not calls",
        OF_COST,
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
        "leases: a dear call has its share and no more",
        LEASE + "shares.py",
        "max(share.cost, member.least)",
        "share.cost",
        OF_COST,
    ),
    (
        "leases: a dear call is passed by",
        LEASE + "shares.py",
        "            free[COST] -= one.least  #",
        "            pass  #",
        OF_COST,
    ),
    (
        "leases: a call that never fits is waited for",
        LEASE + "shares.py",
        "if cap.counts == COST and me.least > (cap.depth or cap.max):",
        "if False:",
        OF_COST,
    ),
    (
        "leases: calls and cost are granted each for itself",
        LEASE + "shares.py",
        "    if want.cost:\n",
        "    if False:\n",
        OF_COST,
    ),
    (
        "leases: what it brings back itself is waited for",
        LEASE + "ledger.py",
        "at = paced if brings else max(paced, self._ask_at)",
        "at = max(paced, self._ask_at)",
        OF_COST,
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
        "if most * round.round_trip > round.life:",
        "if False:",
        OF_SERVE,
    ),
    (
        "leases: what is leased isn't charged",
        LEASE + "entry.py",
        " - self.leased(log, now)[cap.counts]",
        "",
        OF_LEASES,
    ),
)
