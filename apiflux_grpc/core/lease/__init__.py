"""One budget for many processes: each borrows a part of it from a store, spends that without asking, and reports.

Rule: what a lease lets be spent is charged before it is told, and whatever isn't known for certain counts as spent.
Pure on both sides: instants and names are handed in.

    words.py    what a replica and the store say to each other
    terms.py    the spans that both reckon with
    log.py      what is certainly spent, within one length of time
    level.py    how full a bucket is
    entry.py    one budget as the store has it
    hours.py    the store's time, and whether it has lost what it knew
    shares.py   who is granted how much
    facts.py    what its members tell each other, and claim
    less.py     what facts take away of a limit: strangers, and cuts
    use.py      what all have of a limit
    thaw.py     a frozen budget opened by hand
    serve.py    one round, the store's side: what SQLite runs, and what Lua translates
    codec.py    an entry as plain lists: what a store writes down
    lent.py     one lease, the replica's side
    news.py     what it tells the others and is told by them, the replica's side
    ledger.py   one budget, the replica's side

A grant is so many calls and so much cost; each limit counts one of the two. One ledger and one entry have all limits of
one owner: of a key, a group, or of the limits with certain paths. A call takes of all its owners' ledgers or of none.

How a ledger is driven. The owners of a pool with a store have another Budget (leased.py). Beside its windows, which
forecasts and reservations go on reading, it asks the ledger. All of it gets the clock that goes on while a machine
sleeps (BOOTTIME):

    fits(cost, now)         0, or FAR: not before a reply. It notes what didn't fit, and the next round asks for it: so
                            each call that waits is asked about once after each reply
    take(cost)              right after `fits` said 0: a Lent for the permit; its `until` bounds the call's `send_by`
    sent(lent, cost, at)    a Flying for the permit
    answered(flying, cost, at, actual)  the call is settled; `actual` None: it took `cost`
    unanswered(flying, cost)            the same for one that was sent, and gets no answer
    give_back(lent, cost, now)          it certainly wasn't sent

`cost` is always what was taken; where no limit counts cost it is ignored. After each pass borrowing.py asks those
ledgers for `next_round(now, calls, cost)` that are due, with what they could send, engine/leasing.py sends these rounds
together, each reply goes to `heard`, and calls are assigned again; one timer minds `wake_at`. A round without a reply
is sent `again` after a while. Without the store nothing else changes: what is leased is spent, and then calls wait.
`lower` tells whose limits hold here too, `refusal` why nothing is granted, `debt` how many calls a stopped process sent
late. `leave` gives the last round of an orderly end.
"""
