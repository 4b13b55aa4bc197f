// What a text, its next token and the heads were like at each checkpoint that the run kept.

import { ask } from "./api.js";
import { el, lineChart, nats, percent, piece, plural, score, table } from "./dom.js";
import { context, here, run, step, tokens, place } from "./context.js";
import { state } from "./state.js";

const cache = new Map();

/** Returns the answers for all checkpoints, oldest first; calls `each` with those that are there so far. */
export async function moments(signal, each = () => {}) {
  const token = state.token ?? tokens()[state.position + 1]?.id ?? context.answers.next?.guesses[0]?.id ?? null;
  const found = [];
  for (const at of run().steps) {
    const request = { ...place(), token, step: at };
    const key = JSON.stringify(request);
    if (!cache.has(key)) {
      if (cache.size > 500) cache.clear();
      cache.set(key, await ask("moment", request, signal));
      each([...found, cache.get(key)]);
    }
    found.push(cache.get(key));
  }
  return found;
}

export async function showTime(box, signal, keepFocus) {
  const draw = (found) => keepFocus(() => box.replaceChildren(...content(found)));
  draw(await moments(signal, draw));
}

function content(found) {
  if (run().steps.length < 2) return [tooFew()];
  const next = tokens()[state.position + 1];
  return [
    el(
      "p",
      {},
      `The same text at ${plural(found.length, "checkpoint")}. The marked token: `,
      piece(here().piece),
      ", followed by ",
      next ? piece(next.piece) : "the best guess",
      ".",
    ),
    el(
      "div",
      { class: "charts" },
      lineChart(
        "Loss of this text, nats a token",
        [{ name: "loss", points: points(found, (m) => m.mean_loss), dots: true }],
        { mark: step() },
      ),
      lineChart(
        "Probability of the token that follows",
        [{ name: "probability", points: points(found, (m) => m.probability), dots: true }],
        { mark: step(), format: percent, from: 0 },
      ),
      inductionChart(found),
      headChart(found, "Previous-token score of each head on this text", (m) => m.previous),
    ),
    drift(found),
  ];
}

const points = (found, value) => found.map((m) => [m.step, value(m)]).filter(([, y]) => y !== null);

/** Draws a line for each head; the best at the end has a name. */
function headChart(found, title, scores, extra = []) {
  const last = scores(found.at(-1) ?? { induction: [], previous: [] });
  const all = last.flatMap((layer, l) => layer.map((value, h) => ({ l, h, value }))).sort((a, b) => a.value - b.value);
  const best = all.at(-1);
  const lines = all.map(({ l, h }) => ({
    name: l === best.l && h === best.h ? `head ${l}.${h}` : "",
    class: l === best.l && h === best.h ? "" : "faint",
    points: points(found, (m) => scores(m)[l][h]),
    dots: l === best.l && h === best.h,
  }));
  return lineChart(title, [...lines, ...extra], { mark: step(), from: 0, format: score });
}

export function inductionChart(found) {
  const chance = { name: "chance", class: "val", points: found.map((m) => [m.step, run().induction_chance]) };
  return headChart(
    found,
    "Induction score of each head: attention to what followed last time, on random tokens",
    (m) => m.induction,
    [chance],
  );
}

/** Shows how the neighbours of the marked token changed. */
function drift(found) {
  const rows = found.map((m) => [
    m.step,
    m.neighbours.flatMap((near, i) => [i ? ", " : "", piece(near.piece), ` ${nats(near.similarity)}`]),
  ]);
  return table("The nearest embeddings of the marked token", ["#step", "neighbours, with their cosine"], rows, {
    class: "drift",
  });
}

export const tooFew = () =>
  el(
    "p",
    {},
    `This run kept ${plural(run().steps.length, "checkpoint")}, too few to look back through. Train with `,
    el("code", {}, "--train.save-every 50 --train.keep-checkpoints 12"),
    " to keep more.",
  );
