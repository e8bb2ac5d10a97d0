"""One budget for many processes: each borrows a part of it from a store, spends that without asking, and reports.

Rule: what a lease lets be spent is charged before it is told, and whatever isn't known for certain counts as spent.
Pure on both sides: instants and names are handed in.

    words.py    what a replica and the store say to each other
    terms.py    the spans that both reckon with
    log.py      what is certainly spent, of one limit
    entry.py    one budget as the store has it
    hours.py    the store's time, and whether it has lost what it knew
    shares.py   who is granted how much
    serve.py    one round, the store's side: what SQLite runs, and what Lua translates
    lent.py     one lease, the replica's side
    ledger.py   one budget, the replica's side

How the ledger is to be driven, once budgets use it: `Budget.fits` asks `room` beside its windows; `take`, `sent`,
`answered` and `give_back` go to the ledger with what `take` returned, which the permit keeps, and whose `until` is
the call's `send_by`. The pool's timer minds `wake_at`; the engine's loop sends what `next_round` returns, for all keys
together, and hands each reply to `heard`. A pool without a store has no ledger, and pays for none.
"""
