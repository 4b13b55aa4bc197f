// The panels of the bench. Each is an object:
//   name, title
//   depends()      what its answer depends on; it is loaded again when that has changed
//   load(signal)   asks for the answer
//   show(answer)   returns elements
//   unavailable()  why this run cannot show it, or "" (optional)

import { attention, cell, effects, heads } from "./head_panels.js";
import { layers, neighbours, next, passages } from "./prediction_panels.js";

/** The panels by column: what is predicted, and what the heads do. */
export const COLUMNS = [
  [next, layers, neighbours, passages],
  [heads, attention, cell, effects],
];

/** All panels, in the order in which their answers are asked for. */
export const PANELS = [next, heads, attention, cell, layers, neighbours, passages, effects];
