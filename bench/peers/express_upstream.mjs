// express-rate-limit as an upstream: MAX calls of a key in each of its windows of PER seconds, told in headers.
//
//     node express_upstream.mjs MAX PER
//
// This runs in the folder that has its packages. It prints its port, and ends with its standard input.
import express from "express";
import { rateLimit } from "express-rate-limit";

const [limit, per] = process.argv.slice(2).map(Number);
const app = express();
app.use(
  rateLimit({
    windowMs: per * 1000,
    limit,
    standardHeaders: "draft-8",
    legacyHeaders: true,
    keyGenerator: (request) => request.get("x-api-key"),
  }),
);
app.use((request, response) => response.json({ ok: true }));
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit()).resume();
