// Eight steps. Each asks, lets one guess, and then shows; the guess stays next to the answer and is never scored.

import { ask } from "./api.js";
import { count, el, nats, percent, piece, plural, score, signed, visible } from "./dom.js";
import { here, hereText, place, quoted, run, step, tokens } from "./context.js";
import { change, state } from "./state.js";
import { interestingHead } from "./head_panels.js";
import { inductionChart, moments, tooFew } from "./time.js";

const SAME = 0.02; // nats: a smaller change is "about the same"

/** The step at which a score has risen above chance, or null. */
const formed = (found) =>
  found.find((m) => Math.max(...m.induction.flat()) > Math.max(0.1, 5 * run().induction_chance)) ?? null;
const headName = () => `${state.layer}.${state.head}`;
const targetText = (answer) => quoted(answer.piece);
const choices = (options) => ({ kind: "choice", options });

const STEPS = [
  {
    title: "Pieces",
    question: () => "Into how many pieces does the tokenizer cut the text above?",
    because:
      "A model does not see letters or words but tokens: pieces that were frequent in its training text, each with a number.",
    task: "Change one letter in a common word, or type a rare name, and see how the pieces change.",
    input: () => ({ kind: "number", label: "pieces" }),
    panels: [],
    answer: async () => [
      `${plural(tokens().length, "piece")}, ids ${tokens()
        .slice(0, 4)
        .map((token) => token.id)
        .join(", ")} ... Each is shaded by how hard it was to predict.`,
    ],
  },
  {
    title: "Guess",
    question: () => ["What comes next after ", piece(here().piece), "?"],
    because: "All that the model does is to give each token of its vocabulary a probability to be the next.",
    task: "Move along the text with the arrow keys: where is the model sure, and where is it not?",
    input: () => ({ kind: "text", label: "your word" }),
    panels: ["next"],
    answer: async (guess, signal) => {
      const answer = await ask("next", { ...place(), token: null, word: guess }, signal);
      const yours = answer.word
        ? [
            " Yours begins with ",
            piece(answer.word.piece),
            `: rank ${count(answer.word.rank)}, ${percent(answer.word.probability)}.`,
          ]
        : [];
      return [
        "The model says ",
        piece(answer.guesses[0].piece),
        ` with ${percent(answer.guesses[0].probability)}.`,
        ...yours,
      ];
    },
  },
  {
    title: "Vectors",
    question: () => ["Which token has the vector most like that of ", piece(here().piece), "?"],
    because:
      "Each token is a vector that training moves; tokens that occur in similar places end up with similar ones.",
    task: "Slide to the first checkpoint: there, the neighbours are chance. Try a name, a number, a bracket.",
    input: () => ({ kind: "text", label: "your token" }),
    panels: ["neighbours"],
    answer: async (guess, signal) => {
      const near = await ask("neighbours", { run: state.run, step: step(), token: here().id }, signal);
      const place_ = near.findIndex(({ piece: text }) => text.trim() === guess.trim());
      return [
        "It is ",
        piece(near[0].piece),
        ` (cosine ${nats(near[0].similarity)}).`,
        guess.trim() ? (place_ < 0 ? " Yours is not among the ten nearest." : ` Yours has rank ${place_ + 1}.`) : "",
      ];
    },
  },
  {
    title: "Looking back",
    question: () => ["From ", piece(here().piece), `, which token does head ${headName()} look at most?`],
    because:
      "In each head, a token's query is compared with the keys of all tokens so far; the best matches give it their values.",
    task: "Open a cell of the matrix: its weight is a sum of products and a softmax, all digits shown.",
    input: () =>
      choices(
        tokens()
          .slice(0, state.position + 1)
          .map((token, i) => [`${i}`, `${i}: ${visible(token.piece)}`]),
      ),
    panels: ["heads", "attention", "cell"],
    enter: pickHead,
    answer: async (guess, signal) => {
      const found = await headScores(signal);
      const head = found.find((score) => score.layer === state.layer && score.head === state.head);
      return [
        `Head ${headName()} looks most at `,
        piece(tokens()[head.source].piece),
        ` (token ${head.source}) with ${percent(head.weight)}.`,
      ];
    },
  },
  {
    title: "Cause",
    question: () => [
      `Head ${headName()} off: does the token that follows `,
      piece(here().piece),
      " become more likely, less likely, or neither?",
    ],
    because:
      "Where a head looks is correlation. Switching it off shows what it causes; a head that looks need not matter.",
    task: "Switch off the head with the largest effect, then several; compare “zero” with “its mean”.",
    input: () =>
      choices([
        ["more", "more likely"],
        ["less", "less likely"],
        ["same", "about the same"],
      ]),
    panels: ["heads", "effects", "next"],
    enter: pickHead,
    answer: async (guess, signal) => {
      const answer = await ask("effects", place(), signal);
      const zero = answer.zero[state.layer][state.head],
        mean = answer.mean?.[state.layer][state.head] ?? null;
      if (zero === null) return [`Head ${headName()} is off already; undo it first.`];
      const word =
        Math.abs(zero) < SAME ? "stays about as likely" : zero < 0 ? "becomes less likely" : "becomes more likely";
      return [
        `${targetText(answer)} `,
        el("b", {}, word),
        `: its log-probability changes by ${signed(zero)} nats${mean === null ? "" : ` (${signed(mean)} with the head's mean)`}.`,
      ];
    },
  },
  {
    title: "Layers",
    question: () => [
      "After which part of the model is the token that follows ",
      piece(here().piece),
      " the first guess, to stay so?",
    ],
    because:
      "Each layer adds to one running sum, the residual stream, and the last state of it is turned into the prediction.",
    task: "Compare an easy token with a hard one: the bars say which parts spoke for it, and they add up to its logit.",
    input: () =>
      choices([
        ["never", "never"],
        ["embedding", "embedding"],
        ...Array.from({ length: run().layers }, (_, i) => [`attention ${i}`, `feed-forward ${i}`])
          .flat()
          .map((name) => [name, `after ${name}`]),
      ]),
    panels: ["layers"],
    answer: async (guess, signal) => {
      const answer = await ask("layers", place(), signal);
      const first = answer.lens.find((row, i) => answer.lens.slice(i).every((later) => later.rank === 1));
      return first
        ? [`${targetText(answer)} is the first guess from “${first.state}” on.`]
        : [
            `${targetText(answer)} is not the model's first guess in the end: its rank is ${count(answer.lens.at(-1).rank)}.`,
          ];
    },
  },
  {
    title: "Time",
    question: () => "At which step did it learn to repeat: to look for an earlier occurrence, and at what followed it?",
    because:
      "A head that does this is called an induction head; it appears rather suddenly, and lets a model copy what it has just read.",
    task: "Type a made-up name twice, and compare the loss of its pieces: the second should be easier.",
    input: () => choices([...run().steps.map((at) => [`${at}`, `step ${count(at)}`]), ["never", "not yet"]]),
    missing: () => (run().steps.length < 2 ? tooFew() : null),
    panels: [],
    answer: async (guess, signal) => {
      const found = await moments(signal);
      const first = formed(found);
      const best = Math.max(...found.at(-1).induction.flat());
      const words = first
        ? `Between the checkpoints before and at step ${count(first.step)}: there a head's induction score is ${score(Math.max(...first.induction.flat()))}; chance is ${score(run().induction_chance)}.`
        : `No head of yours repeats yet (the best score is ${score(best)}, chance ${score(run().induction_chance)}): train longer, or on more text.`;
      return [words, inductionChart(found)];
    },
  },
  {
    title: "Learned or copied",
    question: () => ["Does the text up to ", piece(here().piece), " occur in the training text?"],
    because:
      "A model can be right because it has seen the very words, or because it has learned what they have in common.",
    task: "Change one word, and see whether the prediction survives: what is only recited does not.",
    input: () =>
      choices([
        ["all", "all of it"],
        ["part", "its last few tokens"],
        ["none", "not at all"],
      ]),
    missing: () => (run().missing_data ? el("p", {}, run().missing_data) : null),
    panels: ["passages", "next"],
    answer: async (guess, signal) => {
      const answer = await ask("passages", { ...place(), token: null }, signal);
      if (!answer.length) return [`Not even ${hereText()} does.`];
      const times = answer.count === 1 ? "once" : `${count(answer.count)} times`;
      if (answer.length === state.position + 1) return [`All of it does, ${times}.`];
      return [
        answer.length === 1 ? `Only its last token does, ${times}.` : `Its last ${answer.length} tokens do, ${times}.`,
      ];
    },
  },
];

const saved = (() => {
  try {
    return JSON.parse(sessionStorage.getItem("guesses")) ?? {};
  } catch {
    return {};
  }
})();

function save(index, guess) {
  saved[index] = guess;
  try {
    sessionStorage.setItem("guesses", JSON.stringify(saved));
  } catch {
    // a browser that keeps nothing still remembers until the page is closed
  }
}

const revealed = (index) => saved[index] !== undefined;
const current = () => Math.min(state.guide, STEPS.length - 1);

/** The panels that the current step shows: none before the guess. */
export const guidePanels = () => (revealed(current()) && !STEPS[current()].missing?.() ? STEPS[current()].panels : []);

export async function showGuide(box, signal, keepFocus) {
  const index = current();
  const guide = STEPS[index];
  document.body.dataset.hideStrip = String(index === 0 && !revealed(0));
  if (!tokens().length) return keepFocus(() => box.replaceChildren(el("p", {}, "Type a text above.")));
  const missing = guide.missing?.();
  const answer = !missing && revealed(index) ? await guide.answer(saved[index], signal) : null;
  keepFocus(() =>
    box.replaceChildren(
      el(
        "nav",
        { class: "steps", "aria-label": "Steps of the guide" },
        STEPS.map(({ title }, i) =>
          el(
            "button",
            {
              type: "button",
              class: "small",
              "aria-current": i === index && "step",
              data: { focus: `step ${i}` },
              onclick: () => go(i),
            },
            `${i + 1} ${title}`,
          ),
        ),
      ),
      el(
        "div",
        { class: "card" },
        el("h3", {}, `${index + 1}. ${guide.title}`),
        el("p", { class: "question" }, guide.question()),
        el("p", {}, guide.because),
        missing ?? (answer === null ? form(index, guide.input()) : result(index, guide, answer)),
        el(
          "p",
          { class: "row" },
          (index > 0 &&
            el("button", { type: "button", data: { focus: "back" }, onclick: () => go(index - 1) }, "Back")) ||
            null,
          index < STEPS.length - 1
            ? el(
                "button",
                { type: "button", data: { focus: "forward" }, onclick: () => go(index + 1) },
                answer === null ? "Skip" : "Next step",
              )
            : el("button", { type: "button", onclick: () => change({ screen: "bench" }) }, "To the bench"),
        ),
      ),
    ),
  );
}

async function go(index) {
  change({ guide: index });
  await STEPS[index].enter?.().catch(() => {}); // without an answer, the head of before stays
}

/** The form for the guess; "Show me" shows the answer without one. */
function form(index, input) {
  const field =
    input.kind === "choice"
      ? el(
          "select",
          { "aria-label": "Your guess", data: { focus: "guess" } },
          input.options.map(([value, label]) => el("option", { value }, label)),
        )
      : el("input", {
          type: input.kind,
          min: 0,
          size: 12,
          maxlength: 60,
          "aria-label": `Your guess: ${input.label}`,
          data: { focus: "guess" },
          autocomplete: "off",
        });
  const reveal = (guess) => {
    save(index, guess);
    change({});
  };
  return el(
    "form",
    {
      class: "row guess",
      onsubmit: (event) => {
        event.preventDefault();
        reveal(field.value);
      },
    },
    field,
    el("button", { type: "submit", class: "primary" }, "Guess"),
    el("button", { type: "button", onclick: () => reveal("") }, "Show me"),
  );
}

function result(index, guide, answer) {
  const guess = saved[index];
  const options = guide.input().options;
  const label = options?.find(([value]) => value === guess)?.[1] ?? guess;
  return el(
    "div",
    { class: "answer", "aria-live": "polite" },
    (guess !== "" && el("p", { class: "guessed" }, "You guessed: ", el("bdi", {}, label))) || null,
    el("div", { class: "revealed" }, answer),
    el(
      "p",
      {},
      el("b", {}, "Try: "),
      guide.task,
      " ",
      el(
        "button",
        {
          type: "button",
          class: "small",
          data: { focus: "again" },
          onclick: () => {
            delete saved[index];
            save(index, undefined);
            change({});
          },
        },
        "Guess again",
      ),
    ),
  );
}

const headScores = (signal) => ask("heads", place(), signal);

/** Chooses a head with something to see at this position. */
async function pickHead() {
  change({ ...interestingHead(await headScores(), state.position), query: null, key: null });
}
