/** Samplers: which tokens are left to choose from, and a choice that a seed repeats. */

import { softmax } from "./numbers.js";

/**
 * Returns the probability of each token after the dials: top-k, then top-p, then the temperature, as tinygpt2's
 * TopKSampler(k, TopPSampler(p, TemperatureSampler(t))). Tokens that tie with the last one kept are kept; a temperature
 * of 0 leaves the first of the most probable ones.
 */
export function probabilities(logits, { temperature = 1, topK = Infinity, topP = 1 } = {}) {
  const kept = Float64Array.from(logits);
  if (topK < kept.length) keep(kept, kept.slice().sort().at(-topK));
  if (topP < 1) keep(kept, lastOfNucleus(kept, topP));
  if (temperature === 0) {
    const best = kept.indexOf(Math.max(...kept.values()));
    return kept.fill(0).fill(1, best, best + 1);
  }
  for (let i = 0; i < kept.length; i++) kept[i] /= temperature;
  return softmax(kept);
}

/** Drops the logits below a smallest one. */
function keep(logits, smallest) {
  for (let i = 0; i < logits.length; i++) if (logits[i] < smallest) logits[i] = -Infinity;
}

/** Returns the smallest of the largest logits that together have a probability of at least `p`. */
function lastOfNucleus(logits, p) {
  const descending = logits.slice().sort().reverse();
  const shares = softmax(descending.slice());
  let before = 0;
  let last = 0;
  while (last + 1 < shares.length && before + shares[last] < p) before += shares[last++];
  return descending[last];
}

/** Returns the index of the probability that a number from 0 to 1 falls on. */
export function draw(shares, uniform) {
  let left = uniform;
  let chosen = 0;
  for (let i = 0; i < shares.length; i++) {
    if (shares[i] === 0) continue;
    chosen = i;
    left -= shares[i];
    if (left < 0) break;
  }
  return chosen;
}

/** Returns the number from 0 to 1 that a seed has at some place of a text (mixing as in MurmurHash3). */
export function uniformAt(seed, place) {
  let bits = Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(place + 1, 0x85ebca6b);
  for (const factor of [0x85ebca6b, 0xc2b2ae35]) bits = Math.imul(bits ^ (bits >>> 15), factor);
  return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32;
}

/** Returns the indices of the largest values, the largest first, and of equal ones the first. */
export function largest(values, count) {
  const found = [];
  for (let i = 0; i < values.length; i++) {
    if (found.length === count && values[i] <= values[found.at(-1)]) continue;
    let place = found.length;
    while (place > 0 && values[found[place - 1]] < values[i]) place -= 1;
    found.splice(place, 0, i);
    if (found.length > count) found.pop();
  }
  return found;
}
