// Runs a batch of calls and prints each result as it comes, one JSON object a line.
//
//     node run_batch.js [--pool NAME] [--tries N] HOST:PORT PATH...
//
// Exit codes: 0 every call succeeded; 2 usage, or a request that the server can't accept; 3 some calls failed; 4 the
// server isn't there, isn't healthy, stayed full, or the batch was cut short; 130 Ctrl-C, which cancels the batch.

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const FINE = 0;
const BAD_REQUEST = 2;
const CALLS_FAILED = 3;
const CUT_SHORT = 4;
const INTERRUPTED = 130;

const USAGE = 'usage: node run_batch.js [--pool NAME] [--tries N] HOST:PORT PATH...';
const SERVICE = 'apiflux.v1.FluxService';
const HEALTH_TIMEOUT = 10_000; // ms
const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': 64 << 20, // gRPC's default is 4 MiB
  'grpc.enable_http_proxy': 0, // the service runs beside its callers
};

// The contract is read at run time: nothing is generated, so nothing gets out of date.
const definition = protoLoader.loadSync(
  ['apiflux/v1/apiflux.proto', 'google/rpc/error_details.proto', 'grpc/health/v1/health.proto'],
  {
    includeDirs: ['../../protos', 'protos'].map((folder) => fileURLToPath(new URL(folder, import.meta.url))),
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
    json: true, // a google.protobuf.Any is read as the message in it
  },
);
const { FluxService } = grpc.loadPackageDefinition(definition).apiflux.v1;
const { Health } = grpc.loadPackageDefinition(definition).grpc.health.v1;
const Status = definition['google.rpc.Status'];

/** A failure that is no gRPC status. */
class Failed extends Error {}

async function main(args) {
  let values, target, paths;
  try {
    ({ values, positionals: [target, ...paths] } = parseArgs({
      args,
      allowPositionals: true,
      options: { pool: { type: 'string', default: '' }, tries: { type: 'string', default: '5' } },
    }));
    if (paths.length === 0) throw new Error('a server and at least one path are needed');
    if (!/^[1-9]\d*$/.test(values.tries)) throw new Error('--tries is a number from 1');
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    return BAD_REQUEST;
  }

  const interrupt = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => interrupt.abort());
  process.stdout.on('error', () => process.exit(CUT_SHORT)); // nobody reads on

  const client = new FluxService(target, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
  try {
    await checkHealth(client, target, interrupt.signal);
    const request = { pool: values.pool, calls: paths.map((path) => ({ path })) };
    const summary = await runBatch(client, request, Number(values.tries), interrupt.signal);
    const elapsed = milliseconds(summary.elapsed) / 1000;
    console.error(`${summary.succeeded} of ${summary.total} succeeded in ${elapsed.toFixed(3)}s`);
    return summary.succeeded < summary.total ? CALLS_FAILED : FINE;
  } catch (error) {
    if (interrupt.signal.aborted) {
      console.error('interrupted: the batch was cancelled');
      return INTERRUPTED;
    }
    if (!(error instanceof Failed) && !(error.metadata instanceof grpc.Metadata)) throw error; // a fault in here
    console.error(`${target}: ${describe(error)}`);
    return [grpc.status.INVALID_ARGUMENT, grpc.status.NOT_FOUND].includes(error.code) ? BAD_REQUEST : CUT_SHORT;
  } finally {
    client.close();
  }
}

/** Asks the standard health service about ours. */
async function checkHealth(client, target, signal) {
  const health = new Health(target, grpc.credentials.createInsecure(), { channelOverride: client.getChannel() });
  const response = await new Promise((resolve, reject) => {
    const call = health.check(
      { service: SERVICE },
      { deadline: Date.now() + HEALTH_TIMEOUT },
      (error, answer) => {
        if (error?.code === grpc.status.NOT_FOUND) reject(new Failed(`the server has no ${SERVICE}`));
        else if (error) reject(error);
        else resolve(answer);
      },
    );
    signal.addEventListener('abort', () => call.cancel());
  });
  if (response.status !== 'SERVING') throw new Failed(`the server isn't healthy: ${response.status}`);
}

/**
 * Runs the batch and returns its summary. A full server has sent nothing of it and says when to come back; it is asked
 * again then, so many times in all.
 */
async function runBatch(client, request, tries, signal) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await runOnce(client, request, signal);
    } catch (error) {
      const delay = retryDelay(error);
      if (delay === undefined || attempt === tries) throw error;
      console.error(`${describe(error)}; trying again in ${delay / 1000}s`);
      await sleep(delay, undefined, { signal });
    }
  }
}

async function runOnce(client, request, signal) {
  const metadata = new grpc.Metadata();
  // Without TLS it can be read on its way.
  if (process.env.APIFLUX_TOKEN) metadata.set('authorization', `Bearer ${process.env.APIFLUX_TOKEN}`);
  const stream = client.process(request, metadata);
  const cancel = () => stream.cancel();
  signal.addEventListener('abort', cancel);
  let summary;
  try {
    for await (const message of stream) {
      for (const result of message.results) console.log(JSON.stringify(lineOf(result, request)));
      summary = message.summary ?? summary;
    }
  } finally {
    signal.removeEventListener('abort', cancel);
    stream.cancel(); // of no effect when the stream has ended
  }
  if (!summary) throw new Failed('the batch was cut short: no summary came');
  return summary;
}

function lineOf({ index, keyLabel, attempts, response, error }, request) {
  const line = { index, path: request.calls[index].path, key: keyLabel, attempts };
  if (error) {
    const reason = detailOf(error, 'ErrorInfo')?.reason ?? '';
    return { ...line, error: { reason, message: error.message } };
  }
  return { ...line, status: response.statusCode, body: response.body.toString('utf8') };
}

/** How long to wait, in ms, if the server was full; undefined for any other error. */
function retryDelay(error) {
  if (error.code !== grpc.status.RESOURCE_EXHAUSTED) return undefined;
  const [details] = error.metadata.get('grpc-status-details-bin');
  if (!details) return undefined; // gRPC's own: a message is too large, and will be
  const info = detailOf(Status.deserialize(details), 'RetryInfo');
  return info && milliseconds(info.retryDelay);
}

/** The detail of this name in a google.rpc.Status. Details that protos/ doesn't know have no '@type'. */
function detailOf(status, name) {
  return status.details.find((detail) => detail['@type'] === `type.googleapis.com/google.rpc.${name}`);
}

function milliseconds({ seconds, nanos }) {
  return seconds * 1000 + nanos / 1e6;
}

function describe(error) {
  return error instanceof Failed ? error.message : `${grpc.status[error.code]}: ${error.details}`;
}

process.exitCode = await main(process.argv.slice(2));
