// What the page shows: one plain object, kept in the address, so that a view can be sent and the back button works.

export const SCREENS = ["guide", "bench", "time", "compare"];

const START = {
  screen: "guide",
  guide: 0,
  text: "",
  run: 0,
  step: null,
  position: null,
  token: null,
  off: [],
  by: "zero",
  layer: null,
  head: null,
  query: null,
  key: null,
  otherRun: null,
  otherStep: null,
};
export const state = { ...START };
const listeners = [];

/** Calls a function after each change of the state. */
export const onChange = (listener) => listeners.push(listener);

/** Changes the state. A new text, checkpoint or position forgets what was chosen in the old one. */
export function change(changes, { replace = true } = {}) {
  const next = { ...state, ...changes };
  if (changes.text !== undefined && changes.text !== state.text)
    Object.assign(next, { position: null, token: null }, changes);
  if (next.text !== state.text || next.position !== state.position) {
    if (changes.token === undefined) next.token = null;
    if (changes.query === undefined) next.query = next.key = null;
  }
  Object.assign(state, next);
  const address = `#${write()}`;
  if (address !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", address);
  for (const listener of listeners) listener();
}

/** Reads the state from the address; what makes no sense there is ignored. */
export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (/^\d{1,9}$/.test(given.get(name) ?? "") ? Number(given.get(name)) : START[name]);
  Object.assign(state, START, {
    screen: SCREENS.includes(given.get("screen")) ? given.get("screen") : START.screen,
    text: (given.get("text") ?? "").slice(0, 20000),
    by: given.get("by") === "mean" ? "mean" : "zero",
    off: (given.get("off") ?? "")
      .split(",")
      .filter((head) => /^\d{1,3}\.\d{1,3}$/.test(head))
      .map((head) => head.split(".").map(Number)),
  });
  for (const name of [
    "guide",
    "run",
    "step",
    "position",
    "token",
    "layer",
    "head",
    "query",
    "key",
    "otherRun",
    "otherStep",
  ]) {
    state[name] = number(name);
  }
}

function write() {
  const kept = { ...state, off: state.off.map((head) => head.join(".")).join(",") };
  const given = Object.entries(kept).filter(([name, value]) => value !== null && value !== "" && value !== START[name]);
  return new URLSearchParams(given).toString();
}

export const isOff = (layer, head) => state.off.some(([l, h]) => l === layer && h === head);
export function toggleHead(layer, head) {
  const rest = state.off.filter(([l, h]) => l !== layer || h !== head);
  change({ off: isOff(layer, head) ? rest : [...rest, [layer, head]] });
}
