// Elements, and numbers in words. Text is only ever set as text: nothing that a model or a file says becomes markup.

/**
 * Returns an element. Attributes that begin with "on" are listeners, "data" is a dataset, the others are set by name;
 * false, null and undefined leave an attribute out. Children are elements or text.
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Returns an SVG element, as `el`. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Returns a token's piece as it is shown: spaces become visible, its direction stays its own. */
export const piece = (text) => el("bdi", { class: "piece" }, visible(text));
export const visible = (text) => text.replaceAll(" ", "·");

/** Returns a probability as a percentage with about three digits. */
export function percent(p) {
  if (p === null || Number.isNaN(p)) return "–";
  const value = 100 * p;
  if (value >= 10) return `${value.toFixed(1)} %`;
  return value >= 0.01 || value === 0 ? `${value.toFixed(2)} %` : `${value.toExponential(1)} %`;
}

export const nats = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
export const score = (value) => value.toFixed(3);

/** Returns a change with its sign, unless it rounds to nothing. */
export function signed(value) {
  if (value === null) return "–";
  const size = Math.abs(value).toFixed(2);
  return `${size === "0.00" ? "" : value < 0 ? "−" : "+"}${size}`;
}
export const count = (value) => value.toLocaleString("en-US");
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Returns a table. Columns whose head begins with "#" hold numbers. */
export function table(caption, heads, rows, attributes = {}) {
  const numeric = heads.map((head) => head.startsWith("#"));
  const cell = (tag, content, column) =>
    el(tag, { class: numeric[column] && "number", scope: tag === "th" && "col" }, content);
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el(
      "table",
      attributes,
      el("caption", {}, caption),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map((head, i) => cell(head ? "th" : "td", head.replace("#", ""), i)),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) =>
          row instanceof Node
            ? row
            : el(
                "tr",
                {},
                row.map((content, i) => cell("td", content, i)),
              ),
        ),
      ),
    ),
  );
}

/** Returns a bar of a share of the width, 0 to 1. Numbers are always written next to it. */
export function bar(share, sign = "size") {
  const inner = el("span", { class: `bar ${sign}` });
  inner.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("span", { class: "track", "aria-hidden": "true" }, inner);
}

/** Returns code to copy, folded away. */
export function code(text, title = "The same in PyTorch") {
  const button = el("button", { type: "button", class: "small", onclick: copy }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block);
      button.textContent = "Selected: press Ctrl-C";
    }
  }
  const block = el("pre", { tabindex: 0 }, el("code", {}, text));
  return el("details", { class: "code" }, el("summary", {}, title), button, block);
}

/** Returns a line chart over steps, as SVG, with a text for those who do not see it. */
export function lineChart(title, lines, { mark = null, height = 130, format = nats, from = null } = {}) {
  const points = lines.flatMap((line) => line.points);
  const xs = points.map(([x]) => x),
    ys = points.map(([, y]) => y);
  if (!points.length) return el("p", { class: "note" }, "Nothing to draw yet.");
  const [x0, x1] = [Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)];
  const [y0, y1] = [from ?? Math.min(...ys), Math.max(...ys, (from ?? Math.min(...ys)) + 1e-6)];
  const width = 480,
    left = 46,
    right = 10,
    top = 10,
    bottom = 20;
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => top + (1 - (value - y0) / (y1 - y0)) * (height - top - bottom);
  const path = (line) => line.points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
  const last = (line) => (line.points.length ? format(line.points.at(-1)[1]) : "–");
  const named = lines.filter((line) => line.name);
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, title),
    svg(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label": `${title}: ${named.map((line) => `${line.name} ends at ${last(line)}`).join("; ")}`,
      },
      svg("line", { x1: left, x2: width - right, y1: y(y0), y2: y(y0), class: "axis" }),
      [
        [y0, y(y0)],
        [y1, y(y1) + 4],
      ].map(([value, at]) => svg("text", { x: left - 5, y: at, class: "tick end" }, format(value))),
      [
        [x0, "start"],
        [x1, "end"],
      ].map(([value, anchor]) =>
        svg("text", { x: x(value), y: height - 4, class: `tick ${anchor}` }, `step ${count(value)}`),
      ),
      (mark !== null && svg("line", { x1: x(mark), x2: x(mark), y1: top, y2: y(y0), class: "mark" })) || null,
      lines.map((line) => svg("polyline", { points: path(line), class: `line ${line.class ?? ""}` })),
      lines
        .filter((line) => line.dots)
        .flatMap((line) =>
          line.points.map(([a, b]) => svg("circle", { cx: x(a), cy: y(b), r: 3, class: `dot ${line.class ?? ""}` })),
        ),
    ),
    el(
      "p",
      { class: "legend" },
      named.map((line) => el("span", { class: `key ${line.class ?? ""}` }, `${line.name}: ${last(line)}`)),
    ),
  );
}
