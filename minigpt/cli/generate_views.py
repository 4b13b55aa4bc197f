"""How generated texts are shown: plain, with probabilities, step by step, or as JSON lines.

A view gets each text's beginning, its outputs and its end, one text after the other.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.text import Text

from minigpt.cli.console import Console, print_json
from minigpt.cli.generate_options import DisplayOptions, token_name
from minigpt.text_utils import escape_control, quoted

if TYPE_CHECKING:
    from minigpt.generation import Sample, StepOutput
    from minigpt.tokenizers import Tokenizer

COLOURS = ((0.5, "green"), (0.2, "cyan"), (0.05, "yellow"), (0.01, "magenta"), (0.0, "red"))
"""The colour of a token, by the lowest probability that has it."""


def percent(share: float) -> str:
    """Returns a probability as a percentage of six characters."""
    return f"{share:6.1%}" if share >= 0.001 else "< 0.1%" if share > 0 else "     –"


class View:
    """Shows texts one after the other; this one shows nothing."""

    def begin(self, sample: Sample) -> None:
        """Shows the beginning of a text."""

    def add(self, output: StepOutput) -> None:
        """Shows a token of the current text."""

    def finish(self, sample: Sample) -> None:
        """Shows the end of a text."""


class PlainView(View):
    """Prompt and text, as it is generated; with several texts, a line before each says how to generate it again."""

    prompt_style, header = "", ""

    def __init__(self, many: bool, dtype: str) -> None:
        self.console = Console()
        self.coloured = self.console.color_system is not None and not self.console.no_color
        self.many, self.n_begun, self.pending = many, 0, ""
        self.dtype = "" if dtype == "float32" else f", {dtype} weights"

    def begin(self, sample: Sample) -> None:
        if not self.n_begun:
            self.write(self.header)
        self.n_begun += 1
        if self.many:
            gap, seed = "\n" if self.n_begun > 1 else "", f", seed {sample.seed}" if sample.seed is not None else ""
            self.write(f"{gap}--- text {self.n_begun}{seed}{self.dtype} ---\n", "dim")
        self.write(sample.prompt, self.prompt_style)

    def add(self, output: StepOutput) -> None:
        self.write(output.text)

    def finish(self, sample: Sample) -> None:
        self.write("\n")

    def write(self, text: str, style: str = "") -> None:
        """Prints exactly this text, at once; styled only on a terminal with colours."""
        if not text:
            return
        if self.console.is_terminal:
            text, self.pending = self.pending + text, ""
            if text.endswith("\r"):  # a single end of line, if a line feed comes next
                text, self.pending = text[:-1], "\r"
            text = escape_control(text)
        if style and self.coloured:
            self.console.print(Text(text, style), end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


class ProbabilityView(PlainView):
    """The text with the probability that the model gave each token: as a colour, or after it where there are none."""

    prompt_style = "dim"

    def begin(self, sample: Sample) -> None:
        if not self.n_begun and self.coloured:
            self.write("the model's probability of each token: ")
            bounds = [1.0, *(bound for bound, _ in COLOURS)]
            for (bound, colour), upper in zip(COLOURS, bounds, strict=False):
                self.write(f"{bound:.0%}-{upper:.0%}", colour)
                self.write("\n\n" if bound == 0 else "  ")
        elif not self.n_begun:
            self.write("after each token: the model's probability of it; ⏎ is a new line\n\n")
        super().begin(sample)

    def add(self, output: StepOutput) -> None:
        share = math.exp(output.logprob)
        if self.coloured:
            self.write(output.text, next(colour for bound, colour in COLOURS if share >= bound))
        elif output.text:
            words = output.text.rstrip()
            space = output.text[len(words) :]
            words, space = (f"{words}⏎", space) if "\n" in space else (output.text, "")
            self.write(f"{words}[{'<1%' if share < 0.01 else f'{share:.0%}'}]{space}")


class TopLogprobsView(PlainView):
    """For each step the most likely tokens, their probabilities before and after the samplers; then the text."""

    header = "step   model  sampler  the most likely next tokens; > is the one that was chosen\n"

    def __init__(self, tokenizer: Tokenizer, many: bool, dtype: str) -> None:
        super().__init__(many, dtype)
        self.tokenizer, self.step = tokenizer, 0

    def begin(self, sample: Sample) -> None:
        self.step = 0
        super().begin(replace(sample, prompt=""))  # the prompt comes at the end, with the text

    def add(self, output: StepOutput) -> None:
        self.step += 1
        for number, each in enumerate(output.top_logprobs):
            step, chosen = f"{self.step:4}" if number == 0 else "    ", each.token == output.token
            shares = f"{percent(math.exp(each.logprob))}   {percent(each.sampling_probability)}"
            name = quoted(token_name(self.tokenizer, each.token))
            self.write(f"{step}  {shares}  {'>' if chosen else ' '} {name}\n", "bold" if chosen else "")
        self.write("\n")

    def finish(self, sample: Sample) -> None:
        self.write(sample.prompt + sample.text + "\n")


class JsonView(View):
    """One JSON object per line for each text, once it has ended."""

    def __init__(
        self, tokenizer: Tokenizer, settings: Mapping[str, Any], context: int, notes: Mapping[str, str]
    ) -> None:
        self.tokenizer, self.settings, self.context, self.notes = tokenizer, settings, context, notes

    def finish(self, sample: Sample) -> None:
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
            "finish_reason": sample.finish_reason,
            "stop_reason": sample.stop_reason,
            "seed": sample.seed,
            "notes": {**prompt_notes(self.tokenizer, sample.prompt, self.context), **self.notes},
        }
        if (score := getattr(sample, "score", None)) is not None:
            line["score"] = score
        if any(output.top_logprobs for output in sample.outputs):
            line["top_logprobs"] = [self._candidates(output) for output in sample.outputs]
        print_json({**line, "settings": self.settings})

    def _candidates(self, output: StepOutput) -> list[dict[str, Any]]:
        def texts(token: int) -> dict[str, str]:
            return {"text": self.tokenizer.decode([token]), "name": token_name(self.tokenizer, token)}

        return [{**texts(each.token), **asdict(each)} for each in output.top_logprobs]


def make_view(
    tokenizer: Tokenizer,
    display: DisplayOptions,
    settings: Mapping[str, Any],
    *,
    many: bool,
    context: int,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> View:
    """Returns the view that the options ask for.

    Args:
        tokenizer: the run's.
        display: the options.
        settings: what the texts are generated with, `dtype` among them.
        many: whether there are several texts.
        context: the maximum number of tokens that the model sees at once.
        notes: notes on all texts, by name, for JSON.
    """
    if display.as_json:
        return JsonView(tokenizer, settings, context, notes)
    if display.top_logprobs:
        return TopLogprobsView(tokenizer, many, settings["dtype"])
    return (ProbabilityView if display.show_probabilities else PlainView)(many, settings["dtype"])


def show(view: View, samples: Sequence[Sample], outputs: Iterator[StepOutput]) -> None:
    """Shows samples in order while their outputs come mixed: the first one streams, the others wait for their turn.

    Args:
        view: what shows them.
        samples: the samples, filled as `outputs` is read.
        outputs: their outputs; `request_id` is the sample's number.
    """
    waiting = [deque(sample.outputs) for sample in samples]

    def outputs_of(number: int) -> Iterator[StepOutput]:
        ended = False
        while not ended:
            while not waiting[number]:
                output = next(outputs, None)
                if output is None:
                    return  # a text without tokens
                waiting[output.request_id].append(output)
            ended = waiting[number][0].finish_reason is not None
            yield waiting[number].popleft()

    for number, sample in enumerate(samples):
        view.begin(sample)
        for output in outputs_of(number):
            view.add(output)
        view.finish(sample)
