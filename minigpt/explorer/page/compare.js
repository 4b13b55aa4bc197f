// Two checkpoints or runs on one text.

import { ask } from "./api.js";
import { count, el, nats, percent, piece, signed, table, visible } from "./dom.js";
import { context, here, place, step, tokens } from "./context.js";
import { change, state } from "./state.js";

const LARGE = 4; // nats: the darkest shade of a difference

export async function showCompare(box, signal, keepFocus) {
  const otherRun = Math.min(
    state.otherRun ?? (context.runs.length > 1 ? 1 - state.run : state.run),
    context.runs.length - 1,
  );
  const { steps, best } = context.runs[otherRun];
  const fallback = otherRun === state.run ? (steps.find((at) => at !== step()) ?? best) : best;
  const otherStep = steps.includes(state.otherStep) ? state.otherStep : fallback;
  const other = { run: otherRun, step: otherStep, heads_off: [], token: null };
  if (!tokens().length) return;
  const [theirs, next, theirNext] = [
    await ask("text", { ...textOnly(), ...other, token: undefined }, signal),
    await ask("next", { ...place(), token: null }, signal),
    await ask(
      "next",
      { ...place(), ...other, position: Math.min(state.position, context.runs[otherRun].max_tokens - 1) },
      signal,
    ),
  ];
  keepFocus(() => box.replaceChildren(...content(otherRun, otherStep, theirs, next, theirNext)));
}

const textOnly = () => {
  const { position, token, ...request } = place();
  return request;
};

function content(otherRun, otherStep, theirs, next, theirNext) {
  const ours = tokens();
  const a = name(state.run, step()),
    b = name(otherRun, otherStep);
  const difference = (i) => (ours[i].loss === null || !theirs.tokens[i] ? null : theirs.tokens[i].loss - ours[i].loss);
  const all = ours.map((_, i) => difference(i)).filter((value) => value !== null);
  const better = all.filter((value) => value > 0).length;
  const rows = Array.from({ length: Math.max(next.guesses.length, theirNext.guesses.length) }, (_, i) => [
    i + 1,
    piece(next.guesses[i]?.piece ?? ""),
    percent(next.guesses[i]?.probability ?? null),
    piece(theirNext.guesses[i]?.piece ?? ""),
    percent(theirNext.guesses[i]?.probability ?? null),
  ]);
  return [
    el("p", { class: "choices" }, "A is the checkpoint above. B is ", chooser(otherRun, otherStep), "."),
    el(
      "p",
      {},
      `Mean loss: A ${nats(context.text.mean_loss)}, B ${nats(theirs.mean_loss)}. A predicts ${count(better)} of ${count(all.length)} tokens better.`,
    ),
    el(
      "div",
      { class: "strip differences", role: "group", "aria-label": "Difference of the losses, B minus A, by token" },
      ours.map((token, i) => differing(token, difference(i))),
    ),
    el(
      "p",
      { class: "note" },
      "Blue: A predicts the token better; orange: B does. The number is the loss of B minus that of A, in nats; one text is a small sample, so a difference of a few hundredths says nothing.",
    ),
    table(
      `Next token after “${visible(here().piece)}”`,
      ["#rank", `A: ${a}`, "#probability", `B: ${b}`, "#probability"],
      rows,
    ),
    next.actual &&
      el(
        "p",
        {},
        "What follows, ",
        piece(next.actual.piece),
        `: A ${percent(next.actual.probability)} (rank ${count(next.actual.rank)}), B ${percent(theirNext.actual?.probability ?? null)} (rank ${count(theirNext.actual?.rank ?? 0)}).`,
      ),
  ].filter(Boolean);
}

const name = (index, at) => `${context.runs.length > 1 ? `${context.runs[index].name}, ` : ""}step ${count(at)}`;

function chooser(otherRun, otherStep) {
  const options = context.runs.flatMap(({ steps, best }, index) =>
    steps.map((at) =>
      el(
        "option",
        { value: `${index} ${at}`, selected: index === otherRun && at === otherStep },
        `${name(index, at)}${at === best ? " (best)" : ""}`,
      ),
    ),
  );
  return el(
    "select",
    {
      "aria-label": "B",
      data: { focus: "other" },
      onchange: (event) => {
        const [index, at] = event.target.value.split(" ").map(Number);
        change({ otherRun: index, otherStep: at });
      },
    },
    options,
  );
}

function differing(token, difference) {
  const box = el(
    "span",
    { class: `token ${difference < 0 ? "minus" : "plus"}` },
    piece(token.piece),
    el("small", {}, difference === null ? " " : signed(difference)),
  );
  box.style.setProperty("--share", String(Math.min(1, Math.abs(difference ?? 0) / LARGE)));
  return box;
}
