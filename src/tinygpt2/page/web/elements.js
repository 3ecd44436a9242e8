/** Elements of the page. Whatever text they get is text, never HTML. */

/** Returns the element with an id. */
export const byId = (id) => document.getElementById(id);

/** Returns a new element with some properties, and with children: elements or text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Returns a new element of a drawing. */
export function drawn(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Returns a canvas that draws numbers as cells: above zero blue, below orange, the stronger the larger. */
export function cells(rows, largest) {
  const canvas = make("canvas", { width: Math.max(...rows.map((row) => row.length)), height: rows.length });
  const context = canvas.getContext("2d");
  rows.forEach((row, y) => {
    row.forEach((value, x) => {
      const strength = Math.min(Math.abs(value) / largest, 1);
      context.fillStyle = `rgb(${value < 0 ? "214 94 0" : "40 90 220"} / ${strength})`;
      context.fillRect(x, y, 1, 1);
    });
  });
  return canvas;
}

/**
 * Replaces what a container has by a row for each bar: a label, a pale bar, a dark one over it, and a number.
 *
 * Each is {label, number, dark}, shares from 0 to 1; with `pale`, too; with `press` it is a button, which `title` explains.
 */
export function showBars(container, bars) {
  container.replaceChildren(
    ...bars.map(({ label, number, pale = 0, dark, press, title }) => {
      const track = make("span", { className: "track" });
      for (const [kind, share] of Object.entries({ pale, dark })) {
        const bar = make("span", { className: kind });
        bar.style.width = `${100 * Math.min(share, 1)}%`;
        track.append(bar);
      }
      const row = make(press ? "button" : "div", { className: "bar" });
      row.append(make("span", { className: "label" }, label), track, make("span", { className: "number" }, number));
      if (press) {
        row.type = "button";
        row.title = title;
        row.addEventListener("click", press);
      }
      return row;
    }),
  );
}

/**
 * Makes all elements in a container that match a selector one stop of the Tab key: arrow keys go from one to another,
 * Enter and the space bar click.
 */
export function rove(container, selector, columns = () => 1) {
  const all = () => [...container.querySelectorAll(selector)];
  const focus = (element) => {
    for (const each of all()) each.tabIndex = each === element ? 0 : -1;
    element.focus();
  };
  container.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
    const elements = all();
    const at = elements.indexOf(event.target);
    const presses = event.key === "Enter" || event.key === " ";
    if (at < 0 || !(presses || event.key in steps)) return;
    event.preventDefault();
    if (presses) event.target.click();
    else if (elements[at + steps[event.key]]) focus(elements[at + steps[event.key]]);
  });
}
