"""`apiflux serve --workers N`: several processes on one port, and one that looks after them.

Rule: nothing is forked after gRPC or a thread is there: each worker is a fresh interpreter that gets its settings
through a socket. The supervisor loads neither gRPC nor an event loop, so little of it can break. No worker outlives it.

    port.py         the port, taken before any worker starts
    folder.py       what workers share if nothing else is configured
    words.py        what the supervisor and a worker say to each other
    supervision.py  who is started, killed and waited for, and how it all ends: decided without a process or a clock
    supervisor.py   carries that out
    __main__.py     a worker
"""
