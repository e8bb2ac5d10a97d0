"""A lease store in Redis or Valkey: for servers on many hosts that share keys.

Rule: a budget's entry is one key, and a round is one run of one script on it: served whole or not at all. The script is
core/lease/serve.py and its parts in Lua, file by file; a property test holds the two against each other, step by step.

    place.py   where the Redis is, as its URL says
    client.py  redis-py's client for it, and what its errors mean
    checks.py  whether a server may hold budgets
    words.py   a round as the script is told it, and its reply
    script.py  the script, out of the Lua files
    store.py   RedisLeaseStore
"""
