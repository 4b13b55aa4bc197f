// What is always visible: the text, its tokens shaded by loss, the heads that are off, and the checkpoints on the loss curve.

import { $, count, el, nats, percent, piece, plural, svg, visible } from "./dom.js";
import { context, here, run, step, tokens } from "./context.js";
import { change, state } from "./state.js";

const HARD = 8; // nats: the darkest shade

export function setUpReader() {
  const text = $("text");
  let timer;
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => change({ text: text.value }), 120);
  });
  const examples = $("examples");
  run().examples.forEach((example, i) => {
    const short = example.text.trim().replace(/\s+/g, " ").slice(0, 50);
    examples.append(el("option", { value: i }, `${short} ...`));
  });
  $("examples").parentElement.hidden = !run().examples.length;
  examples.addEventListener("change", () => {
    if (examples.value !== "") change(run().examples[examples.value]);
    examples.value = "";
  });
  $("strip").addEventListener("keydown", (event) => {
    const last = tokens().length - 1;
    const to = { ArrowLeft: state.position - 1, ArrowRight: state.position + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    change({ position: Math.max(0, Math.min(last, to)) });
    $("strip").querySelector("[aria-selected=true]")?.focus();
  });
}

/** Shows the tokens; the marked one is the position after which the model predicts. */
export function showStrip() {
  const strip = $("strip");
  const shown = tokens();
  strip.replaceChildren(
    ...shown.flatMap((token, i) => {
      const selected = i === state.position;
      const option = el(
        "span",
        {
          role: "option",
          tabindex: selected ? 0 : -1,
          "aria-selected": String(selected),
          class: "token",
          data: { focus: `token ${i}` },
          "aria-label": `${i}: ${visible(token.piece)}, ${token.loss === null ? "first token" : `loss ${nats(token.loss)}`}`,
          title:
            token.loss === null
              ? "first token: nothing predicts it"
              : `loss ${nats(token.loss)} nats, probability ${percent(token.probability)}`,
          onclick: () => change({ position: i }),
        },
        piece(token.piece),
        el("small", { "aria-hidden": "true" }, token.loss === null ? " " : nats(token.loss)),
      );
      option.style.setProperty("--share", String(Math.min(1, (token.loss ?? 0) / HARD)));
      return token.piece.includes("\\n") && !shown[i + 1]?.piece.startsWith("\\n")
        ? [option, el("span", { class: "break", role: "presentation" })]
        : [option];
    }),
  );
  const marked = strip.querySelector("[aria-selected=true]");
  if (marked) strip.scrollTop = marked.offsetTop - strip.clientHeight / 2;
  showTokenFacts();
}

/** Shows what is known of the marked token, the bigram's loss next to the model's. */
export function showTokenFacts() {
  const token = here();
  const facts = $("token-facts");
  if (!token) return facts.replaceChildren("Type a text, or choose one.");
  const parts = [
    `Token ${state.position} of ${tokens().length}: `,
    piece(token.piece),
    `, id ${token.id}. `,
    token.loss === null
      ? "It is the first: nothing predicts it. "
      : `Loss ${nats(token.loss)} nats: the model gave it ${percent(token.probability)}, rank ${count(token.rank)}. `,
  ];
  const { bigram, text } = context;
  if (bigram && bigram.counts.length === tokens().length) {
    const loss = state.position > 0 ? `The bigram model's loss is ${nats(bigram.losses[state.position - 1])}. ` : "";
    parts.push(`${loss}It occurs ${count(bigram.counts[state.position])} times in the training text. `);
  }
  const mean = text.mean_loss === null ? "" : `Mean loss of the text: ${nats(text.mean_loss)}. `;
  const unread = text.unread
    ? `The last ${plural(text.unread, "token")} exceed what is read at once, ${text.tokens.length}.`
    : "";
  return facts.replaceChildren(...parts, el("span", { class: "note" }, mean, unread));
}

/** Shows how many heads are off, and how to undo it. */
export function showHeadsOff() {
  const box = $("heads-off");
  box.hidden = !state.off.length;
  if (box.hidden) return;
  const names = state.off.map((head) => head.join(".")).join(", ");
  const choice = ["zero", "mean"].map((by) =>
    el(
      "label",
      {},
      el("input", {
        type: "radio",
        name: "by",
        value: by,
        checked: state.by === by,
        data: { focus: `by ${by}` },
        disabled: by === "mean" && run().missing_data !== "",
        onchange: () => change({ by }),
      }),
      by === "zero" ? "zero" : "its mean",
    ),
  );
  box.replaceChildren(
    el("span", {}, `${plural(state.off.length, "head")} off (${names}), set to `),
    ...choice,
    el(
      "button",
      { type: "button", class: "small", data: { focus: "undo" }, onclick: () => change({ off: [] }) },
      "Undo",
    ),
  );
}

/** Shows the loss curve with the checkpoints on it, and the slider that chooses one. */
export function showSlider() {
  const { steps, curve } = run();
  const box = $("slider");
  const losses = [...curve.train, ...curve.val].map(([, loss]) => loss);
  const lastStep = Math.max(1, ...steps, ...curve.train.map(([at]) => at));
  const [low, high] = losses.length ? [Math.min(...losses), Math.max(...losses)] : [0, 1];
  const width = 1000,
    height = 70;
  const x = (at) => (at / lastStep) * width;
  const y = (loss) => 6 + (1 - (loss - low) / (high - low || 1)) * (height - 12);
  const lossAt = (at, points) =>
    points.reduce(
      (best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best),
      points[0] ?? [0, low],
    )[1];
  const line = (points, name) =>
    svg("polyline", { class: `line ${name}`, points: points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    line(curve.train, "train"),
    line(curve.val, "val"),
    steps.map((at) =>
      svg("line", {
        x1: x(at),
        x2: x(at),
        y1: y(lossAt(at, curve.train)) - 5,
        y2: height,
        class: `stop${at === step() ? " chosen" : ""}`,
      }),
    ),
  );
  const input = el("input", {
    type: "range",
    min: 0,
    max: lastStep,
    value: step(),
    step: 1,
    id: "checkpoint",
    "aria-label": "Checkpoint",
    disabled: steps.length < 2,
    data: { focus: "checkpoint" },
    "aria-valuetext": `step ${count(step())}`,
    oninput: () => {
      const nearest = steps.reduce((a, b) => (Math.abs(b - input.value) < Math.abs(a - input.value) ? b : a));
      if (nearest !== step()) change({ step: nearest });
      input.value = nearest;
    },
    onkeydown: (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const next = steps[Math.max(0, Math.min(steps.length - 1, steps.indexOf(step()) + by))];
      if (next !== step()) change({ step: next });
    },
  });
  const val = curve.val.find(([at]) => at === step());
  const few =
    steps.length < 2
      ? "This run kept one checkpoint; training with --train.keep-checkpoints 12 --train.save-every 50 keeps more to look back through. "
      : "";
  box.replaceChildren(
    el("div", { class: "curve" }, picture, input),
    el(
      "p",
      { class: "note" },
      `Checkpoint: step ${count(step())}${step() === run().best ? " (best)" : ""}${val ? `, validation loss ${nats(val[1])}` : ""}. `,
      losses.length
        ? `The curve is the training loss, from ${nats(curve.train[0]?.[1] ?? null)} to ${nats(curve.train.at(-1)?.[1] ?? null)}; its marks are the ${plural(steps.length, "checkpoint")}; the dashed line is the validation loss. `
        : "",
      few,
    ),
  );
}
