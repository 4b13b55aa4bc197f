// Panels on what is predicted: the next token, the way to it through the layers, similar tokens, the training text.

import { ask } from "./api.js";
import { bar, code, count, el, nats, percent, piece, plural, signed, table, visible } from "./dom.js";
import { change, state } from "./state.js";
import { context, here, place, positionKey, run, step, targetKey, tokens } from "./context.js";

/** What the next token is, as the model, the bigram model and the text say. */
export const next = {
  name: "next",
  title: "Next token",
  depends: () => [...positionKey(), next.word],
  word: "",
  load: (signal) => ask("next", { ...place(), token: null, word: next.word }, signal),
  show(answer) {
    const best = answer.guesses[0];
    const { actual } = answer;
    const chosen = state.token ?? actual?.id ?? best.id;
    const changed = state.off.length > 0;
    const rows = answer.guesses.map((guess) =>
      el(
        "tr",
        { class: guess.id === chosen && "chosen" },
        el("td", { class: "number" }, guess.rank),
        el(
          "td",
          {},
          el(
            "button",
            {
              type: "button",
              class: "plain",
              data: { focus: `guess ${guess.id}` },
              "aria-pressed": String(guess.id === chosen),
              title: "Explain this token in the other panels",
              onclick: () => change({ token: guess.id }),
            },
            piece(guess.piece),
          ),
        ),
        el("td", { class: "number" }, percent(guess.probability)),
        el("td", { class: "wide" }, bar(guess.probability)),
        (changed && el("td", { class: "number" }, percent(guess.intact))) || null,
      ),
    );
    const said =
      actual === null
        ? " The text ends here."
        : actual.rank === 1
          ? ` That is what follows.`
          : [
              " What follows, ",
              piece(actual.piece),
              `, has rank ${count(actual.rank)} with ${percent(actual.probability)}.`,
            ];
    return [
      el(
        "p",
        {},
        "After ",
        piece(here()?.piece ?? ""),
        " the model's first guess is ",
        piece(best.piece),
        ` with ${percent(best.probability)}.`,
        said,
      ),
      table(
        "The ten most likely tokens",
        ["#rank", "token", "#probability", "", ...(changed ? ["#all heads on"] : [])],
        rows,
      ),
      el("p", {}, el("label", {}, "Your word ", wordBox()), " ", wordAnswer(answer.word)),
      bigramLine(),
      el(
        "p",
        { class: "note" },
        `Entropy: ${nats(answer.entropy)} nats, as uncertain as a choice among ${count(Math.round(Math.exp(answer.entropy)))} equally likely tokens. Click a token to explain it in the other panels.`,
      ),
      code(answer.code),
    ];
  },
};

function wordBox() {
  let timer;
  const input = el("input", {
    type: "text",
    maxlength: 40,
    size: 12,
    value: next.word,
    data: { focus: "word" },
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        next.word = input.value;
        change({});
      }, 200);
    },
  });
  return input;
}

export const wordAnswer = (word) =>
  word &&
  el(
    "span",
    { class: "word-answer" },
    "begins with ",
    piece(word.piece),
    `: rank ${count(word.rank)}, ${percent(word.probability)}.`,
  );

function bigramLine() {
  if (run().missing_counts)
    return el("p", { class: "note" }, `No bigram model to compare with. ${run().missing_counts}`);
  const guesses = context.bigram?.guesses.slice(0, 5) ?? [];
  if (!guesses.length) return null;
  return el(
    "p",
    {},
    "A bigram model, which only counts pairs of tokens, guesses ",
    guesses.flatMap((guess, i) => [i ? ", " : "", piece(guess.piece), ` ${percent(guess.probability)}`]),
    ".",
  );
}

/** The token's way through the layers. */
export const layers = {
  name: "layers",
  title: "Layers",
  depends: targetKey,
  load: (signal) => ask("layers", place(), signal),
  show(answer) {
    const parts = answer.contributions;
    const first = answer.lens.findIndex((row, i) => answer.lens.slice(i).every((later) => later.rank === 1));
    const largest = Math.max(...parts.map(([, value]) => Math.abs(value)));
    const shown =
      parts.length <= 24
        ? parts
        : parts
            .map((part, i) => [...part, i])
            .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
            .slice(0, 20)
            .sort((a, b) => a[2] - b[2])
            .map(([name, value]) => [name, value]);
    const rest = parts.reduce((sum, [, value]) => sum + value, 0) - shown.reduce((sum, [, value]) => sum + value, 0);
    if (shown.length < parts.length) shown.push([`the other ${parts.length - shown.length}`, rest]);
    return [
      el(
        "p",
        {},
        piece(answer.piece),
        first < 0
          ? ` is not the first guess after the last layer: its rank there is ${count(answer.lens.at(-1).rank)}.`
          : first === 0
            ? " is the first guess from the embedding on."
            : ` is the first guess from “${answer.lens[first].state}” on.`,
      ),
      table(
        `Logit lens: the prediction if the model ended there`,
        ["state", "first guess", "#its probability", `#of “${visible(answer.piece)}”`, "#rank"],
        answer.lens.map((row) =>
          el(
            "tr",
            { class: row.rank === 1 && "chosen" },
            el("td", {}, row.state),
            el("td", {}, piece(row.guess)),
            el("td", { class: "number" }, percent(row.guess_probability)),
            el("td", { class: "number" }, percent(row.probability)),
            el("td", { class: "number" }, count(row.rank)),
          ),
        ),
        { class: "lens" },
      ),
      table(
        `Contributions to the logit of “${visible(answer.piece)}”: they sum to ${nats(answer.logit)}`,
        ["component", "#contribution", ""],
        [
          ...shown.map(([name, value]) => [
            name,
            signed(value),
            bar(Math.abs(value) / largest, value < 0 ? "minus" : "plus"),
          ]),
          el(
            "tr",
            { class: "total" },
            el("td", {}, "sum = the logit"),
            el("td", { class: "number" }, signed(answer.logit)),
            el("td", {}),
          ),
        ],
        { class: "contributions" },
      ),
      code(answer.code),
    ];
  },
};

/** Tokens with similar embeddings. */
export const neighbours = {
  name: "neighbours",
  title: "Neighbours",
  depends: () => [state.run, step(), here()?.id],
  load: (signal) => ask("neighbours", { run: state.run, step: step(), token: here().id }, signal),
  show: (answer) => [
    el(
      "p",
      {},
      "The embedding most like that of ",
      piece(here().piece),
      " is that of ",
      piece(answer[0]?.piece ?? ""),
      ` (cosine ${nats(answer[0]?.similarity)}).`,
    ),
    table(
      "The ten nearest embeddings",
      ["token", "#cosine", ""],
      answer.map((near) => [piece(near.piece), nats(near.similarity), bar(near.similarity)]),
    ),
    el(
      "p",
      { class: "note" },
      "Two random vectors of this width have a cosine near 0, mostly within ±",
      (2 / Math.sqrt(run().width)).toFixed(2),
      ". Slide to an early checkpoint: there, all neighbours are chance.",
    ),
  ],
};

/** Where the end of the text occurs in the training text. */
export const passages = {
  name: "passages",
  title: "In the training text",
  depends: () => [state.run, state.text, state.position],
  unavailable: () => run().missing_data,
  load: (signal) => ask("passages", { ...place(), token: null }, signal),
  show: (answer) => [
    answer.length === 0
      ? el("p", {}, "The token ", piece(here()?.piece ?? ""), " does not occur in the training text.")
      : el(
          "p",
          {},
          `The longest end of the text up to here that also occurs in the training text: ${plural(answer.length, "token")}, `,
          piece(answer.match.replaceAll("\n", "\\n")),
          `, ${answer.count === 1 ? "once" : `${count(answer.count)} times`}. `,
          answer.followers.length
            ? [
                "It was followed by ",
                answer.followers.flatMap(([text, times], i) => [i ? ", " : "", piece(text), ` (${count(times)})`]),
                ".",
              ]
            : "",
        ),
    answer.passages.map((passage) =>
      el("p", { class: "passage" }, passage.before, el("mark", {}, passage.match), passage.after),
    ),
    el("p", { class: "note" }, "A long match means that the model may recite; a short one, that it must generalise."),
  ],
};
