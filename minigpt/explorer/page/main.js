// Starts the page, and keeps what it shows in step with the state: the latest change wins, older requests are dropped.

import { ask } from "./api.js";
import { $, el } from "./dom.js";
import { context, place, reading, readingKey, run, tokens } from "./context.js";
import { showCompare } from "./compare.js";
import { guidePanels, showGuide } from "./guide.js";
import { interestingHead } from "./head_panels.js";
import { COLUMNS, PANELS } from "./panels.js";
import { setUpReader, showHeadsOff, showSlider, showStrip, showTokenFacts } from "./reader.js";
import { SCREENS, change, onChange, readAddress, state } from "./state.js";
import { showTime } from "./time.js";

const TITLES = { guide: "Guide", bench: "Bench", time: "Time", compare: "Compare" };
const FOLLOW_EVERY = 10_000; // milliseconds
const shown = new Map(); // name of a part -> what it depended on when it was shown
let controller = new AbortController();

async function start() {
  readAddress();
  context.runs = await ask("describe", {});
  if (state.run >= context.runs.length) state.run = 0;
  if (state.step !== null && !run().steps.includes(state.step)) state.step = null;
  clampHeads();
  if (!state.text)
    Object.assign(state, run().examples[0] ?? { text: "The quick brown fox jumps over the lazy dog. The quick brown" });
  const { name, description, tokenizer, vocab_size: size } = run();
  document.title = `${name}: Mini-GPT explorer`;
  $("run-name").textContent = name;
  $("run-facts").textContent = `${description}; ${size.toLocaleString("en-US")} tokens (${tokenizer})`;
  for (const screen of SCREENS) {
    $("screens").append(
      el(
        "button",
        { type: "button", data: { screen }, onclick: () => change({ screen }, { replace: false }) },
        TITLES[screen],
      ),
    );
  }
  for (const panel of PANELS) {
    panel.body = el("div", { class: "body" });
    panel.element = el(
      "section",
      { class: "panel", id: `panel-${panel.name}`, "aria-labelledby": `title-${panel.name}` },
      el("h3", { id: `title-${panel.name}` }, panel.title),
      panel.body,
    );
  }
  $("panels").append(
    ...COLUMNS.map((column) =>
      el(
        "div",
        { class: "column" },
        column.map((panel) => panel.element),
      ),
    ),
  );
  setUpReader();
  onChange(refresh);
  addEventListener("hashchange", () => {
    readAddress();
    clampHeads();
    refresh();
  });
  $("skip-link").addEventListener("click", (event) => {
    event.preventDefault();
    $("screen-title").focus();
  });
  change({});
  setInterval(follow, FOLLOW_EVERY);
}

/** Follows a run that is being trained: new checkpoints and losses appear by themselves. */
async function follow() {
  if (document.hidden) return;
  const runs = await ask("describe", {}).catch(() => null); // a server that has stopped is reported when it is needed
  if (runs === null || JSON.stringify(runs) === JSON.stringify(context.runs)) return;
  context.runs = runs;
  clampHeads();
  refresh();
}

/** The address may name heads that this model does not have. */
function clampHeads() {
  const { layers, heads, steps } = run();
  state.off = state.off.filter(([layer, head]) => layer < layers && head < heads);
  if (state.layer >= layers || state.head >= heads || state.head === null) state.layer = state.head = null;
  if (state.step !== null && !steps.includes(state.step)) state.step = null;
}

async function refresh() {
  controller.abort();
  controller = new AbortController();
  const { signal } = controller;
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  showFrame();
  try {
    await update("text", readingKey(), async () => {
      context.text = await ask("text", reading(), signal);
    });
    const last = tokens().length - 1;
    if (state.position === null || state.position > last) {
      Object.assign(state, { position: Math.max(0, last - Math.min(3, last)), token: null, query: null, key: null });
    }
    if (state.query !== null && state.query > last) state.query = state.key = null;
    keepFocus(showStrip);
    if (last >= 0 && state.layer === null) await chooseHead(signal);
    const panels = visiblePanels();
    for (const column of $("panels").children)
      column.hidden = ![...column.children].some((element) => panels.some((panel) => panel.element === element));
    for (const panel of PANELS) panel.element.hidden = !panels.includes(panel);
    if (last >= 0) {
      for (const panel of panels) await updatePanel(panel, signal);
      await updateBigram(signal);
    }
    await showTop(signal);
    $("problem").hidden = true;
  } catch (error) {
    if (error.name === "AbortError") return;
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
  main.removeAttribute("aria-busy");
}

/** Starts with a head that has something to show. */
async function chooseHead(signal) {
  const panel = PANELS.find(({ name }) => name === "heads");
  await update(panel.name, panel.depends(), async () => {
    context.answers.heads = await panel.load(signal);
  });
  Object.assign(state, interestingHead(context.answers.heads[0], state.position));
}

/** Shows what needs no answer. */
function showFrame() {
  if ($("text").value !== state.text) $("text").value = state.text;
  document.body.dataset.screen = state.screen;
  $("screen-title").textContent = TITLES[state.screen];
  for (const button of $("screens").children) {
    if (button.dataset.screen === state.screen) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  keepFocus(() => {
    showHeadsOff();
    showSlider();
  });
}

function visiblePanels() {
  if (state.screen === "bench") return PANELS;
  return state.screen === "guide" ? guidePanels().map((name) => PANELS.find((panel) => panel.name === name)) : [];
}

async function showTop(signal) {
  const show = { guide: showGuide, time: showTime, compare: showCompare }[state.screen];
  if (show) await show($("screen-top"), signal, keepFocus);
  else $("screen-top").replaceChildren();
}

async function updatePanel(panel, signal) {
  const missing = panel.unavailable?.();
  if (missing) return panel.body.replaceChildren(el("p", { class: "note" }, missing));
  const key = panel.depends();
  panel.element.classList.add("busy");
  try {
    await update(panel.name, key, async () => {
      context.answers[panel.name] = await panel.load(signal);
    });
    render(panel);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    panel.body.replaceChildren(el("p", { class: "problem" }, error.message));
  } finally {
    panel.element.classList.remove("busy");
  }
}

function render(panel) {
  const open = new Set([...panel.body.querySelectorAll("details[open]")].map((details) => details.dataset.keep));
  keepFocus(() =>
    panel.body.replaceChildren(...[panel.show(context.answers[panel.name])].flat(Infinity).filter(Boolean)),
  );
  for (const details of panel.body.querySelectorAll("details[data-keep]"))
    details.open = open.has(details.dataset.keep);
}

/** The bigram model's figures come last: counting takes longest. */
async function updateBigram(signal) {
  if (run().missing_counts) return;
  await update("bigram", [state.run, state.text, state.position], async () => {
    context.bigram = null;
    context.bigram = await ask("bigram", { ...place(), token: null, heads_off: [] }, signal);
  });
  showTokenFacts();
  const next = PANELS.find((panel) => panel.name === "next");
  if (!next.element.hidden) render(next);
}

/** Loads something unless it was loaded for the same key. */
async function update(name, key, load) {
  const now = JSON.stringify(key);
  if (shown.get(name) === now) return;
  shown.delete(name);
  await load();
  shown.set(name, now);
}

/** Draws something, and puts the focus (and the cursor) back to what has taken the place of the focused element. */
function keepFocus(draw) {
  const focused = document.activeElement;
  const name = focused?.dataset?.focus;
  const cursor = focused?.selectionStart;
  draw();
  if (!name || (document.activeElement === focused && focused.isConnected)) return;
  const again = document.querySelector(`[data-focus="${CSS.escape(name)}"]`);
  again?.focus({ preventScroll: true });
  if (again?.type === "text") again.setSelectionRange(cursor, cursor);
}

start().catch((error) => {
  document.querySelector("main").removeAttribute("aria-busy");
  $("problem").textContent = error.message;
  $("problem").hidden = false;
});
