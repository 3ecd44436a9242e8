/** The model in a thread of its own, so that the page never waits for it. */

import { Engine } from "./engine.js";

const BREATH = 20; // milliseconds of work after which messages are read
const latest = {}; // number of the newest message of each topic, which ends those before
let engine;
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  latest[data.topic] = data.number;
  queue = queue.then(() => answer(data)).catch((error) => self.postMessage({ number: data.number, error: `${error}` }));
};

/** Sends the results of a command, as long as its topic has no newer one. */
async function answer({ command, number, topic, asked }) {
  if (command === "load") engine = new Engine(asked);
  let breathed = performance.now();
  const results = engine[command]?.(asked) ?? [];
  for await (const result of results) {
    if (latest[topic] !== number) return;
    self.postMessage({ number, result });
    if (performance.now() - breathed > BREATH) {
      await new Promise((done) => setTimeout(done));
      breathed = performance.now();
    }
  }
  self.postMessage({ number, done: true });
}
