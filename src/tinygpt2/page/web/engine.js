/** What the page asks of the model: commands that yield results, one after the other. */

import { copiedStretches } from "./copies.js";
import { Model, unpack } from "./model.js";
import { draw, largest, probabilities, uniformAt } from "./sampling.js";
import { unpacked } from "./packing.js";

const ALTERNATIVES = 8; // to each token that is written

/** The commands on a model, whose packed weights and those of its snapshots are given; `text` is what it has read. */
export class Engine {
  constructor({ config, shapes, end, weights, snapshots, text }) {
    Object.assign(this, { config, shapes, end, weights, snapshots, text });
    this.models = new Map(); // the trained one, and the snapshot that was used last
  }

  /** Returns the model, or the snapshot with a number. */
  async model(snapshot = null) {
    if (!this.models.has(snapshot)) {
      const packed = snapshot === null ? this.weights : this.snapshots[snapshot];
      for (const other of this.models.keys()) if (other !== null) this.models.delete(other);
      this.models.set(snapshot, new Model(this.config, unpack(this.shapes, await unpacked(packed))));
    }
    return this.models.get(snapshot);
  }

  /** Yields the logits of the token after some; a text without tokens begins after an end of text. */
  async *next({ ids, snapshot }) {
    const model = await this.model(snapshot);
    model.read(this.begun(ids));
    yield { logits: model.logits().slice() };
  }

  /**
   * Yields tokens that continue some, `count` at most, each as soon as it is chosen, with its probability and those of
   * the likeliest others, before the dials.
   */
  async *write({ ids, count, dials, snapshot }) {
    const model = await this.model(snapshot);
    const text = [...this.begun(ids)];
    model.read(text);
    for (let i = 0; i < count; i++) {
      const shares = probabilities(model.logits());
      const token = draw(probabilities(model.guess, dials), uniformAt(dials.seed, text.length));
      yield { token, share: shares[token], others: largest(shares, ALTERNATIVES).map((id) => [id, shares[id]]) };
      if (token === this.end) return;
      model.grow(text, token);
      text.push(token);
    }
  }

  /** Yields the logits after some tokens, first those of the trained model, as `trained`; then what `write` yields. */
  async *learned(asked) {
    for await (const { logits } of this.next({ ids: asked.ids })) yield { trained: logits };
    yield* this.next(asked);
    yield* this.write(asked);
  }

  /** Yields what happens to some tokens on their way: embeddings, attention[layer][head][row], guesses per layer. */
  async *inside({ ids }) {
    const { layers, heads } = this.config;
    const model = await this.model();
    const embeddings = [];
    const attention = Array.from({ length: layers }, () => Array.from({ length: heads }, () => []));
    let stream = [];
    model.reset();
    for (const id of ids) {
      stream = [];
      model.feed(id, {
        embedding: (x) => {
          embeddings.push(x.slice());
          stream.push(x.slice());
        },
        attention: (layer, head, weights) => attention[layer][head].push(Array.from(weights)),
        block: (_, x) => stream.push(x.slice()),
      });
    }
    const guesses = stream.map((x) => {
      const shares = probabilities(model.logits(x));
      return largest(shares, ALTERNATIVES).map((id) => [id, shares[id]]);
    });
    yield { embeddings, attention, guesses };
  }

  /** Yields the stretches of a text that stand in the training text. */
  async *copies({ text }) {
    this.training ??= new TextDecoder().decode(await unpacked(this.text));
    yield { stretches: copiedStretches(text, this.training) };
  }

  begun(ids) {
    return ids.length ? ids : [this.end];
  }
}
