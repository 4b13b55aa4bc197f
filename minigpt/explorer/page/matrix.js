// A matrix on a canvas: one tab stop, arrow keys move, the cell is read out, Enter opens it; a table is one key away.

import { el, percent, table, visible } from "./dom.js";

const LABELS = 48; // tokens, up to which rows and columns have labels

/**
 * Returns an element that shows an attention pattern.
 *
 * @param {{shape: number[], numbers: Float32Array}} pattern rows are queries, columns keys
 * @param {string[]} pieces of the tokens
 * @param {{query: number, key: number}} chosen the cell that is marked
 * @param {(query: number, key: number) => void} choose called when a cell is opened
 */
export function matrix(pattern, pieces, chosen, choose, title) {
  const size = pattern.shape[0];
  const at = { ...chosen };
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const canvas = el("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "matrix",
    data: { focus: "matrix" },
    "aria-label": `${title}. Arrow keys move, Enter opens the cell, T shows a table.`,
    onkeydown: key,
    onmousemove: hover,
    onmouseleave: () => move(chosen.query, chosen.key),
    onclick: open,
  });
  const tableBox = el("div", { hidden: true });
  const value = (query, key) => pattern.numbers[query * size + key];

  function move(query, key) {
    at.query = Math.max(0, Math.min(size - 1, query));
    at.key = Math.max(0, Math.min(at.query, key));
    readout.textContent = `row “${visible(pieces[at.query])}”, column “${visible(pieces[at.key])}”: ${value(at.query, at.key).toFixed(3)}`;
    draw();
  }
  function key(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (steps) move(at.query + steps[0], at.key + steps[1]);
    else if (event.key === "Home") move(at.query, 0);
    else if (event.key === "End") move(at.query, at.query);
    else if (event.key === "Enter" || event.key === " ") open();
    else if (event.key.toLowerCase() === "t") showTable();
    else return;
    event.preventDefault();
  }
  function open() {
    choose(at.query, at.key);
  }
  function hover(event) {
    const { cell, left, top } = layout();
    const box = canvas.getBoundingClientRect();
    const [row, column] = [event.clientY - box.top - top, event.clientX - box.left - left].map((d) =>
      Math.floor(d / cell),
    );
    if (row >= 0 && row < size && column >= 0 && column <= row) move(row, column);
  }
  function showTable() {
    tableBox.hidden = !tableBox.hidden;
    const row = [...Array(at.query + 1).keys()].map((k) => [
      `${k}: ${visible(pieces[k])}`,
      percent(value(at.query, k)),
    ]);
    tableBox.replaceChildren(table(`Row “${visible(pieces[at.query])}”`, ["token", "#weight"], row));
  }
  function layout() {
    const labels = size <= LABELS;
    const room = Math.max(200, Math.min(560, canvas.parentElement?.clientWidth || 480));
    const fit = (margin) => ({ left: margin, top: margin, cell: Math.min(26, (room - margin - 2) / size) });
    const labelled = fit(Math.min(84, room * 0.22));
    const layout_ = labels && labelled.cell >= 7 ? { labels, ...labelled } : { labels: false, ...fit(4) };
    return { ...layout_, side: layout_.left + layout_.cell * size + 2 };
  }
  function draw() {
    const { labels, left, top, cell, side } = layout();
    const style = getComputedStyle(canvas);
    const [ink, size_, grid, mark] = ["--ink", "--size", "--grid", "--minus"].map((name) =>
      style.getPropertyValue(name).trim(),
    );
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(side * ratio);
    canvas.style.width = canvas.style.height = `${side}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    for (let query = 0; query < size; query++) {
      for (let k = 0; k <= query; k++) {
        pen.globalAlpha = 1;
        pen.fillStyle = grid;
        if (cell >= 6) pen.fillRect(left + k * cell, top + query * cell, cell - 0.5, cell - 0.5);
        pen.globalAlpha = Math.sqrt(value(query, k));
        pen.fillStyle = size_;
        pen.fillRect(left + k * cell, top + query * cell, cell - (cell >= 6 ? 0.5 : 0), cell - (cell >= 6 ? 0.5 : 0));
      }
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = mark;
    pen.lineWidth = 2;
    pen.strokeRect(left + at.key * cell, top + at.query * cell, Math.max(cell - 0.5, 4), Math.max(cell - 0.5, 4));
    if (!labels) return;
    pen.fillStyle = ink;
    pen.font = `${Math.max(8, Math.min(12, cell - 1))}px ui-monospace, Menlo, Consolas, monospace`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (let i = 0; i < size; i++) pen.fillText(visible(pieces[i]), left - 4, top + (i + 0.5) * cell, left - 6);
    pen.textAlign = "left";
    for (let i = 0; i < size; i++) {
      pen.save();
      pen.translate(left + (i + 0.5) * cell, top - 4);
      pen.rotate(-Math.PI / 2);
      pen.fillText(visible(pieces[i]), 0, 0, top - 6);
      pen.restore();
    }
  }
  const box = el("div", { class: "matrix" }, canvas, readout, tableBox);
  requestAnimationFrame(() => move(chosen.query, chosen.key));
  new ResizeObserver(draw).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return box;
}

/** Draws a small picture of a pattern: `side` x `side` numbers from 0 to 1. */
export function thumbnail(canvas, numbers, side) {
  canvas.width = canvas.height = side;
  const style = getComputedStyle(canvas);
  const pen = canvas.getContext("2d");
  pen.fillStyle = style.getPropertyValue("--size").trim();
  numbers.forEach((value, i) => {
    pen.globalAlpha = Math.sqrt(value);
    pen.fillRect(i % side, Math.floor(i / side), 1, 1);
  });
}
