/** Part 5: how well the model predicts new text, beside simpler methods; and what it copies. */

import { STRETCH } from "./copies.js";
import { byId, make, showBars } from "./elements.js";

/** Fills the part. */
export function makeKnows(page) {
  let found = { text: "", stretches: [] };
  const show = () => {
    const { report, hasText } = page.data;
    byId("knows-lead").textContent = page.say(report ? "knows.lead" : "knows.none");
    if (report) showReport(page, report);
    byId("knows-text").hidden = !(hasText && found.text);
    byId("knows-copies").textContent = copied(page, hasText, found);
    if (hasText) byId("knows-text").replaceChildren(...marked(found));
  };
  page.on(["text"], () => {
    const text = page.tokenizer.decode(page.written.map(({ token }) => token));
    if (!page.data.hasText) return;
    page.ask("copies", "copies", { text }, ({ stretches }) => {
      found = { text, stretches };
      show();
    });
  });
  page.on(["language"], show);
}

function showReport(page, report) {
  const rows = ["model", "pretrained", "ngram", "xz", "untrained"].filter((name) => report[name] !== null);
  const most = Math.max(...rows.map((name) => report[name]));
  showBars(
    byId("knows-bars"),
    rows.map((name) => ({
      label: page.say(`knows.${name}`, { order: report.order }),
      number: page.say("knows.bits", { bits: page.language.number(report[name], 2) }),
      pale: report[name] / most,
      dark: name === "model" ? report[name] / most : 0,
    })),
  );
  const measured = page.say("knows.measured", { bytes: page.language.number(report.bytes) });
  const share = report.copied !== null && {
    characters: page.language.number(report.characters),
    share: page.language.percent(report.copied),
  };
  byId("knows-measured").textContent = share ? `${measured} ${page.say("knows.share", share)}` : measured;
}

function copied(page, hasText, { text, stretches }) {
  if (!hasText) return page.say("knows.without");
  if (!text) return page.say("knows.nothing");
  const characters = stretches.reduce((sum, [begin, end]) => sum + end - begin, 0);
  return page.say("knows.with", { share: page.language.percent(characters / text.length), length: STRETCH });
}

/** Returns a text as nodes, with its copied stretches marked. */
function marked({ text, stretches }) {
  const nodes = [];
  let done = 0;
  for (const [begin, end] of stretches) {
    nodes.push(text.slice(done, begin), make("mark", {}, text.slice(begin, end)));
    done = end;
  }
  return [...nodes, text.slice(done)];
}
