// The latest answers that more than one part of the page shows.

import { state } from "./state.js";
import { visible } from "./dom.js";

export const context = {
  runs: [], // descriptions of the runs
  text: null, // the answer to "text": tokens with losses
  bigram: null, // what the training text says of them; null without it
  answers: {}, // of the panels, by their name
};

export const run = () => context.runs[state.run];
export const step = () => state.step ?? run().best;
export const tokens = () => context.text?.tokens ?? [];
export const here = () => tokens()[state.position];

/** The piece of the token at the position, in quotes, as text. */
export const hereText = () => (here() ? `“${visible(here().piece)}”` : "");
export const quoted = (text) => `“${visible(text)}”`;

/** The part of a request that says which text is read, by which checkpoint, with which heads off. */
export const reading = () => ({
  run: state.run,
  step: step(),
  text: state.text.toWellFormed?.() ?? state.text,
  heads_off: state.off,
  replacement: state.by,
});
export const place = () => ({ ...reading(), position: state.position ?? 0, token: state.token });

/** What a panel depends on: the text as it is read; a position in it; the token to explain there. */
export const readingKey = () => [state.run, step(), state.text, state.off.join(" "), state.off.length && state.by];
export const positionKey = () => [...readingKey(), state.position];
export const targetKey = () => [...positionKey(), state.token];
