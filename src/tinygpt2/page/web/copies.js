/** Stretches of a text that are copied from another, character by character. */

/** Characters from which on a stretch counts. */
export const STRETCH = 20;

/** Returns where the longest such stretches begin and end, in order; they do not overlap. */
export function copiedStretches(text, training, length = STRETCH) {
  const stretches = [];
  let begin = 0;
  while (begin + length <= text.length) {
    let end = begin + length;
    if (!training.includes(text.slice(begin, end))) {
      begin += 1;
      continue;
    }
    while (end < text.length && training.includes(text.slice(begin, end + 1))) end += 1;
    const last = stretches.at(-1);
    if (last && begin <= last[1]) last[1] = Math.max(last[1], end);
    else stretches.push([begin, end]);
    begin = end - length + 1;
  }
  return stretches;
}
