/** Part 3: what happens to the reader's beginning inside the model. */

import { byId, cells, make, rove } from "./elements.js";

const TOKENS = 16; // of the beginning, so that a matrix can be read
const GUESSES = 3;

/** Fills the part. */
export function makeInside(page) {
  const seen = { ids: [], layer: 0, head: 0, result: null };
  page.on(["text"], () => {
    const end = page.beginning.slice(-Math.min(TOKENS, page.data.config.context));
    const ids = end.length ? end : [page.tokenizer.end];
    if (`${ids}` === `${seen.ids}`) return;
    seen.ids = ids;
    page.ask("inside", "inside", { ids }, (result) => {
      seen.result = result;
      show(page, seen);
    });
  });
  page.on(["language"], () => seen.result && show(page, seen));
  rove(byId("inside-matrix"), "td[tabindex]", () => seen.ids.length);
}

function show(page, seen) {
  const { width } = page.data.config;
  const cut = page.beginning.length > seen.ids.length;
  byId("inside-cut").textContent = cut
    ? page.say("inside.cut", { count: seen.ids.length })
    : page.beginning.length
      ? ""
      : page.say("inside.empty");
  byId("inside-embeddings-lead").textContent = page.say("inside.embeddings.lead", {
    width: page.language.number(width),
  });
  showTokens(page, seen);
  showEmbeddings(page, seen);
  showHeads(page, seen);
  showMatrix(page, seen);
  showGuesses(page, seen);
}

function showTokens(page, { ids }) {
  const chip = (id) => make("li", {}, page.label(id), make("small", {}, `${id}`));
  byId("inside-tokens").replaceChildren(...ids.map(chip));
}

function showEmbeddings(page, { ids, result }) {
  const values = result.embeddings.flatMap((row) => Array.from(row, Math.abs)).sort((a, b) => a - b);
  const largest = values[Math.floor(0.98 * (values.length - 1))] || 1; // so that a few extremes do not pale the rest
  const rows = ids.map((id, i) =>
    make(
      "div",
      { className: "strip" },
      make("span", { className: "label" }, page.label(id)),
      cells([result.embeddings[i]], largest),
    ),
  );
  byId("inside-embeddings").replaceChildren(...rows);
}

function showHeads(page, seen) {
  const { layers, heads } = page.data.config;
  const buttons = [];
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < heads; head++) {
      const pressed = layer === seen.layer && head === seen.head;
      const name = page.say("inside.head", { layer: layer + 1, head: head + 1 });
      const button = make("button", { type: "button", "aria-pressed": `${pressed}` });
      button.append(cells(seen.result.attention[layer][head], 1), make("span", {}, name));
      button.addEventListener("click", () => {
        Object.assign(seen, { layer, head });
        showHeads(page, seen);
        showMatrix(page, seen);
        byId("inside-heads").children[layer * heads + head].focus();
      });
      buttons.push(button);
    }
  }
  byId("inside-heads").replaceChildren(...buttons);
}

function showMatrix(page, { ids, layer, head, result }) {
  const labels = ids.map((id) => page.label(id));
  const table = make("table", { className: "matrix" });
  table.append(make("caption", {}, page.say("inside.matrix", { layer: layer + 1, head: head + 1 })));
  const columns = labels.map((label) => make("th", { scope: "col" }, make("span", {}, label)));
  table.append(make("tr", {}, make("td"), ...columns));
  labels.forEach((label, row) => {
    const line = make("tr", {}, make("th", { scope: "row" }, label));
    labels.forEach((other, column) => {
      const weight = result.attention[layer][head][row][column];
      line.append(cell(page, label, other, weight, row || column ? -1 : 0));
    });
    table.append(line);
  });
  byId("inside-matrix").replaceChildren(table);
  byId("inside-cell").textContent = "";
}

/** Returns a cell that says what it means when it is pointed at or focused; without a weight, it is in the future. */
function cell(page, row, column, weight, tabIndex) {
  const names = { row: page.quoted(row), column: page.quoted(column) };
  const meaning =
    weight === undefined
      ? page.say("inside.ahead", names)
      : page.say("inside.cell", { ...names, share: page.language.percent(weight) });
  const element = make("td", { tabIndex, "aria-label": meaning });
  if (weight === undefined) element.className = "ahead";
  else element.style.setProperty("--weight", `${100 * weight}%`);
  const tell = () => {
    byId("inside-cell").textContent = meaning;
  };
  element.addEventListener("pointerenter", tell);
  element.addEventListener("focus", tell);
  return element;
}

function showGuesses(page, { result }) {
  const rows = result.guesses.map((guesses, layer) => {
    const when = layer ? page.say("inside.after", { layer }) : page.say("inside.before");
    const best = guesses
      .slice(0, GUESSES)
      .map(([id, share]) => make("li", {}, page.label(id), make("small", {}, page.language.percent(share))));
    return make("div", {}, make("p", {}, when), make("ol", { className: "chips" }, ...best));
  });
  byId("inside-guesses").replaceChildren(...rows);
}
