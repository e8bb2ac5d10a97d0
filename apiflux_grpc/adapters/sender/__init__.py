"""One origin over HTTP/1.1: each request is written once, and we know what became of it.

Rules
1. An exchange is handed to one connection, head and body in one write, once. Nothing here ever sends again.
2. It ends as exactly one of Reply (a whole, valid head came; `fault` says if the body didn't), NotSent (not one byte
   reached the kernel) and Unknown (bytes went out, no head came back: it may have been executed). `sent` is told at
   the write: at once on an open connection, after the dial on a new one.
3. A connection is used again only after an answer that ended where its framing says, with nothing after it, the
   request fully written, and keep-alive on both sides. Otherwise, a cancel included, it is closed. It may be idle only
   for less than the upstream keeps it, and for less still before an exchange that may not run twice.
4. One exchange at a time on a connection. Bytes that nobody asked for close it. Before it is used again, the kernel
   is asked whether there is something to read or a hang-up.
5. No queue: the scheduler is the only one.
6. Network input never costs more than head cap + body cap; interim answers count as head, and chunk sizes,
   extensions and trailers have a bound of their own.
7. Requests come as bytes; they were checked when they entered the service.
8. An exchange may carry `send_by`: after it, it isn't written and ends NotSent, while its dial goes on for the next.
9. One timer for all busy exchanges, one for all idle connections.

`exchange` is what passes between the caller and the rest. `origin` pairs exchanges with connections (5, 8, 9); `dial`
opens one; `idle` says how long it may be used; `connection` has the only write (1, 2) and decides on reuse (3);
`reader` reads an answer (4, 6); `tls` and `wheel` know nothing of HTTP. The parser is llhttp, TLS is OpenSSL, dialing
is aiohappyeyeballs.

Not here: retries, limits, redirects, cookies, proxies, HTTP/2, decompression. Everything lives on one event loop.
"""
