"""Byte-pair encoding learned from text: what it is learned from, and where.

Words without end (DNA, base64, a line of dashes, Chinese without punctuation) would take the square of their length:
they are cut, for this alone; encoding never cuts. And what is new in them grows with the text, as words do not: less of
such text is taken.

Hugging Face's `tokenizers` learns in one call that no signal interrupts. Where that would take more than a moment it is
made by a process of its own, which ends when this one is told to, or is killed.

Not here: the tokenizer that comes of it (bpe_train.py).
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import IO

from minigpt.errors import TokenizerError
from minigpt.tokenizers.base import END_OF_TEXT, OnNote, utf8
from minigpt.tokenizers.bpe import WHITE

MAX_BYTES = 256_000_000  # word counts hardly move beyond this, and training's memory and time do
MAX_WORD = 1000  # characters
LONG_RUN = 64  # characters without white space, or of nothing else: here begins text that has no words
LONG_WEIGHT = 16  # times as many bytes as it has it counts for: 16 MB of DNA take a minute and 0.8 GB
AT_ONCE = 2**18  # characters that are learned from here; they take a second at most

_LONG = re.compile(f"[^{WHITE}]{{{LONG_RUN},}}+|[{WHITE}]{{{LONG_RUN},}}+")
_LENGTH = struct.Struct("<q")
_CHILD = "import sys; sys.path[:] = sys.argv[2:]; from minigpt.tokenizers.bpe_process import child; child()"


def learn(vocab_size: int, texts: Iterable[str], on_note: OnNote) -> bytes:
    """Returns a `tokenizer.json` of byte-level BPE.

    Args:
        vocab_size: the number of ids wanted, end-of-text (id 0) among them.
        texts: the training text, in pieces that were cut at safe places.
        on_note: told what was not taken, before the long work begins.

    Raises:
        TokenizerError: the process that learned was ended from outside.
    """
    texts = _bounded(texts, on_note)
    few: list[str] = []
    n_characters = 0
    for text in texts:
        few.append(text)
        n_characters += len(text)
        if n_characters > AT_ONCE and sys.executable:
            return _learned_elsewhere(vocab_size, chain(few, texts))
    return _learned(vocab_size, [utf8(text).decode() for text in few])


def _bounded(texts: Iterable[str], on_note: OnNote) -> Iterator[str]:
    """The texts up to the limit, the last one whole, with their long words cut."""
    n_bytes = cost = longest = 0
    for text in texts:
        start = 0
        for run in _LONG.finditer(text):
            cost += (LONG_WEIGHT - 1) * len(utf8(run[0]))
            longest = max(longest, len(run[0]))
            for cut in range(run.start() + MAX_WORD, run.end(), MAX_WORD):
                yield text[start:cut]
                start = cut
        yield text[start:]
        n_bytes += len(utf8(text))
        if n_bytes + cost >= MAX_BYTES:
            on_note(f"The vocabulary is learned from the first {n_bytes / 1e6:,.0f} MB of the training text.")
            break
    if longest > MAX_WORD:
        cut_to = f"cut to {MAX_WORD:,} to learn the vocabulary from, and nowhere else"
        on_note(f"Words of up to {longest:,} characters: {cut_to}.")


def _learned(vocab_size: int, texts: Iterable[str]) -> bytes:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return utf8(tokenizer.to_str(pretty=True))


def _learned_elsewhere(vocab_size: int, texts: Iterable[str]) -> bytes:
    """As `_learned`, in a process of its own: whatever ends the waiting here ends it too."""
    command = [sys.executable, "-P", "-c", _CHILD, str(vocab_size), *sys.path]
    window = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # none opens on Windows
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, start_new_session=True, creationflags=window
        ) as process,
    ):
        assert process.stdin is not None
        try:
            _send(texts, process.stdin)
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.1)  # without a time, Windows would hear no Ctrl-C
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(OSError):  # of what it has not read
                process.stdin.close()
        if process.returncode:
            raise TokenizerError(
                "Learning the vocabulary was ended from outside",
                got=f"exit code {process.returncode}",
                remedy="Most often memory was short: close other programs, or name less text.",
            )
        output.seek(0)
        return output.read()


def _send(texts: Iterable[str], stream: IO[bytes]) -> None:
    """Writes texts and a mark behind the last. The stream stays open: its end tells that this process is gone."""
    frames = ((len(content), content) for content in map(utf8, texts))
    for length, content in chain(frames, [(-1, b"")]):
        try:
            stream.write(_LENGTH.pack(length) + content)
            stream.flush()
        except OSError:  # the other process has ended, and its exit code says why
            return


def child() -> None:
    """What the process of its own does: texts come in, a `tokenizer.json` goes out."""
    source = sys.stdin.buffer

    def read(length: int) -> bytes:
        content = source.read(length)
        if len(content) < length:
            os._exit(1)  # the process that it works for is gone
        return content

    def texts() -> Iterator[str]:
        while (length := _LENGTH.unpack(read(_LENGTH.size))[0]) >= 0:
            yield read(length).decode()
        threading.Thread(target=read, args=[1], daemon=True).start()

    sys.stdout.buffer.write(_learned(int(sys.argv[1]), texts()))
    sys.stdout.flush()
    os._exit(0)  # without waiting for the thread
