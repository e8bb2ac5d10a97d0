"""Calls over HTTP with aiohttp.

Rule: one attempt is one request on the wire, and everything that the network brings ends as an outcome. aiohttp by
itself sends GET, HEAD, PUT and DELETE again when a kept connection was cut; a client middleware is called at every
send, and there such an error becomes one of ours, which ends it. What went out is told when the headers are
written. Before that a failure is NotSent, after it Unknown; a body that is cut is an Answer with a fault.

No cookies, no redirects, no proxy from the environment, no connection limit of its own (the scheduler is the only
queue). The key is added here and nowhere else; texts of exceptions, which may hold a URL with a key, stay here.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from apiflux_grpc.core.model import SECOND, Answer, NotSent, Reason, Unknown

if TYPE_CHECKING:
    from types import SimpleNamespace

    from apiflux_grpc.core.model import Call, Key, Outcome
    from apiflux_grpc.engine.ports import Attempt, Clock

CONNECT_TIMEOUT: Final = 10.0  # seconds
KEEPALIVE: Final = 15.0  # seconds; below what upstreams allow
CHUNK: Final = 64 << 10
LEAST_MASKED: Final = 4  # characters; masking a shorter secret would eat ordinary text


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where calls go and how the key is presented: by `key_header` after `key_prefix`, or by `key_query`."""

    base_url: str
    key_header: str | None = "X-API-Key"
    key_prefix: str = ""
    key_query: str | None = None
    body_cap: int = 1 << 20
    ca_file: str | None = None
    egress_proxy: str | None = None
    mask_secrets: bool = True
    user_agent: str = "apiflux"


class _Cut(Exception):
    """The connection ended before an answer."""


async def _stop_resend(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        if isinstance(error, aiohttp.ClientConnectorError):
            raise
        raise _Cut from None


class _Exchange:
    """What is known of one attempt while it runs."""

    __slots__ = ("answer", "attempt", "sent", "task")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.sent = False
        self.answer: tuple[int, dict[str, str], int] | None = None  # status, headers, instant
        self.task: asyncio.Task[Outcome] | None = None


class AiohttpUpstream:
    """One pool's upstream. Made on the engine's loop."""

    def __init__(self, settings: HttpSettings, *, clock: Clock = time.monotonic_ns) -> None:
        self._settings = settings
        self._clock = clock
        self._base = settings.base_url.rstrip("/")
        self._open: set[_Exchange] = set()
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(self._on_headers_sent)
        tls = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=True,
            middlewares=(_stop_resend,),
            trace_configs=[trace],
            skip_auto_headers=("User-Agent", "Content-Type", "Accept-Encoding"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
        )

    def begin(self, attempt: Attempt) -> None:
        exchange = _Exchange(attempt)
        attempt.handle = exchange
        exchange.task = asyncio.get_running_loop().create_task(self._run(exchange))
        self._open.add(exchange)
        exchange.task.add_done_callback(lambda task: self._ended(exchange, task))

    def cancel(self, attempt: Attempt) -> None:
        exchange = attempt.handle
        if isinstance(exchange, _Exchange) and exchange.task is not None:
            exchange.task.cancel()

    async def close(self) -> None:
        tasks = [exchange.task for exchange in self._open if exchange.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the done callbacks account for them
        await self._session.close()

    def _ended(self, exchange: _Exchange, task: asyncio.Task[Outcome]) -> None:
        self._open.discard(exchange)
        outcome = self._failed(exchange, "cancelled") if task.cancelled() else task.result()
        exchange.attempt.done(outcome)

    async def _run(self, exchange: _Exchange) -> Outcome:
        try:
            async with asyncio.timeout(exchange.attempt.timeout / SECOND):
                return await self._exchange(exchange)
        except TimeoutError:
            return self._failed(exchange, "no whole answer within the timeout", Reason.TIMEOUT)
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
            return self._failed(exchange, "TLS handshake failed")
        except aiohttp.ClientConnectorError as error:
            return self._failed(exchange, f"could not connect: {error.os_error.strerror or 'connection failed'}")
        except Exception as error:
            # By class alone: the text of an exception may hold the URL, and with it a key.
            return self._failed(exchange, f"the connection failed ({type(error).__name__.strip('_')})")

    def _failed(self, exchange: _Exchange, detail: str, reason: Reason = Reason.UNKNOWN) -> Outcome:
        if exchange.answer is not None:
            status, headers, at = exchange.answer
            fault = Reason.TIMEOUT if reason is Reason.TIMEOUT else Reason.BODY_CUT
            return Answer(status, headers, b"", at, fault=fault)
        if exchange.sent:
            return Unknown(detail, reason)
        return NotSent(detail)

    async def _exchange(self, exchange: _Exchange) -> Outcome:
        call, key, settings = exchange.attempt.call, exchange.attempt.key, self._settings
        async with self._session.request(
            call.method,
            self._url(call, key),
            headers=self._headers(call, key),
            data=call.body or None,
            allow_redirects=False,
            proxy=settings.egress_proxy,
            trace_request_ctx=exchange,
        ) as response:
            at = self._clock()
            headers: dict[str, str] = {}
            for name, value in response.headers.items():
                lower = name.lower()
                headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
            if settings.mask_secrets and len(key.secret) >= LEAST_MASKED:
                headers = {name: value.replace(key.secret, "***") for name, value in headers.items()}
            exchange.answer = (response.status, headers, at)
            body, truncated = await self._body(response)
            if settings.mask_secrets and len(key.secret) >= LEAST_MASKED:
                body = body.replace(key.secret.encode(), b"***")
            return Answer(response.status, headers, body, at, truncated)

    async def _body(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        cap = self._settings.body_cap
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_chunked(CHUNK):
            parts.append(part)
            size += len(part)
            if size > cap:
                response.close()  # the rest is not wanted, and the connection is of no more use
                return b"".join(parts)[:cap], True
        return b"".join(parts), False

    def _url(self, call: Call, key: Key) -> URL:
        path = call.path if call.path.startswith("/") else f"/{call.path}"
        query = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in call.query.items()]
        if self._settings.key_query is not None:
            query.append(f"{quote(self._settings.key_query, safe='')}={quote(key.secret, safe='')}")
        text = f"{self._base}{path}?{'&'.join(query)}" if query else f"{self._base}{path}"
        return URL(text, encoded=True)

    def _headers(self, call: Call, key: Key) -> dict[str, str]:
        headers = {"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"}
        if call.headers:
            if any(name.lower() == "user-agent" for name in call.headers):
                del headers["User-Agent"]
            headers.update(call.headers)
        if self._settings.key_header is not None:
            headers[self._settings.key_header] = self._settings.key_prefix + key.secret
        return headers

    async def _on_headers_sent(self, session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
        exchange = context.trace_request_ctx
        if isinstance(exchange, _Exchange) and not exchange.sent:
            exchange.sent = True
            exchange.attempt.sent(self._clock())
