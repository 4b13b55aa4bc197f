"""All commands, put together; each has a file of its own in this folder."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App

from minigpt.cli.config_options import given
from minigpt.cli.device import device_command
from minigpt.cli.doctor import doctor_command
from minigpt.cli.evaluate import evaluate_command
from minigpt.cli.explore import explore_command
from minigpt.cli.export import export_command
from minigpt.cli.generate import generate_command
from minigpt.cli.import_ import import_command
from minigpt.cli.numbers import check_numbers
from minigpt.cli.plan import plan_command
from minigpt.cli.prepare import prepare_command
from minigpt.cli.report import report_command
from minigpt.cli.resume import resume_command
from minigpt.cli.samples import samples_command
from minigpt.cli.train import train_command
from minigpt.cli.verify_resume import verify_resume_command
from minigpt.text_utils import shell_line, shell_word


def _version() -> str:
    from minigpt import __version__

    return __version__


app = App(
    name="minigpt",
    version=_version,
    config=[check_numbers],
    suppress_keyboard_interrupt=False,  # `main` handles it
    help="Train a small GPT from scratch, on the hardware you have, and see how it works.\n\n"
    "First time: `minigpt prepare pylib --out data/pylib --tokenizer bpe:4096`, then "
    "`minigpt train --data data/pylib --run runs/first --preset laptop`. "
    "For the options of a command: `minigpt train --help`.",
)
app.command(prepare_command, name="prepare")
for name, command in (("plan", plan_command), ("train", train_command)):
    app.command(App(name=name, config=[check_numbers, given]), name=name)
    app[name].default(command)
app.command(resume_command, name="resume")
app.command(verify_resume_command, name="verify-resume")
app.command(generate_command, name="generate")
app.command(samples_command, name="samples")
app.command(evaluate_command, name="evaluate")
app.command(explore_command, name="explore")
app.command(doctor_command, name="doctor")
app.command(report_command, name="report")
app.command(export_command, name="export")
app.command(import_command, name="import")
app.command(device_command, name="device")

MEANT_FOR = {
    **dict.fromkeys(("generate", "samples"), "Did you mean: --prompt {}"),
    **dict.fromkeys(("train", "plan", "verify-resume"), "Did you mean: --data {}"),
    "evaluate": "Did you mean: --text {}",
    "export": "Did you mean: --out {}",
    "import": "Did you mean: --run {}",
    "resume": "Did you mean: --epochs {}",
}
"""What an argument that no parameter takes was probably meant for."""


def explain_unused(command: str, words: Sequence[str]) -> tuple[str, str]:
    """Returns arguments that no parameter takes, as they are typed, and what they were probably meant for."""
    several = command == "evaluate"  # files; elsewhere it is one value without its quotes
    typed = shell_line(words) if several else shell_word(" ".join(words))
    return typed, MEANT_FOR.get(command, "").format(typed)
