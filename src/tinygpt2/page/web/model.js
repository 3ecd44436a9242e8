/** GPT-2's forward pass with a cache, one token at a time: embeddings, blocks of attention and MLP, the head. */

import { ACTIVATIONS, add, dot, linear, normalise, softmax } from "./numbers.js";

/**
 * A model with the keys and values of the tokens that it was fed.
 *
 * `config` has vocabulary, context, layers, heads, width, inner, activation, epsilon, and in `scales` the factor of each
 * layer's attention scores; `weights` has Float32Arrays by name, matrices row by row.
 */
export class Model {
  constructor(config, weights) {
    const { layers, context, width, inner, vocabulary } = config;
    const named = (name) => ({ weight: weights[`${name}.weight`], bias: weights[`${name}.bias`] });
    this.config = config;
    this.tokens = weights["wte.weight"];
    this.places = weights["wpe.weight"];
    this.blocks = Array.from({ length: layers }, (_, layer) => ({
      first: named(`h.${layer}.ln_1`),
      heads: named(`h.${layer}.attn.c_attn`),
      mixed: named(`h.${layer}.attn.c_proj`),
      second: named(`h.${layer}.ln_2`),
      inside: named(`h.${layer}.mlp.c_fc`),
      outside: named(`h.${layer}.mlp.c_proj`),
      keys: new Float32Array(context * width),
      values: new Float32Array(context * width),
    }));
    this.last = named("ln_f");
    this.head = { weight: weights["lm_head.weight"] ?? this.tokens };
    this.x = new Float32Array(width); // the residual stream
    this.normed = new Float32Array(width);
    this.branch = new Float32Array(width);
    this.heads = new Float32Array(3 * width); // query, key and value of the token, for all heads
    this.inside = new Float32Array(inner);
    this.scores = new Float64Array(context);
    this.guess = new Float32Array(vocabulary);
    this.ids = [];
  }

  /** Number of tokens that it was fed. */
  get length() {
    return this.ids.length;
  }

  /** Forgets all tokens. */
  reset() {
    this.ids = [];
  }

  /**
   * Adds a token; `context` of them at most.
   *
   * `watch`, if given, sees it happen: `embedding(x)`, then for each layer `attention(layer, head, weights)` of each
   * head and `block(layer, x)`. It must copy what it keeps.
   */
  feed(token, watch) {
    const { width, epsilon, activation } = this.config;
    const { x, normed, branch, inside } = this;
    const place = this.length * width;
    for (let i = 0; i < width; i++) x[i] = this.tokens[token * width + i] + this.places[place + i];
    watch?.embedding(x);
    this.blocks.forEach((block, layer) => {
      normalise(normed, x, block.first, epsilon);
      linear(this.heads, normed, block.heads);
      block.keys.set(this.heads.subarray(width, 2 * width), place);
      block.values.set(this.heads.subarray(2 * width), place);
      this.attend(block, layer, watch);
      linear(branch, normed, block.mixed);
      add(x, branch);
      normalise(normed, x, block.second, epsilon);
      linear(inside, normed, block.inside);
      ACTIVATIONS[activation](inside);
      linear(branch, inside, block.outside);
      add(x, branch);
      watch?.block(layer, x);
    });
    this.ids.push(token);
  }

  /** Mixes the values of all tokens so far into `normed`, for each head by how well their keys fit its query. */
  attend({ keys, values }, layer, watch) {
    const { width, heads, scales } = this.config;
    const size = width / heads;
    this.normed.fill(0);
    for (let head = 0; head < heads; head++) {
      const first = head * size;
      const scores = this.scores.subarray(0, this.length + 1);
      for (let at = 0; at < scores.length; at++) {
        scores[at] = scales[layer] * dot(this.heads, first, keys, at * width + first, size);
      }
      softmax(scores);
      for (let at = 0; at < scores.length; at++) {
        const weight = scores[at];
        const from = at * width;
        for (let i = first; i < first + size; i++) this.normed[i] += weight * values[from + i];
      }
      watch?.attention(layer, head, scores);
    }
  }

  /** Returns the logits of the next token, by default after the last one; the next call overwrites them. */
  logits(x = this.x) {
    normalise(this.normed, x, this.last, this.config.epsilon);
    linear(this.guess, this.normed, this.head);
    return this.guess;
  }

  /** Reads the last of some tokens, as many as the context holds, in place of those before: what is the same stays. */
  read(ids) {
    const window = ids.slice(-this.config.context);
    let same = 0;
    while (same < window.length - 1 && window[same] === this.ids[same]) same += 1;
    this.ids.length = same;
    for (const id of window.slice(same)) this.feed(id);
  }

  /** Adds one more token after some; if the context is full, only the newest half is kept, and read again. */
  grow(ids, id) {
    const { context } = this.config;
    if (this.length === context) this.read([...ids, id].slice(-((context + 1) >> 1)));
    else this.feed(id);
  }
}

/**
 * Returns the weights that Python has packed: for `shapes`, a list of [name, rows, columns] (a vector has no columns),
 * first all vectors and the scale of each row of each matrix, as float32, then the matrices' integers in a byte each.
 */
export function unpack(shapes, bytes) {
  const floats = shapes.reduce((sum, [, rows]) => sum + rows, 0);
  const numbers = new Float32Array(bytes.buffer, bytes.byteOffset, floats);
  const integers = new Int8Array(bytes.buffer, bytes.byteOffset + 4 * floats);
  const weights = {};
  let number = 0;
  let integer = 0;
  for (const [name, rows, columns] of shapes) {
    const scales = numbers.subarray(number, number + rows);
    number += rows;
    weights[name] = columns ? new Float32Array(rows * columns) : scales;
    for (let i = 0; columns && i < rows * columns; i++) {
      weights[name][i] = integers[integer++] * scales[Math.floor(i / columns)];
    }
  }
  return weights;
}
