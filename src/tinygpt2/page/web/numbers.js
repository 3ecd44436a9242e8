/** The arithmetic of a forward pass, on plain arrays. */

/** Returns the product of two stretches of arrays. */
export function dot(a, from, b, start, size) {
  let first = 0;
  let second = 0;
  let i = 0;
  for (; i + 1 < size; i += 2) {
    first += a[from + i] * b[start + i];
    second += a[from + i + 1] * b[start + i + 1];
  }
  return i < size ? first + second + a[from + i] * b[start + i] : first + second;
}

/** Sets `out` to the product of a matrix, a row for each of its elements, and `x`; plus a bias if there is one. */
export function linear(out, x, { weight, bias }) {
  const size = x.length;
  for (let row = 0; row < out.length; row++) {
    out[row] = dot(x, 0, weight, row * size, size) + (bias ? bias[row] : 0);
  }
}

/** Adds `b` to `a`. */
export function add(a, b) {
  for (let i = 0; i < a.length; i++) a[i] += b[i];
}

/** Sets `out` to the layer norm of `x`. */
export function normalise(out, x, { weight, bias }, epsilon) {
  let mean = 0;
  for (const value of x) mean += value / x.length;
  let variance = 0;
  for (const value of x) variance += (value - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(variance + epsilon);
  for (let i = 0; i < x.length; i++) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/** Replaces scores by their softmax. */
export function softmax(scores) {
  let largest = -Infinity;
  for (const score of scores) largest = Math.max(largest, score);
  let sum = 0;
  for (let i = 0; i < scores.length; i++) {
    scores[i] = Math.exp(scores[i] - largest);
    sum += scores[i];
  }
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
  return scores;
}

const each = (activation) => (x) => {
  for (let i = 0; i < x.length; i++) x[i] = activation(x[i]);
};
const tanhGelu = each((x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))));

/** The activations of the MLP, each in place; named as in a model's configuration. */
export const ACTIVATIONS = {
  gelu_new: tanhGelu,
  gelu_pytorch_tanh: tanhGelu,
  gelu: each((x) => 0.5 * x * (1 + erf(x / Math.SQRT2))),
  relu: each((x) => Math.max(x, 0)),
  silu: each((x) => x / (1 + Math.exp(-x))),
};

/** Returns the error function, to 2e-7 (Abramowitz and Stegun 1964, formula 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const factors = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  const sum = factors.reduce((value, factor) => value * t + factor, 0) * t;
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}
