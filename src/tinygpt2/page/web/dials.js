/** The dials of the samplers: temperature, top-k, top-p, seed. */

import { make } from "./elements.js";

const COUNTS = [1, 2, 3, 5, 10, 20, 50, 100, 200, Infinity];
const LARGEST_SEED = 999_999;

// How each dial moves: the range of its slider, and the values that the slider's places stand for.
const RANGES = {
  temperature: { max: 40, at: (place) => place / 20, place: (value) => Math.round(value * 20), digits: 2 },
  topK: { max: COUNTS.length - 1, at: (place) => COUNTS[place], place: (value) => COUNTS.indexOf(value), digits: 0 },
  topP: { min: 1, max: 20, at: (place) => place / 20, place: (value) => Math.round(value * 20), digits: 2 },
};

/** Fills every place for dials; all of them show and set the same values. */
export function makeDials(page) {
  document.querySelectorAll(".dials").forEach((container, copy) => {
    for (const name of Object.keys(RANGES)) container.append(slider(page, name, `${name}-${copy}`));
    container.append(seed(page, `seed-${copy}`));
  });
}

function slider(page, name, id) {
  const { min = 0, max, at, place, digits } = RANGES[name];
  const input = make("input", { type: "range", id, min, max, step: 1 });
  const value = make("output", { htmlFor: id });
  input.addEventListener("input", () => {
    page.dials[name] = at(Number(input.value));
    page.changed("dials");
  });
  return dial(page, name, input, value, () => {
    const now = page.dials[name];
    input.value = place(now);
    value.textContent = now === Infinity ? page.say("dials.all") : page.language.number(now, digits);
    input.setAttribute("aria-valuetext", value.textContent);
  });
}

function seed(page, id) {
  const input = make("input", { type: "number", id, min: 0, max: LARGEST_SEED, step: 1 });
  input.addEventListener("change", () => {
    page.dials.seed = Math.min(Math.max(Math.trunc(Number(input.value)), 0), LARGEST_SEED) || 0;
    page.changed("dials");
  });
  return dial(page, "seed", input, "", () => {
    input.value = page.dials.seed;
  });
}

function dial(page, name, input, value, show) {
  const label = make("label", { htmlFor: input.id });
  const hint = make("span", { className: "hint" });
  page.on(["dials", "language"], () => {
    label.textContent = page.say(`dials.${name}`);
    hint.textContent = page.say(`dials.${name}.hint`);
    show();
  });
  return make("div", { className: "dial" }, make("div", { className: "row" }, label, value), input, hint);
}
