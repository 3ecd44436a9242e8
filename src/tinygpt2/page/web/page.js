/** What the parts of the page share: the model's data, the text, the dials, and the model itself in its thread. */

import { Language } from "./language.js";
import { makeTokenizer, UnknownCharacter } from "./tokenizer.js";

/** The state of the page. `changed` calls whoever listens to what has changed: "text", "dials" or "language". */
export class Page {
  constructor(data, worker) {
    this.data = data;
    this.language = new Language(data.words);
    this.tokenizer = makeTokenizer(data.tokenizer);
    this.dials = { temperature: 0.8, topK: 50, topP: 1, seed: 1 };
    this.beginning = [];
    this.written = []; // each {token, share, others}
    this.listeners = [];
    this.worker = worker;
    this.answers = new Map();
    this.asked = 0;
    worker.onmessage = ({ data: answer }) => this.receive(answer);
  }

  /** Calls a function now, and whenever one of some things changes. */
  on(names, listener) {
    this.listeners.push([names, listener]);
    listener();
  }

  changed(name) {
    for (const [names, listener] of this.listeners) if (names.includes(name)) listener();
  }

  /** Sends a command to the model; a newer one of the same topic ends it. `onResult` gets each result. */
  ask(topic, command, asked, onResult = () => {}) {
    const number = ++this.asked;
    this.worker.postMessage({ topic, command, asked, number });
    for (const [other, answer] of this.answers) if (answer.topic === topic) this.answers.delete(other);
    return new Promise((resolve, reject) => this.answers.set(number, { topic, onResult, resolve, reject }));
  }

  receive({ number, result, done, error }) {
    const answer = this.answers.get(number);
    if (!answer) return;
    if (result) answer.onResult(result);
    else this.answers.delete(number);
    if (done) answer.resolve();
    if (error) answer.reject(new Error(error));
  }

  /** Sets the beginning to a text, and returns what is wrong with it, if anything. */
  begin(text) {
    this.written = [];
    try {
      this.beginning = this.tokenizer.encode(text);
    } catch (error) {
      if (!(error instanceof UnknownCharacter)) throw error;
      this.beginning = [];
      return error;
    } finally {
      this.changed("text");
    }
  }

  /** The ids of the whole text. */
  get ids() {
    return [...this.beginning, ...this.written.map(({ token }) => token)];
  }

  get text() {
    return this.tokenizer.decode(this.ids);
  }

  /** Returns a token as it is shown alone, with signs for spaces and line breaks. */
  label(id) {
    if (id === this.tokenizer.end) return this.say("end");
    return this.tokenizer.label(id).replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  }

  /** Returns the last characters of a text, after an ellipsis if there are more. */
  tail(text, count) {
    return text.length > count ? `…${text.slice(-count)}` : text;
  }

  quoted(text) {
    return this.say("quoted", { text });
  }

  say(key, values) {
    return this.language.say(key, values);
  }
}
