"""The entry point of the command line: turns errors and interrupts into messages and exit codes.

An error that the user can fix is printed without a traceback, with exit code 2. Anything else is a bug and keeps its
traceback. Nothing beyond what Python itself has loaded is imported before `main` can catch an interrupt; commands.py
puts the commands together.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # what checkers take for true, without loading `typing`

if TYPE_CHECKING:
    from rich.console import RenderableType


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 after success, 2 after a user error, 128 + N after signal N (Ctrl-C: 130).

    Args:
        arguments: the words after `minigpt`; by default those of this process.
    """
    _open_closed_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        code = _print_last("\nstopped", next(iter(interrupt.args), 130))
    except BrokenPipeError:  # the reader closed the pipe, as `| head` does
        code = 141
    except OSError as error:
        code = _system_error(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # do not fail again when the interpreter flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _open_closed_streams() -> None:
    """Opens the null device for closed standard streams, before another file gets their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _run(arguments: list[str] | None) -> int:
    import atexit
    import gc
    import io
    import signal

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # otherwise interrupts are ignored, or handled by others
        signal.signal(signal.SIGINT, _exit_at_once)

    from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError

    from minigpt.cli.commands import app, explain_unused
    from minigpt.errors import MiniGPTError

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)

    gc.set_threshold(50_000)  # while torch is imported, collections find nothing and take 0.15 s
    atexit.register(gc.freeze)  # spares the collection at exit a walk through torch's objects, which takes 0.4 s
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may lack a character; files and pipes get UTF-8 on every system.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
    except MiniGPTError as error:
        return _failed(f"{error.what}" + ("" if error.got is None else f"\n  got: {error.got}"), error.remedy)
    except CycloptsError as error:
        command = " ".join(error.command_chain or ())
        remedy = f"See: {' '.join(filter(None, ('minigpt', command, '--help')))}"
        if isinstance(error, MissingArgumentError) and error.argument:
            return _missing(error.argument.name, arguments, remedy)
        if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
            words, advice = explain_unused(command, error.unused_tokens)
            return _failed(f"Unexpected argument\n  got: {words}", advice or remedy)
        return _failed(str(error), remedy)
    except (MemoryError, RuntimeError) as error:
        from minigpt.runtime import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _failed(
            f"Out of memory\n  got: {str(error).splitlines()[0] if str(error) else 'MemoryError'}",
            "Try a smaller --train.batch-size, or the same one with --train.grad-accum-steps 2, 4, ...",
        )
    return result if isinstance(result, int) else 0


def _exit_at_once(number: int, frame: object) -> None:
    """Ends the program while it loads: an exception inside an import might be swallowed, or leave it half done."""
    try:
        os.write(2, b"\nstopped\n")
    finally:
        os._exit(128 + number)


def _system_error(error: OSError) -> int:
    """Reports an error of the system that no other code has explained."""
    from minigpt.files import is_missing, why

    seen = f"{error.filename or 'the output'}: {why(error)}"
    if is_missing(error):
        return _failed(f"No such file or folder\n  got: {seen}", "Check the path.")
    if isinstance(error, PermissionError) and error.filename and not _may_read(error.filename):
        return _failed(f"No permission to read a file or folder\n  got: {seen}", "Ask its owner for permission.")
    return _failed(f"Cannot write\n  got: {seen}", "Free some space, or choose another place.")


def _may_read(path: str | bytes) -> bool:
    """Whether this user may read a file, or search the folder that is to contain it."""
    return os.access(path, os.R_OK) if os.path.exists(path) else os.access(os.path.dirname(path) or ".", os.X_OK)


def _missing(name: str, arguments: list[str] | None, remedy: str) -> int:
    """Reports an argument that is required, or an option that needs a value."""
    if name not in (sys.argv[1:] if arguments is None else arguments):
        return _failed(f"{name} is missing", remedy)
    return _failed(f"{name} needs a value", f'If the value begins with a dash: {name}="-like this". {remedy}')


def _failed(what: str, remedy: str) -> int:
    from minigpt.cli.console import styled

    return _print_last(styled(("error: ", "bold red"), f"{what}\n  {remedy}"), 2)


def _print_last(message: RenderableType, code: int) -> int:
    """Prints a last message, if possible, and returns the exit code."""
    from minigpt.cli.console import say

    say(message)
    return code


if __name__ == "__main__":
    main()
