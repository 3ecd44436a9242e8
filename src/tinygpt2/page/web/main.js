/** The page: reads its data, starts the model in a thread of its own, and fills the parts. */

import { makeDials } from "./dials.js";
import { byId } from "./elements.js";
import { makeInside } from "./inside.js";
import { makeKnows } from "./knows.js";
import { makeLearned } from "./learned.js";
import { makeNext } from "./next.js";
import { unpacked } from "./packing.js";
import { Page } from "./page.js";
import { makeWrite } from "./write.js";

const content = (id) => byId(id)?.textContent;

/** Starts the worker. Browsers that check where scripts are from are told that this one is from this page. */
function startWorker() {
  const address = URL.createObjectURL(new Blob([content("worker")], { type: "text/javascript" }));
  const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: (ours) => ours });
  return new Worker(policy ? policy.createScriptURL(address) : address);
}

function showLanguage(page) {
  const { config, parameters, title } = page.data;
  const { language } = page;
  const counted = Object.entries({ parameters, ...config }).filter(([, value]) => typeof value === "number");
  const numbers = Object.fromEntries(counted.map(([name, value]) => [name, language.number(value)]));
  const layers = config.layers === 1 ? page.say("layers.one") : page.say("layers", { count: numbers.layers });
  language.apply();
  document.querySelector("h1").textContent = page.say("heading", { title });
  document.title = title;
  byId("facts").textContent = page.say("facts", { ...numbers, layers });
  byId("language").textContent = page.say("other");
  byId("language").lang = language.name === "en" ? "zh-Hans" : "en";
}

async function start() {
  const data = JSON.parse(new TextDecoder().decode(await unpacked(content("data"))));
  const page = new Page(data, startWorker());
  page.ask("load", "load", {
    config: data.config,
    shapes: data.shapes,
    end: data.tokenizer.end,
    weights: content("weights"),
    snapshots: data.snapshots.map((_, i) => content(`snapshot-${i}`)),
    text: content("text"),
  });
  page.on(["language"], () => showLanguage(page));
  byId("language").addEventListener("click", () => {
    page.language.switch();
    page.changed("language");
  });
  byId("loading").remove();
  byId("page").hidden = false;
  for (const part of [makeDials, makeWrite, makeNext, makeInside, makeLearned, makeKnows]) part(page);
}

start();
