/** The page's words, in the reader's language. */

/** The words of all languages, of which one is in use. */
export class Language {
  constructor(words) {
    this.words = words;
    const wanted = [location.hash.slice(1), ...navigator.languages].map((name) => name.slice(0, 2));
    this.use(wanted.find((name) => name in words) ?? "en");
  }

  use(name) {
    this.name = name;
    document.documentElement.lang = name === "zh" ? "zh-Hans" : name;
  }

  /** Changes to the other language. */
  switch() {
    this.use(this.name === "en" ? "zh" : "en");
  }

  /** Returns some words, with values in the places of their names in braces. */
  say(key, values = {}) {
    return this.words[this.name][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  number(value, digits = 0) {
    return value.toLocaleString(this.name, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  percent(share) {
    const digits = share > 0 && share < 0.0995 ? 1 : 0;
    return share.toLocaleString(this.name, { style: "percent", maximumFractionDigits: digits });
  }

  /** Puts the words into all elements that name some. */
  apply() {
    for (const element of document.querySelectorAll("[data-word]"))
      element.textContent = this.say(element.dataset.word);
    for (const element of document.querySelectorAll("[data-label]")) {
      element.setAttribute("aria-label", this.say(element.dataset.label));
    }
  }
}
