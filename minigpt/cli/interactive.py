"""`minigpt generate RUN --interactive`: a prompt line with a history, and settings that change as one goes."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from minigpt.cli.console import Console, say
from minigpt.cli.generate_options import ShownOptions, TextOptions
from minigpt.cli.generate_views import make_view, show
from minigpt.errors import ConfigError, MiniGPTError, did_you_mean
from minigpt.generation import Sample, stream_pieces
from minigpt.generation.notes import prompt_notes, stop_notes
from minigpt.generation.text import SamplingRequest

if TYPE_CHECKING:
    from minigpt.model import GPT
    from minigpt.tokenizers import Tokenizer

HELP = """\
Write the beginning of a text, and the model goes on. An empty line begins a new document.
A line that begins with / is a command; with //, a text that begins with /.
  /temperature 0.5        changes a setting; /temperature alone shows it. /settings shows all
  /explain on             shows for each step the most likely tokens
  /show-probabilities on  shows how likely each token was
  /keep on                goes on with the whole text so far: what you write becomes a new line of it, and after an
                          empty line the model writes on. /keep off: each line stands alone
  /help                   shows this
  /quit                   leaves, as Ctrl-D does; Ctrl-C stops a running text"""


MOST_CHARACTERS = 2**20
"""Of a line that is not typed: a longer one ends the conversation."""


class Conversation:
    """Reads lines, and answers each.

    Attributes:
        options: what text is wanted.
        shown: how it is shown.
        keep: whether a line goes on with the whole text so far.
        text: the text so far.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, options: TextOptions, shown: ShownOptions) -> None:
        self.model, self.tokenizer, self.options, self.shown = model, tokenizer, options, shown
        self.keep, self.text = False, ""
        self.console = Console()

    def run(self) -> None:
        """Reads and answers until there are no more lines, or one is /quit."""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        with suppress(ImportError):  # gives `input` a history and editing keys; a Windows console has its own
            import readline  # noqa: F401
        self.console.print("/help explains, Ctrl-D leaves")
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
                self.console.print("\nstopped; Ctrl-D leaves")

    def _line(self) -> str:
        """Returns what was typed; from a pipe or a file, which may have no end, a line of bounded length."""
        if sys.stdin.isatty():
            return input("> ")
        self.console.print("> ", end="")
        line = sys.stdin.readline(MOST_CHARACTERS)
        if not line or len(line) == MOST_CHARACTERS:
            raise EOFError
        return line.removesuffix("\n")

    def answer(self, line: str) -> None:
        """Obeys a command, or continues a text.

        Raises:
            MiniGPTError: if the command makes no sense or its setting cannot work; nothing is changed then.
        """
        if line.startswith("/") and not line.startswith("//"):
            self._obey(*line[1:].strip().partition(" ")[::2])
        elif line in ("exit", "quit"):
            self.console.print("/quit leaves; to have this word continued, add a space to it")
        else:
            self._continue(line.removeprefix("/") if line.startswith("//") else line)

    def _continue(self, line: str) -> None:
        prompt = line
        if self.keep and self.text:
            prompt = f"{self.text}\n{line}" if line else self.text
        settings = self.options.settings(self.tokenizer)
        context = self.model.config.block_size
        self._note(prompt_notes(self.tokenizer, prompt, context))
        view = make_view(self.tokenizer, self.shown, {"weights": "float32"}, many=False, context=context)
        sample, explain = Sample(line), self.shown.explain
        try:
            show(view, [sample], stream_pieces(self.model, self.tokenizer, [prompt], explain=explain, **settings))
        finally:
            self.text = prompt + sample.text

    def _obey(self, name: str, value: str) -> None:
        key, settings = name.replace("-", "_"), self._settings()
        if key == "help":
            self.console.print(HELP)
        elif key == "settings":
            for each in settings:
                self._print(each)
        elif key not in settings:
            hint = did_you_mean(key, ["help", "settings", "quit", *settings]).replace("_", "-")
            raise ConfigError("There is no such command", got=f"/{name}", remedy=f"{hint}/help lists them.")
        else:
            if value.strip():
                self._change(key, value.strip())
            self._print(key)

    def _settings(self) -> dict[str, Any]:
        seen = {"explain": self.shown.explain, "show_probabilities": self.shown.show_probabilities}
        return {**asdict(self.options), **seen, "keep": self.keep}

    def _print(self, key: str) -> None:
        value = self._settings()[key]
        if isinstance(value, tuple):
            text = " ".join(map(shlex.quote, value)) or "none"
        elif isinstance(value, bool):
            text = "on" if value else "off"
        else:
            text = "none" if value is None else str(value)
        self.console.print(f"  {key.replace('_', '-')} {text}")

    @staticmethod
    def _note(notes: Mapping[str, str]) -> None:
        for note in notes.values():
            say(f"note: {note}")

    def _change(self, key: str, text: str) -> None:
        kinds = get_type_hints(TextOptions)
        value = read_value(key.replace("_", "-"), text, kinds.get(key, bool))
        if key == "keep":
            self.keep = value
        elif key in kinds:
            options = replace(self.options, **{key: value})
            request = SamplingRequest.read(self.model, self.tokenizer, options.settings(self.tokenizer))
            self.options = options
            self._note(stop_notes(self.tokenizer, request))
        else:
            self.shown = replace(self.shown, **{key: value})
            other = "explain" if key == "show_probabilities" else "show_probabilities"
            if value and getattr(self.shown, other):
                self.shown = replace(self.shown, **{other: False})
                self._print(other)


def read_value(name: str, text: str, kind: Any) -> Any:
    """Returns the value that a user typed for a setting of this type.

    Raises:
        ConfigError: if it is none.
    """
    kinds = get_args(kind) or (kind,)
    optional = type(None) in kinds or Ellipsis in kinds
    words = {bool: "on or off", int: "a whole number", float: "a number", str: "texts, in quotes if they hold spaces"}
    try:
        if optional and text == "none":
            return () if Ellipsis in kinds else None
        if Ellipsis in kinds:
            return tuple(shlex.split(text))
        return {"on": True, "off": False}[text] if kind is bool else kinds[0](text)
    except (KeyError, ValueError):
        what = words[kinds[0]] + (", or none" if optional else "")
        raise ConfigError(f"/{name} takes {what}", got=text, remedy="Nothing is changed.") from None
