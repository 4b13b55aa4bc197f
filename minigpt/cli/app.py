"""The command line: one file a verb beside this one; here they are joined, and errors become messages.

A mistake that the user can mend is printed without a traceback and ends with exit code 2. Anything else is a bug of
ours, and keeps its traceback.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.text import Text

from minigpt.cli.device import device_command
from minigpt.cli.doctor import doctor_command
from minigpt.cli.evaluate import evaluate_command
from minigpt.cli.export import export_command
from minigpt.cli.generate import generate_command
from minigpt.cli.import_ import import_command
from minigpt.cli.plan import plan_command
from minigpt.cli.prepare import prepare_command
from minigpt.cli.replay import replay_command
from minigpt.cli.report import report_command
from minigpt.cli.resume import resume_command
from minigpt.cli.samples import samples_command
from minigpt.cli.settings import given
from minigpt.cli.train import train_command
from minigpt.cli.verify_resume import verify_resume_command
from minigpt.errors import MiniGPTError


def _version() -> str:
    from minigpt import __version__

    return __version__


app = App(
    name="minigpt",
    version=_version,
    suppress_keyboard_interrupt=False,  # `main` says that it stopped
    help="Train a small GPT from scratch, on the hardware you have, and see how it works.\n\n"
    "First time: `minigpt prepare pylib --out data/pylib --tokenizer bpe:4096`, then "
    "`minigpt train --data data/pylib --run runs/first --preset laptop`. "
    "Each command explains itself: `minigpt train --help`.",
)
app.command(prepare_command, name="prepare")
for name, command in (("plan", plan_command), ("train", train_command)):
    app.command(App(name=name, config=[given]), name=name)
    app[name].default(command)
app.command(resume_command, name="resume")
app.command(verify_resume_command, name="verify-resume")
app.command(replay_command, name="replay")
app.command(generate_command, name="generate")
app.command(samples_command, name="samples")
app.command(evaluate_command, name="evaluate")
app.command(doctor_command, name="doctor")
app.command(report_command, name="report")
app.command(export_command, name="export")
app.command(import_command, name="import")
app.command(device_command, name="device")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 when all went well, 2 for a mistake of the user's, 130 after Ctrl-C.

    Args:
        arguments: what was typed behind `minigpt`; the process's own when left out.
    """
    gc.set_threshold(50_000)  # importing torch makes objects that stay, and looking for waste among them takes 0.15 s
    atexit.register(gc.freeze)  # the interpreter's last collection would walk through all of torch, for 0.4 s
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may lack a letter of the model's text; a file or a pipe gets all of them on any system.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
    except MiniGPTError as error:
        _fail(f"{error.what}" + ("" if error.seen is None else f"\n  seen: {error.seen}"), error.remedy)
    except CycloptsError as error:
        command = " ".join(error.command_chain or ())
        _fail(str(error), f"See: {' '.join(filter(None, ('minigpt', command, '--help')))}")
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _fail(
            f"The system refused to read or write\n  seen: {error}", "Check the disk's room, the path and its rights."
        )
    except (MemoryError, RuntimeError) as error:
        from minigpt.device import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _fail(
            f"There is not enough memory\n  seen: {str(error).splitlines()[0] if str(error) else 'MemoryError'}",
            "Try a smaller --train.batch-size, or --train.accumulate 2, 4, ... with the same one.",
        )
    sys.exit(result if isinstance(result, int) else 0)


def _fail(what: str, remedy: str) -> None:
    message = Text.assemble(("error: ", "bold red"), f"{what}\n  {remedy}")
    Console(stderr=True, soft_wrap=True).print(message)
    sys.exit(2)


if __name__ == "__main__":
    main()
