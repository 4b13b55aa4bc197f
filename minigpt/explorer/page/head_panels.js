// Panels on attention heads: what each does, where it looks, the arithmetic of one weight, and what it is good for.

import { ask, askTensor } from "./api.js";
import { bar, code, el, nats, percent, piece, plural, signed, table, visible } from "./dom.js";
import { change, isOff, state, toggleHead } from "./state.js";
import {
  context,
  here,
  hereText,
  place,
  positionKey,
  quoted,
  reading,
  readingKey,
  run,
  targetKey,
  tokens,
} from "./context.js";
import { matrix, thumbnail } from "./matrix.js";

/** The heads: a picture each, what they do, and what is lost without them. */
export const heads = {
  name: "heads",
  title: "Heads",
  depends: positionKey,
  load: async (signal) => [await ask("heads", place(), signal), await askTensor("thumbnails", reading(), signal)],
  show([scores, pictures]) {
    const side = pictures.shape[2];
    const { layers, heads: perLayer } = run();
    const cards = scores.map((score, i) =>
      card(score, pictures.numbers.subarray(i * side * side, (i + 1) * side * side), side),
    );
    const grid = el(
      "div",
      {
        class: "heads",
        role: "group",
        "aria-label": "Heads, by layer. Arrow keys move, O switches a head off.",
        onkeydown: (event) => moveHead(event, layers, perLayer),
      },
      Array.from({ length: layers }, (_, layer) =>
        el(
          "div",
          { class: "layer" },
          el("span", { class: "note" }, `layer ${layer}`),
          cards.slice(layer * perLayer, (layer + 1) * perLayer),
        ),
      ),
    );
    const active = scores.find(({ layer, head }) => layer === state.layer && head === state.head) ?? scores[0];
    return [
      el(
        "p",
        {},
        `Head ${active.layer}.${active.head} ${does(active, true)}. At ${hereText()} it looks most at ${quoted(tokens()[active.source]?.piece ?? "")}, with ${percent(active.weight)}.`,
      ),
      grid,
      el(
        "p",
        { class: "note" },
        "Rows of a picture are tokens that look, columns the tokens they look at. The number is the change of the chosen token's log-probability without the head (orange: it helped). Click a picture for its attention; “off” switches the head off in all panels.",
      ),
      el(
        "details",
        { data: { keep: "scores" } },
        el("summary", {}, "All scores"),
        table(
          "Mean attention to four kinds of token, over the text (induction: random tokens, repeated)",
          ["head", "#previous", "#same", "#first", "#induction", "#largest here"],
          scores.map((s) => [
            `${s.layer}.${s.head}`,
            nats(s.previous),
            nats(s.same),
            nats(s.first),
            nats(s.induction),
            nats(s.weight),
          ]),
        ),
      ),
    ];
  },
};

function card(score, numbers, side) {
  const { layer, head } = score;
  const canvas = el("canvas", { "aria-hidden": "true" });
  requestAnimationFrame(() => thumbnail(canvas, numbers, side));
  const off = isOff(layer, head);
  const selected = layer === state.layer && head === state.head;
  return el(
    "div",
    { class: `head${off ? " off" : ""}${selected ? " selected" : ""}`, data: { head: `${layer}.${head}` } },
    el(
      "button",
      {
        type: "button",
        class: "picture",
        tabindex: selected ? 0 : -1,
        "aria-pressed": String(selected),
        data: { focus: `head ${layer}.${head}` },
        "aria-label": `head ${layer}.${head}, ${off ? "off" : does(score)}`,
        onclick: () => change({ layer, head, query: null, key: null }),
      },
      canvas,
    ),
    el(
      "span",
      { class: "label" },
      `${layer}.${head}`,
      el(
        "button",
        {
          type: "button",
          class: "power",
          tabindex: -1,
          "aria-pressed": String(off),
          "aria-label": `switch head ${layer}.${head} ${off ? "on" : "off"}`,
          data: { power: `${layer}.${head}` },
          onclick: () => toggleHead(layer, head),
        },
        off ? "on" : "off",
      ),
    ),
    el("span", { class: "does" }, off ? "off" : does(score)),
    el("span", { class: "effect", data: { effect: `${layer}.${head}` } }, " "),
  );
}

/** Says what a head does, in words; the first token is excluded before a head is named. */
export function does(score, long = false) {
  const kinds = [
    ["induction", score.induction],
    ["previous token", score.previous],
    ["same token", score.same],
  ];
  const [kind, value] = kinds.reduce((a, b) => (b[1] > a[1] ? b : a));
  const name = value >= 0.3 ? kind : score.first >= 0.5 ? "first token" : null;
  if (!long) return name ? `${name} ${nats(name === "first token" ? score.first : value)}` : "mixed";
  if (name === "first token") return `rests on the first token (${nats(score.first)} of its attention)`;
  return name
    ? `mostly attends to the ${{ "previous token": "previous token", "same token": "same token, earlier", induction: "token after an earlier occurrence" }[name]} (score ${nats(value)})`
    : "spreads its attention: none of the four kinds of token gets a third of it";
}

function moveHead(event, layers, perLayer) {
  if (event.key.toLowerCase() === "o") return toggleHead(state.layer, state.head);
  const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [
    0, 0,
  ];
  if (!down && !right) return;
  event.preventDefault();
  const [layer, head] = [
    Math.max(0, Math.min(layers - 1, state.layer + down)),
    Math.max(0, Math.min(perLayer - 1, state.head + right)),
  ];
  change({ layer, head, query: null, key: null });
  document.querySelector(`[data-focus="head ${layer}.${head}"]`)?.focus();
}

/** What each head is good for: shown in the cards of the heads, and as a table. */
export const effects = {
  name: "effects",
  title: "Cause: each head off, in turn",
  depends: targetKey,
  load: (signal) => ask("effects", place(), signal),
  show(answer) {
    const rows = answer.zero.flatMap((layer, l) =>
      layer.map((zero, h) => ({ l, h, zero, mean: answer.mean?.[l][h] ?? null })),
    );
    const largest = Math.max(...rows.map((row) => Math.abs(row.zero ?? 0)), 1e-6);
    for (const { l, h, zero } of rows) {
      const label = document.querySelector(`[data-effect="${l}.${h}"]`);
      if (!label) continue;
      label.textContent = zero === null ? " " : signed(zero);
      label.className = `effect ${zero < 0 ? "minus" : "plus"}`;
      label.style.setProperty("--share", String(Math.abs(zero ?? 0) / largest));
    }
    const on = rows.filter((row) => row.zero !== null).sort((a, b) => Math.abs(b.zero) - Math.abs(a.zero));
    const top = on[0];
    const looks = context.answers.heads?.[0].find((score) => score.layer === top?.l && score.head === top?.h);
    return [
      top
        ? el(
            "p",
            {},
            `Without head ${top.l}.${top.h} the log-probability of `,
            piece(answer.piece),
            ` changes the most: ${signed(top.zero)} nats with its output set to zero`,
            top.mean === null ? "" : `, ${signed(top.mean)} with its mean`,
            looks ? `; its largest attention here is ${percent(looks.weight)}` : "",
            ".",
          )
        : el("p", {}, "All heads are off."),
      table(
        `Change of the log-probability of “${visible(answer.piece)}” (now ${nats(answer.log_probability)}), in nats`,
        ["head", "#zero", "", "#mean"],
        on
          .slice(0, 8)
          .map((row) => [
            `${row.l}.${row.h}`,
            signed(row.zero),
            bar(Math.abs(row.zero) / largest, row.zero < 0 ? "minus" : "plus"),
            signed(row.mean),
          ]),
      ),
      el(
        "p",
        { class: "note" },
        "Looking is not causing: a head that attends to a token need not use it. Zero takes a head further from what later layers expect than its mean over validation text does; where the two disagree, trust neither alone.",
        answer.mean === null ? ` No mean: ${run().missing_data}` : "",
      ),
      code(answer.code),
    ];
  },
};

/** The attention of the chosen head. */
export const attention = {
  name: "attention",
  title: "Attention",
  depends: () => [...readingKey(), state.layer, state.head, state.position, state.query, state.key],
  load: (signal) => askTensor("pattern", { ...reading(), layer: state.layer, head: state.head }, signal),
  show(pattern) {
    const size = pattern.shape[0];
    const query = Math.min(state.query ?? state.position, size - 1);
    const row = [...pattern.numbers.subarray(query * size, query * size + query + 1)];
    const key = state.key ?? row.indexOf(Math.max(...row));
    const order = row
      .map((weight, k) => [weight, k])
      .sort((a, b) => b[0] - a[0])
      .slice(0, 6);
    return [
      el(
        "p",
        {},
        `Head ${state.layer}.${state.head}: from ${quoted(tokens()[query].piece)} it looks at `,
        order.slice(0, 3).flatMap(([weight, k], i) => [i ? ", " : "", piece(tokens()[k].piece), ` ${percent(weight)}`]),
        ".",
      ),
      matrix(
        pattern,
        tokens().map((token) => token.piece),
        { query, key },
        (q, k) => change({ query: q, key: k }),
        `Attention of head ${state.layer}.${state.head}`,
      ),
      el(
        "p",
        { class: "note" },
        "Rows look, columns are looked at; each row sums to 1, and nothing looks ahead. Open a cell to see its arithmetic.",
      ),
    ];
  },
};

/** One cell of the attention, with all numbers that it came from. */
export const cell = {
  name: "cell",
  title: "Arithmetic of one cell",
  depends: () => [...attention.depends()],
  load: async (signal) => {
    const query = Math.min(state.query ?? state.position, tokens().length - 1);
    let key = state.key;
    if (key === null) {
      const found = context.answers.heads?.[0].find((s) => s.layer === state.layer && s.head === state.head);
      key = state.query === null && found ? found.source : 0;
    }
    key = Math.min(key, query);
    return {
      query,
      key,
      answer: await ask("cell", { ...reading(), layer: state.layer, head: state.head, query, key }, signal),
    };
  },
  show({ query, key, answer }) {
    const { head_dim: size } = run();
    const products = answer.query.map((q, i) => q * answer.key[i]);
    const sum = products.reduce((a, b) => a + b, 0);
    const largest = Math.max(...answer.scores);
    const exps = answer.scores.map((score) => Math.exp(score - largest));
    const total = exps.reduce((a, b) => a + b, 0);
    const d = (value) => value.toFixed(3).replace("-", "−");
    return [
      el(
        "p",
        {},
        `Head ${state.layer}.${state.head}: `,
        piece(tokens()[query].piece),
        " looks at ",
        piece(tokens()[key].piece),
        ` with weight ${answer.weight.toFixed(3)}. Where that comes from:`,
      ),
      el(
        "ol",
        { class: "sum" },
        el(
          "li",
          {},
          "query · key: ",
          el("b", {}, d(sum)),
          `, the sum of ${size} products.`,
          el(
            "details",
            { data: { keep: "products" } },
            el("summary", {}, "The products"),
            table(
              "query × key, by dimension (positions and norms applied)",
              ["#", "#query", "#key", "#product"],
              products.map((product, i) => [i, d(answer.query[i]), d(answer.key[i]), d(product)]),
            ),
          ),
        ),
        el(
          "li",
          {},
          `divided by √${size} = ${Math.sqrt(size).toFixed(3)}: `,
          el("b", {}, d(answer.score)),
          ", the score.",
        ),
        el(
          "li",
          {},
          `softmax over the ${plural(query + 1, "token")} so far: exp(${d(answer.score)} − ${d(largest)}) / ${d(total)} = ${d(exps[key])} / ${d(total)} = `,
          el("b", { class: "weight" }, answer.weight.toFixed(3)),
          ".",
          el(
            "details",
            { data: { keep: "row" } },
            el("summary", {}, "The whole row"),
            table(
              "exp(score − largest score), then divided by their sum",
              ["token", "#score", "#exp", "#weight"],
              answer.scores.map((score, k) => [
                piece(tokens()[k].piece),
                d(score),
                d(exps[k]),
                answer.weights[k].toFixed(3),
              ]),
            ),
          ),
        ),
      ),
      code(answer.code),
    ];
  },
};

/** Chooses a head with something to see at the position: one that looks back, not at the first token. */
export function interestingHead(scores, at) {
  const back = scores.filter(({ source }) => source > 0 && source < at);
  const { layer, head } = (back.length ? back : scores).reduce((a, b) => (b.weight > a.weight ? b : a));
  return { layer, head };
}
