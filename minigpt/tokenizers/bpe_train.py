"""Training byte-pair encoding: on which text, and in which process. The tokenizer that results: bpe.py.

Words without end (DNA, base64, a line of dashes, Chinese without punctuation) would take the square of their length:
they are cut for training, never for encoding. And such text has new words everywhere, so less of it is used.

Hugging Face's `tokenizers` trains in one call that no signal interrupts. Unless it takes only a moment, that happens in
a child process, which ends when this one is told to end, or is killed.
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
from minigpt.tokenizers.base import END_OF_TEXT, WHITE_SPACE, OnNote, utf8

MAX_BYTES = 256_000_000  # word counts hardly change beyond this, while memory and time grow
MAX_WORD = 1000  # characters
LONG_RUN = 64  # characters without white space, or of nothing else: text without words
LONG_WEIGHT = 16  # such text counts as many times its bytes: 16 MB of DNA take a minute and 0.8 GB
MAX_IN_PROCESS = 2**18  # characters that are trained on without a child process; they take a second at most

_LONG = re.compile(f"[^{WHITE_SPACE}]{{{LONG_RUN},}}+|[{WHITE_SPACE}]{{{LONG_RUN},}}+")
_LENGTH = struct.Struct("<q")
_CHILD = "import sys; sys.path[:] = sys.argv[2:]; from minigpt.tokenizers.bpe_train import child; child()"


def train(vocab_size: int, texts: Iterable[str], on_note: OnNote) -> bytes:
    """Returns a `tokenizer.json` of byte-level BPE.

    Args:
        vocab_size: the number of ids wanted, end-of-text (id 0) included.
        texts: the training text, in parts that were cut at safe places.
        on_note: called with what is not used of it, before the long work begins.

    Raises:
        TokenizerError: the child process was ended from outside.
    """
    texts = _bounded(texts, on_note)
    first: list[str] = []
    n_characters = 0
    for text in texts:
        first.append(text)
        n_characters += len(text)
        if n_characters > MAX_IN_PROCESS and sys.executable:
            return _train_in_child(vocab_size, chain(first, texts))
    return _train(vocab_size, [utf8(text).decode() for text in first])


def _bounded(texts: Iterable[str], on_note: OnNote) -> Iterator[str]:
    """The texts up to the limit, the last one whole, with long words cut."""
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
        on_note(f"Words of up to {longest:,} characters are cut to {MAX_WORD:,} to learn the vocabulary.")


def _train(vocab_size: int, texts: Iterable[str]) -> bytes:
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


def _train_in_child(vocab_size: int, texts: Iterable[str]) -> bytes:
    """As `_train`, in a child process: whatever ends the waiting here ends the child too."""
    command = [sys.executable, "-P", "-c", _CHILD, str(vocab_size), *sys.path]
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would open a console
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, start_new_session=True, creationflags=flags
        ) as process,
    ):
        assert process.stdin is not None
        try:
            _send(texts, process.stdin)
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.1)  # without a timeout, Windows would ignore Ctrl-C
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(OSError):  # about what the child has not read
                process.stdin.close()
        if process.returncode:
            raise TokenizerError(
                "Learning the vocabulary was ended from outside",
                got=f"exit code {process.returncode}",
                remedy="The usual reason is too little memory: close other programs, or use less text.",
            )
        output.seek(0)
        return output.read()


def _send(texts: Iterable[str], stream: IO[bytes]) -> None:
    """Writes texts and an end mark. The stream stays open: its end tells the child that this process is gone."""
    frames = ((len(content), content) for content in map(utf8, texts))
    for length, content in chain(frames, [(-1, b"")]):
        try:
            stream.write(_LENGTH.pack(length) + content)
            stream.flush()
        except OSError:  # the child has ended, and its exit code says why
            return


def child() -> None:
    """The child process: reads texts, writes a `tokenizer.json`."""
    source = sys.stdin.buffer

    def read(length: int) -> bytes:
        content = source.read(length)
        if len(content) < length:
            os._exit(1)  # the parent is gone
        return content

    def texts() -> Iterator[str]:
        while (length := _LENGTH.unpack(read(_LENGTH.size))[0]) >= 0:
            yield read(length).decode()
        threading.Thread(target=read, args=[1], daemon=True).start()

    sys.stdout.buffer.write(_train(int(sys.argv[1]), texts()))
    sys.stdout.flush()
    os._exit(0)  # without waiting for the thread
