"""The command line's door: errors become messages and exit codes, whatever the streams are, whenever Ctrl-C comes.

A mistake that the user can mend is printed without a traceback and ends with exit code 2. Anything else is a bug of
ours, and keeps its traceback. Nothing but what Python has loaded anyway is imported before `main` is there to catch an
interrupt; the commands are joined in commands.py.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # what checkers take for true, without loading `typing`

if TYPE_CHECKING:
    from rich.console import RenderableType


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 when all went well, 2 for a mistake of the user's, 128 and its number after a
    signal (Ctrl-C: 130).

    Args:
        arguments: what was typed behind `minigpt`; the process's own when left out.
    """
    _open_closed_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        code = _told("\nstopped", next(iter(interrupt.args), 130))
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        code = 141
    except OSError as error:
        code = _refused(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # what cannot be written must not be tried again at the very end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _open_closed_streams() -> None:
    """Puts the null device in the place of standard streams that are closed, before a file gets their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _run(arguments: list[str] | None) -> int:
    import atexit
    import gc
    import io
    import signal

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else interrupts are ignored, or somebody else's
        signal.signal(signal.SIGINT, _end)

    from cyclopts import CycloptsError, UnusedCliTokensError

    from minigpt.cli.commands import app, stray
    from minigpt.errors import MiniGPTError

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)

    gc.set_threshold(50_000)  # importing torch makes objects that stay, and looking for waste among them takes 0.15 s
    atexit.register(gc.freeze)  # the interpreter's last collection would walk through all of torch, for 0.4 s
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may lack a letter of the model's text; a file or a pipe gets all of them on any system.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
    except MiniGPTError as error:
        return _failed(f"{error.what}" + ("" if error.got is None else f"\n  got: {error.got}"), error.remedy)
    except CycloptsError as error:
        command = " ".join(error.command_chain or ())
        remedy = f"See: {' '.join(filter(None, ('minigpt', command, '--help')))}"
        if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
            words, advice = stray(command, error.unused_tokens)
            return _failed(f"No option takes what stands there\n  got: {words}", advice or remedy)
        return _failed(str(error), remedy)
    except (MemoryError, RuntimeError) as error:
        from minigpt.runtime import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _failed(
            f"There is not enough memory\n  got: {str(error).splitlines()[0] if str(error) else 'MemoryError'}",
            "Try a smaller --train.batch-size, or --train.grad-accum-steps 2, 4, ... with the same one.",
        )
    return result if isinstance(result, int) else 0


def _end(number: int, frame: object) -> None:
    """Ends the program while it loads: an exception would be lost in the middle of an import, or leave half of one."""
    try:
        os.write(2, b"\nstopped\n")
    finally:
        os._exit(128 + number)


def _refused(error: OSError) -> int:
    """Tells of what the system refused, where nobody nearer to it knew more."""
    from minigpt.files import is_missing, why

    seen = f"{error.filename or 'the output'}: {why(error)}"
    if is_missing(error):
        return _failed(f"There is no such file or folder\n  got: {seen}", "Check the path.")
    if isinstance(error, PermissionError) and error.filename and not _may_read(error.filename):
        return _failed(f"A file or folder may not be read\n  got: {seen}", "Ask its owner for the right to read it.")
    return _failed(f"Something cannot be written\n  got: {seen}", "Choose another place, or mend this one.")


def _may_read(path: str | bytes) -> bool:
    """Whether this user may read a file, or look into the folder in which it is to be."""
    return os.access(path, os.R_OK) if os.path.exists(path) else os.access(os.path.dirname(path) or ".", os.X_OK)


def _failed(what: str, remedy: str) -> int:
    from minigpt.cli.console import styled

    return _told(styled(("error: ", "bold red"), f"{what}\n  {remedy}"), 2)


def _told(message: RenderableType, code: int) -> int:
    """Prints a last message, if it can be printed, and returns the exit code."""
    from minigpt.cli.console import say

    say(message)
    return code


if __name__ == "__main__":
    main()
