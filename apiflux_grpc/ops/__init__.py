"""The operations port: probes, state, and POST /process over HTTP, for curl and for whoever has no gRPC.

Rule: it adds no decision of its own. A batch goes the way of Process, through the same service, checks, callers and
errors; health is what gRPC's health says. What is here is HTTP: who may send a request at all, how its body is read,
and how an answer looks. So it stands on `server`, and nothing stands on it but bootstrap.

    port.py         where it listens; opened once gRPC serves, closed after the last batch
    tls.py          the same certificates as gRPC's port
    connections.py  what one connection may do before it has said anything
    handling.py     from a request to the one that answers it: methods, guards, errors, the log line
    guards.py       which requests are from where they should be: Host, Origin, Sec-Fetch-Site
    problems.py     errors as application/problem+json
    states.py       GET /livez, /readyz, /health
    process.py      POST /process
    bodies.py       how a body is read: how long, how fast, how many bytes
    decoding.py     its text, as a request
    lines.py        its answer, as JSON lines
    proto3json.py   JSON values as fields of a message
"""
