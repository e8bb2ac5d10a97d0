"""GetInfo's response: pools, their keys, limits and rules, and how they stand.

Rule: a client gets all that it needs to check its calls itself, as core/checks.py does here, before it sends any; of a
key's secret it gets nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.fields import HeaderField
from apiflux_grpc.core.model import HeaderKey
from apiflux_grpc.server.wire import put_held
from apiflux_grpc.server.words import COUNTS, KINDS, STATES, UPSTREAMS

if TYPE_CHECKING:
    from apiflux_grpc.core.info import KeySnapshot, PoolSnapshot
    from apiflux_grpc.core.model import Key, Limit, Pool
    from apiflux_grpc.v1 import apiflux_pb2 as pb


def put_pool(message: pb.PoolInfo, pool: Pool, state: PoolSnapshot | None, offset: int = 0) -> None:
    """Put a pool's configuration and state into GetInfo's response. `state` None: the engine doesn't answer; `offset`
    is wall_offset()."""
    message.name = pool.name
    message.upstream = UPSTREAMS[pool.upstream]
    message.base_url = pool.base_url
    message.key_count = len(pool.keys)
    message.arrival_jitter.FromNanoseconds(pool.arrival_jitter)
    message.timeout.FromNanoseconds(pool.timeout)
    message.max_attempts = pool.retry.max_attempts
    for group in pool.groups:
        row = message.groups.add(keys=group.keys)
        for limit in group.limits:
            _put_limit(row.limits.add(), limit)
    for place, key in enumerate(pool.keys):
        put_key(message.keys.add(), key, None if state is None else state.keys[place], offset)
    if state is not None:
        put_held(message.held_by.add, state.held_by, offset)
        message.waiting = state.waiting
        message.in_flight = state.in_flight
        message.arrival_jitter_cost = state.margin_cost
        message.upstream_failing = state.upstream_fails
        message.malformed_limit_headers = state.malformed
        message.advice = state.advice
        if state.round_trips is not None:
            message.round_trip_p50.FromNanoseconds(state.round_trips[0])
            message.round_trip_p99.FromNanoseconds(state.round_trips[1])
        if state.store is not None:
            message.budget_store.sent_late = state.store.sent_late
            if state.store.silent_for is not None:
                message.budget_store.silent_for.FromNanoseconds(state.store.silent_for)
                message.budget_store.error = state.store.why
        if state.drain_time is not None:
            message.drain_time.FromNanoseconds(state.drain_time)
    _put_rules(message, pool)


def put_key(message: pb.KeyInfo, key: Key, state: KeySnapshot | None, offset: int) -> None:
    """The same for one key."""
    message.label = key.label
    for limit in key.limits:
        _put_limit(message.limits.add(), limit)
    if key.max_in_flight is not None:
        message.max_in_flight = key.max_in_flight
    if state is not None:
        message.headroom = state.headroom
        message.in_flight = state.in_flight
        message.attempts = state.attempts
        message.state = STATES[state.state]
        if state.blocked_for:
            message.blocked_for.FromNanoseconds(state.blocked_for)
        put_held(message.held_by.add, state.held_by, offset)


def _put_rules(message: pb.PoolInfo, pool: Pool) -> None:
    message.allow_paths.extend(pool.allow_paths)
    if isinstance(pool.key_in, HeaderKey):
        message.key_header = pool.key_in.name
    else:
        message.key_query = pool.key_in.name
    for rule in pool.idempotent:
        message.idempotent.add(methods=rule.methods, paths=rule.paths)
    if (cost := pool.cost) is not None:
        message.cost.per_byte, message.cost.at_least = cost.per_byte, cost.at_least
        message.cost.json.extend(cost.json or ())
        message.cost.per_byte_of.extend(cost.per_byte_of or ())
    if isinstance(pool.cost_from, HeaderField):
        message.cost_header = pool.cost_from.name
    elif pool.cost_from is not None:
        message.cost_json.extend(pool.cost_from.path)
    message.unmasked = pool.is_unmasked


def _put_limit(message: pb.Limit, limit: Limit) -> None:
    message.max, message.burst = limit.max, limit.depth
    message.counts, message.kind = COUNTS[limit.counts], KINDS[limit.kind]
    message.per.FromNanoseconds(limit.per)
    message.paths.extend(limit.paths)
