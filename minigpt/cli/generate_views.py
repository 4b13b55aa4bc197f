"""What a person, or a program, sees of generated texts: plain, with probabilities, step by step, or as JSON lines.

A view is told of each text's beginning, its pieces and its end, one text after the other. What is generated is not
decided here.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.text import Text

from minigpt.cli.console import Console, print_json
from minigpt.cli.generate_options import ShownOptions, token_name
from minigpt.text_utils import escape_control, quoted

if TYPE_CHECKING:
    from minigpt.generation import Sample, TextPiece
    from minigpt.generation.engine import Candidate
    from minigpt.tokenizers import Tokenizer

LIKELY = ((0.5, "green"), (0.2, "cyan"), (0.05, "yellow"), (0.01, "magenta"), (0.0, "red"))
"""From which probability on a token has which colour."""


def percent(share: float) -> str:
    """Returns a probability as people write it, in six characters."""
    return f"{share:6.1%}" if share >= 0.001 else "< 0.1%" if share > 0 else "     –"


class PlainView:
    """Prompt and text, as it comes."""

    def __init__(self, many: bool, weights: str) -> None:
        """Prints a line between texts if there are many, with all that is needed to get each again."""
        self.console = Console()
        self.coloured = self.console.color_system is not None and not self.console.no_color
        self.many, self.begun, self.held = many, 0, ""
        self.weights = "" if weights == "float32" else f", {weights} weights"

    def begin(self, sample: Sample) -> None:
        """Shows what a text begins with."""
        self.begun += 1
        if self.many:
            gap, seed = "\n" if self.begun > 1 else "", f", seed {sample.seed}" if sample.seed is not None else ""
            self.write(f"{gap}--- text {self.begun}{seed}{self.weights} ---\n", "dim")
        self.prompt(sample)

    def prompt(self, sample: Sample) -> None:
        """Shows the prompt."""
        self.write(sample.prompt)

    def add(self, piece: TextPiece) -> None:
        """Shows a piece of the text that was begun last."""
        self.write(piece.text)

    def finish(self, sample: Sample) -> None:
        """Shows what a text ends with."""
        self.write("\n")

    def write(self, text: str, style: str = "") -> None:
        """Prints exactly this text, at once; in a style only on a terminal that has colours."""
        if not text:
            return
        if self.console.is_terminal:
            text, self.held = self.held + text, ""
            if text.endswith("\r"):  # one end of line, if a line feed comes next
                text, self.held = text[:-1], "\r"
            text = escape_control(text)
        if style and self.coloured:
            self.console.print(Text(text, style), end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


class ProbabilityView(PlainView):
    """The text with the probability that the model gave each token: as a colour, or behind it where there is none."""

    def begin(self, sample: Sample) -> None:
        """Shows the legend before the first text."""
        if not self.begun and self.coloured:
            self.write("the model's probability of each token: ")
            bounds = [1.0, *(bound for bound, _ in LIKELY)]
            for (bound, colour), upper in zip(LIKELY, bounds, strict=False):
                self.write(f"{bound:.0%}-{upper:.0%}", colour)
                self.write("\n\n" if bound == 0 else "  ")
        elif not self.begun:
            self.write("behind each token stands the model's probability of it; ⏎ is a new line\n\n")
        super().begin(sample)

    def prompt(self, sample: Sample) -> None:
        """Shows the prompt, dimmed: it was given."""
        self.write(sample.prompt, "dim")

    def add(self, piece: TextPiece) -> None:
        """Shows a piece; those without text of their own have nothing to colour."""
        share = math.exp(piece.step.logprob)
        if self.coloured:
            self.write(piece.text, next(colour for bound, colour in LIKELY if share >= bound))
        elif piece.text:
            words = piece.text.rstrip()
            space = piece.text[len(words) :]
            words, space = (f"{words}⏎", space) if "\n" in space else (piece.text, "")
            self.write(f"{words}[{'<1%' if share < 0.01 else f'{share:.0%}'}]{space}")


class ExplainedView(PlainView):
    """For each step the likely tokens, what the model gives them, and what the samplers leave; then the text."""

    def __init__(self, tokenizer: Tokenizer, many: bool, weights: str) -> None:
        super().__init__(many, weights)
        self.tokenizer, self.step = tokenizer, 0

    def begin(self, sample: Sample) -> None:
        """Says what the columns are."""
        if not self.begun:
            self.write("step   model  sampler  the most likely next tokens; > is the one that was chosen\n")
        self.step = 0
        super().begin(sample)

    def prompt(self, sample: Sample) -> None:
        """Shows nothing yet: the text comes in the end."""

    def add(self, piece: TextPiece) -> None:
        """Shows a step."""
        self.step += 1
        for number, each in enumerate(piece.step.candidates):
            place, chosen = f"{self.step:4}" if number == 0 else "    ", each.token == piece.step.token
            name = quoted(token_name(self.tokenizer, each.token))
            line = f"{place}  {percent(each.probability)}   {percent(each.left)}  {'>' if chosen else ' '} {name}\n"
            self.write(line, "bold" if chosen else "")
        self.write("\n")

    def finish(self, sample: Sample) -> None:
        """Shows the whole text."""
        self.write(sample.prompt + sample.text + "\n")


class JsonView:
    """One JSON object a line for each text, when it has ended."""

    def __init__(
        self, tokenizer: Tokenizer, settings: Mapping[str, Any], explain: bool, context: int, notes: Mapping[str, str]
    ) -> None:
        """Takes the most tokens that the model sees at once as its context, and what is to be said of all texts."""
        self.tokenizer, self.settings, self.explain, self.context = tokenizer, settings, explain, context
        self.notes = notes

    def begin(self, sample: Sample) -> None:
        """Prints nothing yet."""

    def add(self, piece: TextPiece) -> None:
        """Prints nothing yet."""

    def finish(self, sample: Sample) -> None:
        """Prints the line."""
        from minigpt.generation.notes import prompt_notes
        from minigpt.generation.text import prompt_ids

        length = len(prompt_ids(self.tokenizer, sample.prompt))
        line: dict[str, Any] = {
            "prompt": sample.prompt,
            "prompt_tokens": length,
            "prompt_tokens_seen": min(length, self.context),
            "text": sample.text,
            "tokens": sample.tokens,
            "logprobs": sample.logprobs,
            "stopped_by": sample.end,
            "seed": sample.seed,
            "notes": {**prompt_notes(self.tokenizer, sample.prompt, self.context), **self.notes},
        }
        if (score := getattr(sample, "score", None)) is not None:
            line["score"] = score
        if self.explain:
            line["candidates"] = [[self._candidate(each) for each in piece.step.candidates] for piece in sample.pieces]
        print_json({**line, "settings": self.settings})

    def _candidate(self, found: Candidate) -> dict[str, Any]:
        name = token_name(self.tokenizer, found.token)
        return {"text": self.tokenizer.decode([found.token]), "name": name, **asdict(found)}


View = PlainView | JsonView


def make_view(
    tokenizer: Tokenizer,
    shown: ShownOptions,
    settings: Mapping[str, Any],
    *,
    many: bool,
    context: int,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> View:
    """Returns the view that was asked for.

    Args:
        tokenizer: the run's.
        shown: what is asked for.
        settings: what the texts are made with, `weights` among it.
        many: whether there are several texts.
        context: the most tokens that the model sees at once.
        notes: what is to be said of all texts, by name; the views for people leave that to others.
    """
    if shown.as_json:
        return JsonView(tokenizer, settings, shown.explain, context, notes)
    if shown.explain:
        return ExplainedView(tokenizer, many, settings["weights"])
    return (ProbabilityView if shown.show_probabilities else PlainView)(many, settings["weights"])


def show(view: View, samples: Sequence[Sample], pieces: Iterator[TextPiece]) -> None:
    """Shows texts in their order while their pieces come mixed: the first streams, the others wait for their turn.

    Args:
        view: what to tell of them.
        samples: the texts; the pieces that come are added to them.
        pieces: of all of them; `piece.step.row` is the text's number.
    """
    waiting = [deque(sample.pieces) for sample in samples]

    def text_chunks(row: int) -> Iterator[TextPiece]:
        ended = False
        while not ended:
            while not waiting[row]:
                piece = next(pieces, None)
                if piece is None:
                    return  # a text of no tokens
                samples[piece.step.row].pieces.append(piece)
                waiting[piece.step.row].append(piece)
            ended = waiting[row][0].end is not None
            yield waiting[row].popleft()

    for row, sample in enumerate(samples):
        view.begin(sample)
        for piece in text_chunks(row):
            view.add(piece)
        view.finish(sample)
