"""`minigpt generate RUN --interactive`: a prompt line with a history, and settings that can be changed on the way."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from minigpt.cli.console import Console, say
from minigpt.cli.generate_options import DisplayOptions, SamplingOptions
from minigpt.cli.generate_views import make_view, show
from minigpt.errors import ConfigError, MiniGPTError, did_you_mean
from minigpt.generation import stream_samples
from minigpt.generation.notes import prompt_notes, stop_notes

if TYPE_CHECKING:
    from minigpt.model import GPT
    from minigpt.tokenizers import Tokenizer

HELP = """\
Type the beginning of a text, and the model continues it. An empty line begins a new document.
A line that begins with / is a command; begin it with // for a text that begins with /.
  /temperature 0.5        changes a setting; /temperature alone shows it; /settings shows all
  /top-logprobs 5         shows the most likely tokens at each step
  /show-probabilities on  shows how likely each token was
  /keep on                continues the whole text so far: what you type is added as a new line, and after an empty
                          line the model goes on. /keep off: each line stands alone
  /help                   shows this
  /quit                   exits, as does Ctrl-D; Ctrl-C stops the current text"""

MAX_LINE = 2**20
"""The length of a line from a pipe, in characters; a longer one ends the session."""

DISPLAY_SETTINGS = {"show_probabilities": bool, "top_logprobs": int}


class Conversation:
    """Reads lines, and answers each.

    Attributes:
        sampling: how the text is generated.
        display: what is shown of it.
        keep: whether a line continues the whole text so far.
        text: the text so far.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, sampling: SamplingOptions, display: DisplayOptions) -> None:
        self.model, self.tokenizer, self.sampling, self.display = model, tokenizer, sampling, display
        self.keep, self.text = False, ""
        self.console = Console()

    def run(self) -> None:
        """Reads and answers until there are no more lines, or one is /quit."""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        with suppress(ImportError):  # gives `input` a history and editing keys; a Windows console has its own
            import readline  # noqa: F401
        self.console.print("Type /help for help, Ctrl-D to exit.")
        while True:
            try:
                line = self._line()
                if line.strip() == "/quit":
                    return
                self.answer(line)
            except EOFError:
                self.console.print()
                return
            except MiniGPTError as error:
                self.console.print(str(error))
            except KeyboardInterrupt:
                self.console.print("\nstopped; Ctrl-D exits")

    def _line(self) -> str:
        """Returns what was typed; from a pipe or a file, which may have no end, a line of bounded length."""
        if sys.stdin.isatty():
            return input("> ")
        self.console.print("> ", end="")
        line = sys.stdin.readline(MAX_LINE)
        if not line or len(line) == MAX_LINE:
            raise EOFError
        return line.removesuffix("\n")

    def answer(self, line: str) -> None:
        """Carries out a command, or continues a text.

        Raises:
            MiniGPTError: if the command or its value is invalid; then nothing is changed.
        """
        if line.startswith("/") and not line.startswith("//"):
            self._command(*line[1:].strip().partition(" ")[::2])
        elif line in ("exit", "quit"):
            self.console.print("Type /quit to exit; to have this word continued, add a space to it.")
        else:
            self._continue(line.removeprefix("/") if line.startswith("//") else line)

    def _continue(self, line: str) -> None:
        prompt = line
        if self.keep and self.text:
            prompt = f"{self.text}\n{line}" if line else self.text
        context, top = self.model.config.block_size, self.display.top_logprobs
        _say_notes(prompt_notes(self.tokenizer, prompt, context))
        view = make_view(self.tokenizer, self.display, {"dtype": "float32"}, many=False, context=context)
        params = self.sampling.params(self.tokenizer)
        samples, outputs = stream_samples(self.model, self.tokenizer, [prompt], params, top_logprobs=top)
        samples[0].prompt = line  # only the new line is shown
        try:
            show(view, samples, outputs)
        finally:
            self.text = prompt + samples[0].text

    def _command(self, name: str, value: str) -> None:
        key, settings = name.replace("-", "_"), self._settings()
        if key == "help":
            self.console.print(HELP)
        elif key == "settings":
            for each in settings:
                self._print(each)
        elif key not in settings:
            hint = did_you_mean(key, ["help", "settings", "quit", *settings]).replace("_", "-")
            raise ConfigError("Unknown command", got=f"/{name}", remedy=f"{hint}Type /help for a list.")
        else:
            if value.strip():
                self._change(key, value.strip())
            self._print(key)

    def _settings(self) -> dict[str, Any]:
        shown = {name: getattr(self.display, name) for name in DISPLAY_SETTINGS}
        return {**self.sampling.as_typed(), **shown, "keep": self.keep}

    def _print(self, key: str) -> None:
        value = self._settings()[key]
        if isinstance(value, tuple):
            text = " ".join(map(shlex.quote, value)) or "none"
        elif isinstance(value, bool):
            text = "on" if value else "off"
        else:
            text = "none" if value is None else str(value)
        self.console.print(f"  {key.replace('_', '-')} {text}")

    def _change(self, key: str, text: str) -> None:
        field = "bias" if key == "logit_bias" else key
        types = {**get_type_hints(SamplingOptions), **DISPLAY_SETTINGS, "keep": bool}
        value = parse_value(key.replace("_", "-"), text, types[field])
        if key == "keep":
            self.keep = value
        elif key in DISPLAY_SETTINGS:
            unset = {"show_probabilities": False, "top_logprobs": 0} if value else {}  # the two exclude each other
            self.display = replace(self.display, **{**unset, key: value})
        else:
            sampling = replace(self.sampling, **{field: value})
            _say_notes(stop_notes(self.tokenizer, sampling.params(self.tokenizer)))
            self.sampling = sampling


def _say_notes(notes: Mapping[str, str]) -> None:
    for note in notes.values():
        say(f"note: {note}")


def parse_value(name: str, text: str, hint: Any) -> Any:
    """Returns the value that a user typed for a setting of this type.

    Raises:
        ConfigError: if it is invalid.
    """
    types = get_args(hint) or (hint,)
    repeatable, optional = Ellipsis in types, type(None) in types
    words = {bool: "on or off", int: "a whole number", float: "a number", str: "texts, quoted if they contain spaces"}
    try:
        if text == "none" and (repeatable or optional):
            return () if repeatable else None
        if repeatable:
            return tuple(shlex.split(text))
        return {"on": True, "off": False}[text] if hint is bool else types[0](text)
    except (KeyError, ValueError):
        expected = words[types[0]] + (", or none" if repeatable or optional else "")
        raise ConfigError(f"/{name} takes {expected}", got=text, remedy="The setting is unchanged.") from None
