/** Part 1: the model continues a beginning token by token; each token shows what else it could have been. */

import { byId, make, rove, showBars } from "./elements.js";

const COUNT = 60; // tokens to write at a time

/** Fills the part, and writes a first text. */
export function makeWrite(page) {
  const [field, go, again, written] = ["beginning", "go", "again", "written"].map(byId);
  let run = 0; // number of the text being written
  let writing = false;
  let waiting = []; // results that are not shown yet: one a frame, so that they can be watched
  let said = {}; // what is wrong, or how fast it was

  const show = () => {
    go.textContent = page.say(writing ? "write.stop" : page.written.length ? "write.on" : "write.go");
    go.disabled = Boolean(said.unknown);
    again.disabled = !page.written.length;
    byId("beginning-error").textContent = wrong(page, said);
    byId("speed").textContent = said.count ? page.say("write.speed", inWords(page, said)) : "";
  };

  const stop = () => {
    run += 1;
    writing = false;
    page.ask("write", "stop");
    show();
  };

  const reveal = (mine) => {
    if (mine !== run) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    for (const result of waiting.splice(0, calm ? Infinity : 1)) {
      if (result === null) {
        writing = false;
        page.changed("text");
        return;
      }
      page.written.push(result);
      written.append(tokenButton(page, page.written.length - 1, choose));
    }
    requestAnimationFrame(() => reveal(mine));
  };

  const write = async () => {
    byId("alternatives").hidden = true;
    run += 1;
    writing = true;
    waiting = [];
    said = {};
    show();
    reveal(run);
    const began = performance.now();
    let count = 0;
    try {
      await page.ask("write", "write", { ids: page.ids, count: COUNT, dials: page.dials }, (result) => {
        waiting.push(result);
        count += 1;
      });
      said = { count, speed: (1000 * count) / (performance.now() - began) };
    } catch (error) {
      said = { error };
    }
    waiting.push(null);
  };

  const choose = (index, [token, share]) => {
    stop();
    page.written.splice(index, Infinity, { token, share, others: page.written[index].others });
    page.changed("text");
    write();
  };

  const begin = () => {
    stop();
    said = { unknown: page.begin(field.value) };
    show();
  };

  go.addEventListener("click", () => (writing ? stop() : write()));
  again.addEventListener("click", () => {
    begin();
    write();
  });
  field.addEventListener("input", begin);
  rove(written, ".token");
  page.append = (result) => {
    stop();
    page.written.push(result);
    page.changed("text");
  };
  page.on(["text", "language"], () => {
    byId("alternatives").hidden = true;
    written.replaceChildren(make("span", { className: "given" }, page.tokenizer.decode(page.beginning)));
    written.append(...page.written.map((_, index) => tokenButton(page, index, choose)));
    show();
  });
  field.value = page.data.prompt;
  begin();
  if (!said.unknown) write();
}

function wrong(page, { unknown, error }) {
  if (error) return page.say("write.failed", { error });
  if (!unknown) return "";
  const known = page.data.tokenizer.characters.replaceAll("\n", "⏎");
  return page.say("write.unknown", { character: page.quoted(unknown.character), known });
}

function inWords(page, { count, speed }) {
  return { count: page.language.number(count), speed: page.language.number(speed) };
}

/** Returns a token of the text as a button that opens what else could stand there. */
function tokenButton(page, index, choose) {
  const { token, share } = page.written[index];
  const added = page.tokenizer.textsOf(page.ids).at(index - page.written.length);
  const text = token === page.tokenizer.end ? page.say("end") : added;
  // No button element: its text would not be broken into lines as the rest is.
  const button = make("span", { role: "button", className: "token", tabIndex: index ? -1 : 0 }, text);
  button.title = explained(page, token, share);
  if (!text.trim()) button.setAttribute("aria-label", page.label(token));
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => showAlternatives(page, index, choose, button));
  return button;
}

function explained(page, token, share) {
  return page.say("write.token", { token: page.quoted(page.label(token)), share: page.language.percent(share) });
}

function showAlternatives(page, index, choose, button) {
  const { token, share, others } = page.written[index];
  const panel = byId("alternatives");
  const closes = button.getAttribute("aria-expanded") === "true";
  for (const open of document.querySelectorAll(".token[aria-expanded=true]"))
    open.setAttribute("aria-expanded", "false");
  panel.hidden = closes;
  if (closes) return;
  button.setAttribute("aria-expanded", "true");
  const bars = make("div", { className: "bars" });
  showBars(
    bars,
    others
      .filter(([other]) => other !== token)
      .map(([other, chance]) => ({
        label: page.label(other),
        number: page.language.percent(chance),
        dark: chance,
        title: explained(page, other, chance),
        press: () => choose(index, [other, chance]),
      })),
  );
  const values = { token: page.quoted(page.label(token)), share: page.language.percent(share) };
  panel.replaceChildren(make("p", {}, page.say("write.instead", values)), bars);
}
