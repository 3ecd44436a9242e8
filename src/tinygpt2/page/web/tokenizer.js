/** Texts as token ids and back, to the same ids as tinygpt2's tokenizers. */

const utf8 = new TextEncoder();

/** Returns the tokenizer that the data of a page describe. */
export function makeTokenizer(described) {
  return described.type === "characters" ? new Characters(described) : new BytePairs(described);
}

/** A character that a vocabulary does not have. */
export class UnknownCharacter extends Error {
  constructor(character) {
    super(character);
    this.character = character;
  }
}

/** What both kinds share: `pieces` has the bytes of each id. */
class Tokenizer {
  constructor({ size, end }, pieces) {
    this.size = size;
    this.end = end;
    this.pieces = pieces;
  }

  /** Returns the text of some ids; bytes that are not UTF-8 become U+FFFD. */
  decode(ids) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return ids.map((id) => decoder.decode(this.pieces[id], { stream: true })).join("") + decoder.decode();
  }

  /** Returns the text that each id adds: all of a character whose bytes are spread over several stands at the last. */
  textsOf(ids) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return ids.map((id) => decoder.decode(this.pieces[id], { stream: true }));
  }

  /** Returns a token as it is shown alone: its text, or its bytes if they are only part of a character. */
  label(id) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.pieces[id]);
    } catch {
      return [...this.pieces[id]].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
    }
  }
}

/** One token for each character, and for the bytes of any other if there is a fallback. */
class Characters extends Tokenizer {
  constructor(described) {
    const characters = [...described.characters];
    const bytes = described.fallback ? Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)) : [];
    super(described, [...characters.map((each) => utf8.encode(each)), ...bytes, utf8.encode("<|endoftext|>")]);
    this.ids = new Map(characters.map((each, id) => [each, id]));
    this.fallback = described.fallback;
  }

  encode(text) {
    return [...text].flatMap((character) => {
      const id = this.ids.get(character);
      if (id !== undefined) return [id];
      if (!this.fallback) throw new UnknownCharacter(character);
      return Array.from(utf8.encode(character), (byte) => this.ids.size + byte);
    });
  }
}

/** GPT-2's byte pairs: a text is split into words, and in each the pair of the lowest rank is merged, until none is. */
class BytePairs extends Tokenizer {
  constructor(described) {
    const { tokens, special } = described;
    super(
      described,
      tokens.map((token, id) => (token === null ? utf8.encode(special[id]) : bytesOf(token))),
    );
    this.ranks = new Map(tokens.map((token, id) => [token, id]));
    this.words = wordPattern(described.classes);
    this.known = new Map(); // ids of words that were encoded before
  }

  encode(text) {
    return (text.match(this.words) ?? []).flatMap((word) => {
      if (!this.known.has(word)) {
        const bytes = Array.from(utf8.encode(word), (byte) => String.fromCharCode(byte));
        this.known.set(word, this.merge(bytes.join("")));
      }
      return this.known.get(word);
    });
  }

  /** Returns the ids of a word, whose bytes are the characters of a string. */
  merge(word) {
    if (this.ranks.has(word)) return [this.ranks.get(word)];
    const parts = [...word];
    const pairAt = (i) => (i + 1 < parts.length ? parts[i] + parts[i + 1] : "");
    const rankAt = (i) => this.ranks.get(pairAt(i)) ?? Infinity;
    const ranks = parts.map((_, i) => rankAt(i));
    for (;;) {
      let best = 0;
      for (let i = 1; i < ranks.length; i++) if (ranks[i] < ranks[best]) best = i;
      if (ranks[best] === Infinity) return parts.map((part) => this.ranks.get(part));
      parts.splice(best, 2, parts[best] + parts[best + 1]);
      ranks.splice(best, 1);
      ranks[best] = rankAt(best);
      if (best > 0) ranks[best - 1] = rankAt(best - 1);
    }
  }
}

/** Returns how GPT-2 splits a text, with the letters, numbers and whitespace of the tokenizer's own Unicode. */
function wordPattern({ letters, numbers, spaces }) {
  const words = `'(?:s|t|re|ve|m|ll|d)| ?[${letters}]+| ?[${numbers}]+| ?[^${spaces}${letters}${numbers}]+`;
  return new RegExp(`${words}|[${spaces}]+(?![^${spaces}])|[${spaces}]+`, "gu");
}

function bytesOf(token) {
  return Uint8Array.from(token, (byte) => byte.charCodeAt(0));
}
