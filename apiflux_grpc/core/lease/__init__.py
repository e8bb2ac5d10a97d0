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
    codec.py    an entry as plain lists: what a store writes down
    lent.py     one lease, the replica's side
    ledger.py   one budget, the replica's side

How the ledger is to be driven, once budgets use it. The keyring makes another Budget for the keys of a pool with a
store, so that pools without one run what they run today. Beside its windows, which forecasts and reservations go on
reading, it asks the ledger: `fits` is FAR while `room` is 0; `take` keeps the Lent for the permit, whose `until` bounds
the call's `send_by`; `sent` gives a Flying for it, `answered` and `give_back` end it. All of them get the clock that
goes on while a machine sleeps (BOOTTIME). After each pass the engine asks every ledger for `next_round`, with the calls
that the key could send within L as `want`, sends these rounds together, hands each reply to `heard` and assigns again;
its one timer minds `wake_at`. A round without a reply is sent `again` after a while. Without the store nothing else
changes: what is leased is spent, and then calls wait.
"""
