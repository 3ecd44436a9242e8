/** Part 4: a slider over the training: the loss, what the model then wrote, and what it expected. */

import { byId, drawn, showBars } from "./elements.js";
import { largest, probabilities } from "./sampling.js";

const COUNT = 40; // tokens to write at each moment
const BARS = 5;
const WIDEST = 760;
const HEIGHT = 220;
const EDGE = 34; // around the curves, for what is written there

/** Fills the part. */
export function makeLearned(page) {
  const { history, snapshots } = page.data;
  const slider = byId("learned-step");
  const now = { trained: null, logits: null, written: [] };
  slider.max = snapshots.length - 1;
  slider.value = snapshots.length - 1;
  byId("learned").hidden = !snapshots.length;

  const show = () => {
    byId("learned-lead").textContent = page.say(
      snapshots.length ? "learned.lead" : history ? "learned.none" : "learned.nothing",
    );
    const step = snapshots[slider.value];
    if (history) byId("learned-chart").replaceChildren(chart(page, history, step));
    if (!snapshots.length) return;
    const text = page.tokenizer.decode(page.beginning);
    byId("learned-now").textContent = moment(page, history, step, snapshots.at(-1));
    slider.setAttribute("aria-valuetext", byId("learned-now").textContent);
    byId("learned-text").textContent = text + page.tokenizer.decode(now.written);
    byId("learned-next").textContent = page.say("learned.next", { text: page.quoted(page.tail(text, 30)) });
    if (now.logits) showExpected(page, now);
  };

  const learn = () => {
    if (!snapshots.length) return;
    const written = [];
    const asked = { ids: page.beginning, count: COUNT, dials: page.dials, snapshot: Number(slider.value) };
    page.ask("learned", "learned", asked, ({ trained, logits, token }) => {
      if (trained) now.trained = trained;
      else if (logits) now.logits = logits;
      else written.push(token);
      now.written = written;
      show();
    });
    show();
  };

  slider.addEventListener("input", learn);
  addEventListener("resize", show);
  page.on(["language"], show);
  page.on(["text", "dials"], learn);
}

/** Shows the tokens that the trained model finds likeliest: how likely it finds them, and how likely it found them. */
function showExpected(page, { trained, logits }) {
  const shares = probabilities(logits);
  const atTheEnd = probabilities(trained);
  showBars(
    byId("learned-bars"),
    largest(atTheEnd, BARS).map((token) => ({
      label: page.label(token),
      number: page.language.percent(shares[token]),
      pale: atTheEnd[token],
      dark: shares[token],
    })),
  );
}

function moment(page, history, step, last) {
  const steps = { step: page.language.number(step), last: page.language.number(last) };
  if (!history) return page.say("learned.now", steps);
  const loss = page.language.number(between(history.steps, history.validation ?? history.training, step), 2);
  return page.say("learned.loss", { ...steps, loss, unit: page.say(`learned.${history.unit}`) });
}

/** Returns the value of a curve at a step: on the line that the chart draws between the two evaluations around it. */
function between(steps, values, step) {
  const after = steps.findIndex((each) => each >= step);
  if (after <= 0) return values.at(after); // at the first, or after the last
  const [begin, here, end] = [steps[after - 1], step, steps[after]].map(Math.log1p);
  const share = (here - begin) / (end - begin);
  return values[after - 1] + share * (values[after] - values[after - 1]);
}

/** Returns the curves of the losses, over the steps in a logarithmic scale, and a line at a step if there is one. */
function chart(page, { steps, training, validation, unit }, step) {
  const curves = { training, ...(validation ? { validation } : {}) };
  const all = Object.values(curves).flat();
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const width = Math.min(byId("learned-chart").clientWidth, WIDEST);
  const x = (at) => EDGE + ((width - 2 * EDGE) * Math.log1p(at)) / Math.log1p(steps.at(-1) || 1);
  const y = (loss) => EDGE + ((HEIGHT - 2 * EDGE) * (high - loss)) / (high - low || 1);
  const shown = validation ?? training;
  const [first, end] = [shown[0], shown.at(-1)].map((loss) => page.language.number(loss, 2));
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  picture.setAttribute("aria-label", page.say("learned.chart", { first, end }));
  const write = (at, height, text, anchor) => drawn("text", { x: at, y: height, "text-anchor": anchor }, text);
  for (const [name, losses] of Object.entries(curves)) {
    const points = losses.map((loss, i) => `${x(steps[i])},${y(loss)}`).join(" ");
    picture.append(drawn("polyline", { points, class: name }));
  }
  picture.append(
    write(EDGE - 6, EDGE + 4, page.language.number(high, 1), "end"),
    write(EDGE - 6, HEIGHT - EDGE + 4, page.language.number(low, 1), "end"),
    write(EDGE, 14, page.say(`learned.${unit}`), "start"),
    write(EDGE, HEIGHT - 10, "0", "middle"),
    write(width - EDGE, HEIGHT - 10, `${page.language.number(steps.at(-1))} ${page.say("learned.steps")}`, "end"),
  );
  Object.keys(curves).forEach((name, i) => {
    const [left, height] = [width - EDGE - 130, EDGE + 18 * i];
    picture.append(drawn("line", { x1: left - 28, x2: left - 6, y1: height, y2: height, class: name }));
    picture.append(write(left, height + 4, page.say(`learned.${name}`), "start"));
  });
  if (step !== undefined) {
    const loss = between(steps, shown, step);
    picture.append(drawn("line", { x1: x(step), x2: x(step), y1: EDGE - 8, y2: HEIGHT - EDGE, class: "moment" }));
    picture.append(drawn("circle", { cx: x(step), cy: y(loss), r: 5, class: "moment" }));
  }
  return picture;
}
