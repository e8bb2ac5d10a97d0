"""What comes in: a pydantic model for each table of the TOML file, and one for the environment.

Rule: a model judges each field by itself. Every field is optional, so that a faulty one can be cut out and the rest
judged again; absence is None or the default. A list's None is an element that was cut out: TOML has no null. What
may be written in a short form comes out in the long one: a table for a list of it, `true` for a list of all.

Defaults are those of the types that own them (Settings, Pool, RetryPolicy), which are made here once to read them.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, SecretStr

from apiflux_grpc.core.callers import Access, Rate
from apiflux_grpc.core.checks import LONGEST_BACKOFF
from apiflux_grpc.core.lease.terms import LEAST_LIFE, LONGEST_LIFE
from apiflux_grpc.core.model import Pool, RetryPolicy
from apiflux_grpc.core.rules import CostOfCall
from apiflux_grpc.core.units import LONGEST, MILLISECOND, MOST
from apiflux_grpc.server.defaults import Mode
from apiflux_grpc.settings import values
from apiflux_grpc.settings.types import MOST_WORKERS, PoolSettings, Settings

_SETTINGS: Final = Settings(())
_POOL: Final = Pool("", ())
_POOL_SETTINGS: Final = PoolSettings(_POOL)
_RETRY: Final = RetryPolicy()
_COST: Final = CostOfCall()
_ACCESS: Final = Access()


class Table(BaseModel):
    """A table of the TOML file. Its schema is built when it is first needed, once for all tables inside it."""

    # Strict: TOML has types, so "5" for 5 is a mistake. Inputs are hidden, since any of them may be a secret.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


Count = Annotated[int, Field(ge=1, le=MOST)]
Told = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]  # GetInfo has 32 bits for it
Length = Annotated[int, PlainValidator(values.duration(1))]
LengthOrZero = Annotated[int, PlainValidator(values.duration(0))]
Backoff = Annotated[int, PlainValidator(values.duration(MILLISECOND, LONGEST_BACKOFF))]  # as in a request
Name = Annotated[str, AfterValidator(values.name)]


class TlsTable(Table):
    cert_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None


class ServerTable(Table):
    bind: Annotated[tuple[str, int], PlainValidator(values.bind)] = (_SETTINGS.host, _SETTINGS.port)
    allow_plaintext: bool = False
    tls: TlsTable | None = None
    ops_bind: Annotated[tuple[str, int], PlainValidator(values.bind)] | None = None
    ops_hosts: list[Annotated[str, AfterValidator(values.host)] | None] | None = None
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = _SETTINGS.workers
    mode: Mode = _SETTINGS.mode
    repeat_count: Told | None = None
    batch_size: Told = _SETTINGS.batch_size
    reflection: bool = _SETTINGS.reflection
    open_health: bool = _SETTINGS.open_health
    grace: LengthOrZero = _SETTINGS.grace
    max_batches: Count = _SETTINGS.max_batches
    max_queued_calls: Count = _SETTINGS.max_queued_calls
    max_queued_bytes: Count = _SETTINGS.max_queued_bytes
    max_batch_calls: Count = _SETTINGS.max_batch_calls
    # gRPC's own limit is twice that, and must be below 2^31.
    max_batch_bytes: Annotated[int, Field(ge=1, lt=1 << 30)] = _SETTINGS.max_batch_bytes
    max_connections: Count | None = None
    compressed_requests: bool = _SETTINGS.compressed_requests
    state_dir: Annotated[str, AfterValidator(values.directory)] | None = None
    cold_start: Literal["trust", "wait"] = "trust"


class BudgetTable(Table):
    redis: SecretStr | None = None
    redis_env: str | None = None
    lease: Annotated[int, PlainValidator(values.duration(LEAST_LIFE, LONGEST_LIFE))] | None = None


class StressTable(Table):
    concurrent_requests: Count = _SETTINGS.concurrent_requests
    request_timeout: Length = _SETTINGS.request_timeout


PathPrefix = Annotated[str, AfterValidator(values.path_prefix)]


class LimitTable(Table):
    max: Count | None = None
    per: Length | None = None
    counts: Literal["calls", "cost"] = "calls"
    kind: Literal["window", "bucket"] = "window"
    burst: Count | None = None
    paths: list[PathPrefix | None] | None = None


class KeyInTable(Table):
    header: Annotated[str, AfterValidator(values.request_header)] | None = None
    prefix: Annotated[str, AfterValidator(values.prefix)] | None = None
    query: Annotated[str, AfterValidator(values.parameter)] | None = None


class KeyTable(Table):
    label: Name | None = None
    secret: SecretStr | None = None
    secret_env: Annotated[str, AfterValidator(values.variable)] | None = None
    secret_file: str | None = None
    limits: list[LimitTable | None] | None = None
    max_in_flight: Told | None = None
    budget: Name | None = None


class GroupTable(Table):
    keys: list[Name | None] | None = None
    limits: list[LimitTable | None] | None = None


JsonPath = Annotated[str, AfterValidator(values.json_path)]
AnswerHeader = Annotated[str, AfterValidator(values.answer_header)]
Statuses = list[Annotated[tuple[int, int], PlainValidator(values.status_range)] | None]


class FieldTable(Table):
    """Where a value stands in an answer."""

    header: AnswerHeader | None = None
    json_path: Annotated[JsonPath | None, Field(alias="json")] = None


class JsonConditionTable(Table):
    at: JsonPath | None = None
    values: Annotated[list[str | None] | None, Field(alias="is")] = None


class HeaderConditionTable(Table):
    name: AnswerHeader | None = None
    values: Annotated[list[str | None] | None, Field(alias="is")] = None


_OneOrMany: Final = BeforeValidator(values.one_or_many)


class AnswerTable(Table):
    status: Statuses | None = None
    json_conditions: Annotated[list[JsonConditionTable | None], _OneOrMany, Field(alias="json")] = []
    header: Annotated[list[HeaderConditionTable | None], _OneOrMany] = []
    means: Literal["success", "limited", "key_rejected", "again", "failed"] | None = None
    wait: FieldTable | None = None
    not_executed: bool = False


class CostTable(Table):
    json_path: Annotated[JsonPath | None, Field(alias="json")] = None
    per_byte: Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)] = _COST.per_byte
    per_byte_of: JsonPath | None = None
    at_least: Annotated[int, Field(ge=0, le=MOST)] = _COST.at_least


class IdempotentTable(Table):
    methods: list[Annotated[str, AfterValidator(values.method)] | None] | None = None
    paths: list[PathPrefix | None] | None = None


class RetryTable(Table):
    max_attempts: Annotated[int, Field(ge=1, le=10)] = _RETRY.max_attempts
    on_429: bool = True
    initial_backoff: Backoff = _RETRY.initial_backoff
    max_backoff: Backoff = _RETRY.max_backoff


class SimulatorTable(Table):
    latency: Annotated[tuple[int, int], PlainValidator(values.latency)] | None = None
    error_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = _POOL_SETTINGS.error_rate


def proxy_url(secret: SecretStr) -> SecretStr:
    values.proxy_url(secret.get_secret_value())
    return secret


class PoolTable(Table):
    preset: str | None = None
    base_url: Annotated[str, AfterValidator(values.base_url)] | None = None
    key_in: KeyInTable | None = None
    limits: list[LimitTable | None] | None = None
    max_in_flight: Told | None = None
    timeout: Length = _POOL.timeout
    arrival_jitter: LengthOrZero = _POOL.arrival_jitter
    patience: LengthOrZero = _POOL.patience
    longest_wait: LengthOrZero = _POOL.longest_wait
    answers: list[AnswerTable | None] = []
    cost: CostTable | None = None
    cost_from: FieldTable | None = None
    idempotent: Annotated[list[IdempotentTable | None], BeforeValidator(values.all_or_some)] = []
    retry: RetryTable = RetryTable.model_construct()
    max_connections: Count | None = None
    allow_repeat: bool = _POOL.allow_repeat
    success: Statuses = [*_POOL.success]
    allow_paths: list[PathPrefix | None] | None = None
    egress_proxy: Annotated[SecretStr, AfterValidator(proxy_url)] | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    mask_secrets: bool = _POOL_SETTINGS.mask_secrets
    body_cap: Count = _POOL_SETTINGS.body_cap
    idle_timeout: LengthOrZero = _POOL_SETTINGS.idle_timeout
    simulator: SimulatorTable | None = None
    keys: list[KeyTable | None] = []
    groups: list[GroupTable | None] = []


class CallerTable(Table):
    name: Name | None = None
    tokens: list[Annotated[bytes, PlainValidator(values.token_digest)] | None] | None = None
    tokens_file: str | None = None
    identities: list[Annotated[str, AfterValidator(values.identity)] | None] | None = None
    role: Literal["reader", "caller", "admin"] = "caller"
    pools: list[Name | None] | None = None
    methods: list[Annotated[str, AfterValidator(values.method)] | None] | None = None
    paths: list[PathPrefix | None] | None = None
    weight: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)] = _ACCESS.weight
    max_queued_calls: Count | None = None
    max_batches: Count | None = None
    rate: Annotated[Rate, PlainValidator(values.rate)] | None = None


ClaimName = Annotated[str, AfterValidator(values.claim)]


class JwtTable(Table):
    issuer: Annotated[str, AfterValidator(values.claim)] | None = None
    audience: Annotated[str, AfterValidator(values.claim)] | None = None
    jwks_file: str | None = None
    jwks_url: Annotated[str, AfterValidator(values.keys_url)] | None = None
    algorithms: list[Annotated[str, AfterValidator(values.algorithm)] | None] | None = None
    caller_claim: ClaimName = "sub"
    role_claim: ClaimName | None = None
    roles: dict[str, Literal["reader", "caller", "admin"]] = {}
    pools_claim: ClaimName | None = None


class AuthTable(Table):
    jwt: JwtTable | None = None


class File(Table):
    server: ServerTable = ServerTable.model_construct()
    stress: StressTable = StressTable.model_construct()
    budget: BudgetTable = BudgetTable.model_construct()
    pools: dict[str, PoolTable] = {}
    callers: list[CallerTable | None] = []
    auth: AuthTable = AuthTable.model_construct()


_Number = BeforeValidator(values.number)
Milliseconds: Final = AfterValidator(lambda number: number * MILLISECOND)
EnvCount = Annotated[int, _Number, Field(ge=1, le=MOST)]
EnvLength = Annotated[int, _Number, Field(ge=0, le=LONGEST // MILLISECOND), Milliseconds]
EnvTimeout = Annotated[int, _Number, Field(ge=1, le=LONGEST // MILLISECOND), Milliseconds]


class Environment(BaseModel):
    """The variables. None: unset, and the default is that of the TOML file's field."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=True)

    PORT: Annotated[int, _Number, Field(ge=0, le=65535)] | None = None
    TEST_MODE: Annotated[bool, BeforeValidator(values.switch)] | None = None
    TEST_REQUESTS_COUNT: EnvCount | None = None
    TEST_MIN_LATENCY: EnvLength = 10 * MILLISECOND
    TEST_MAX_LATENCY: EnvLength = 50 * MILLISECOND
    PROD_REQUESTS_COUNT: EnvCount | None = None
    PROD_MIN_LATENCY: EnvLength = 500 * MILLISECOND
    PROD_MAX_LATENCY: EnvLength = 3000 * MILLISECOND
    RATE_LIMIT: EnvCount = 1000
    API_KEYS: SecretStr = SecretStr("key1,key2,key3")
    BATCH_SIZE: EnvCount | None = None
    CONCURRENT_REQUESTS: EnvCount | None = None
    REQUEST_TIMEOUT: EnvTimeout | None = None
    UPSTREAM_URL: Annotated[str, AfterValidator(values.base_url)] | None = None
    APIFLUX_ALLOW_PLAINTEXT: Annotated[bool, BeforeValidator(values.switch)] | None = None


TABLES: Final[dict[str, type[Table]]] = {
    "server": ServerTable,
    "tls": TlsTable,
    "budget": BudgetTable,
    "stress": StressTable,
    "limits": LimitTable,
    "key_in": KeyInTable,
    "keys": KeyTable,
    "groups": GroupTable,
    "answers": AnswerTable,
    "json": JsonConditionTable,
    "header": HeaderConditionTable,
    "wait": FieldTable,
    "cost": CostTable,
    "cost_from": FieldTable,
    "idempotent": IdempotentTable,
    "retry": RetryTable,
    "simulator": SimulatorTable,
    "callers": CallerTable,
    "auth": AuthTable,
    "jwt": JwtTable,
}
"""The table of each name; a pool's is PoolTable, whatever it is called."""
