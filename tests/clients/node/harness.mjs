// Runs the cases of a client: each line on stdin names one and holds its options, and is answered
// by a line on stdout that says what the case has seen, the error that ended it included.

import { createInterface } from "node:readline";

export async function serve(cases) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { name, ...options } = JSON.parse(line);
    const seen = { sent: [] };
    try {
      await cases[name]({ ...options, fetch: recorded(seen) }, seen);
    } catch (error) {
      seen.error = described(error);
    }
    process.stdout.write(`${JSON.stringify(seen)}\n`);
  }
}

function recorded(seen) {
  return (url, init) => {
    if (init?.body) seen.sent.push(JSON.parse(init.body));
    return fetch(url, init);
  };
}

function described(error) {
  // Some clients throw, or pass on, what the server has sent.
  const { message = String(error), stack = message, code, param } = error;
  const status = error.status ?? error.statusCode;
  return { kind: error.constructor.name, message, stack, status, code, param };
}
