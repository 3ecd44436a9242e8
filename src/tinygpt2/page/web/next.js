/** Part 2: the probabilities of the next token, and what the dials make of them. */

import { byId, showBars } from "./elements.js";
import { largest, probabilities } from "./sampling.js";

const BARS = 12;
const SHOWN = 90; // characters of the text before the gap

/** Fills the part. */
export function makeNext(page) {
  let logits;
  const show = () => {
    if (!logits) return;
    const shares = probabilities(logits);
    const after = probabilities(logits, page.dials);
    const best = largest(shares, BARS);
    const others = largest(shares, 8).map((id) => [id, shares[id]]);
    showBars(
      byId("next-bars"),
      best.map((token) => ({
        label: page.label(token),
        number: page.language.percent(after[token]),
        pale: shares[token],
        dark: after[token],
        title: page.say("next.bar", {
          token: page.quoted(page.label(token)),
          share: page.language.percent(shares[token]),
          after: page.language.percent(after[token]),
        }),
        press: () => page.append({ token, share: shares[token], others }),
      })),
    );
    const rest = 1 - best.reduce((sum, token) => sum + shares[token], 0);
    const count = page.language.number(Math.max(shares.length - best.length, 0));
    byId("next-rest").textContent = page.say("next.rest", { count, share: page.language.percent(Math.max(rest, 0)) });
  };

  page.on(["text"], () => {
    byId("next-text").textContent = `${page.tail(page.text, SHOWN)}▁`;
    page.ask("next", "next", { ids: page.ids }, (result) => {
      logits = result.logits;
      show();
    });
  });
  page.on(["dials", "language"], show);
}
