"""What a hostile case is: a command, and the one thing that is wrong with it, chosen by seed and number.

Not here: the damages (damage.py), the sources (odd_sources.py), the options (odd_options.py), and what counts as
having gone wrong (hostile.py).
"""

from __future__ import annotations

import os
import random
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from trials.damage import damage
from trials.forking import CLOSED, Streams
from trials.odd_options import odd_options
from trials.odd_sources import odd_source

TINY = "--model.block-size 8 --model.n-layer 1 --model.n-head 2 --model.n-embd 16 --model.n-inner 32"
TINY += " --train.batch-size 4 --train.sample-prompts 1 --machine.device cpu --machine.precision float32"
OUT = "--out out --block-size 8 --tokenizer"
FORMS: dict[str, list[str]] = {
    "prepare": [
        *(f"prepare stories {OUT} {tokenizer}" for tokenizer in ("byte", "char", "bpe:270", "run", "data")),
        *(f"prepare {name} {OUT} byte" for name in ("records.jsonl", "table.parquet", "text.txt.gz", "table.csv")),
        *(f"prepare - {OUT} byte < {name}" for name in ("stories/00.txt", "records.jsonl")),
        f"prepare stories {OUT} byte --split-by sequence",
    ],
    "plan": [f"plan --data data {TINY}", "plan --init-from run --data data", "plan --data data --config settings.toml"],
    "train": [
        f"train --data data --run new --steps 2 {TINY}",
        "train --data data --run new --steps 2 --config settings.toml",
        "train --init-from run --run new --steps 2 --config settings.toml",
        "train --init-from imported --data data --run new --steps 2 --config settings.toml",
    ],
    "resume": ["resume run --steps 8", "resume run --steps 8 --data data", "resume run", "resume imported"],
    "verify-resume": ["verify-resume --data data --config settings.toml --steps 2 --kills 1"],
    "generate": [
        "generate run --max-new-tokens 4",
        "generate run --max-new-tokens 4 --json --num-samples 2",
        "generate run --max-new-tokens 4 --prompt-file prompts.txt",
        "generate run --max-new-tokens 4 --prompt-file prompts.jsonl --json",
        "generate run --max-new-tokens 4 --prompt-file - < prompts.txt",
        "generate run --max-new-tokens 4 --prompt cat --top-logprobs 5",
        "generate run --max-new-tokens 4 --prompt cat --num-beams 2 --checkpoint latest",
        "generate run --max-new-tokens 4 --prompt cat --best-of 2 --verbose --dtype int8",
        "generate run --max-new-tokens 4 --interactive < prompts.txt",
        "generate imported --max-new-tokens 4 --prompt cat",
    ],
    "samples": [
        "samples run",
        "samples run --json",
        "samples run --prompt cat --max-new-tokens 4",
        "samples run --checkpoint best --temperature 0",
        "samples imported --prompt cat --max-new-tokens 4",
    ],
    "evaluate": [
        "evaluate run",
        "evaluate run --json --split train --checkpoint latest",
        "evaluate run --data data --stride 4",
        "evaluate run --text stories",
        "evaluate run --text records.jsonl",
        "evaluate run --text=- < stories/00.txt",
        "evaluate imported --data data --plot out.png",
    ],
    "doctor": ["doctor run", "doctor run --json", "doctor run --data data", "doctor imported"],
    "report": ["report run", "report run --no-evaluate", "report run imported --no-evaluate --out page.html"],
    "export": [
        "export run --out out",
        "export run --out out --license mit --checkpoint latest",
        "export imported --out out",
    ],
    "import": [
        "import model --run new",
        "import shards --run new",
        "import model --run new --tokenizer run",
        "import model --run new --tokenizer byte",
    ],
    "device": ["device"],
}
OFTEN = {"plan": 3, "report": 2, "train": 6, "device": 1, "verify-resume": 0.2}
"""How often a command is tried, beside 10 for one that takes no time."""


@dataclass
class Case:
    """A command, and what is wrong with it.

    Attributes:
        number: decides everything else, with the seed.
        kind: damage, option, source or stream.
        arguments: what stands behind `minigpt`.
        what: what is wrong, in words.
        where: the file, option, kind of source or stream, for the count of what was tried.
        ways: in which ways it is damaged.
        streams: where its streams lead.
    """

    number: int
    kind: str = ""
    arguments: list[str] = field(default_factory=list)
    what: str = ""
    where: str = ""
    ways: list[str] = field(default_factory=list)
    streams: Streams = field(default_factory=Streams)

    @property
    def command(self) -> str:
        """Its name."""
        return self.arguments[0]

    def shell(self) -> str:
        """Returns it as a line for a shell that knows $'...'."""
        streams = [("<", self.streams.stdin, os.devnull), (">", self.streams.stdout, HEARD[0])]
        streams.append(("2>", self.streams.stderr, HEARD[1]))
        ends = [
            f"{sign}&-" if place == CLOSED else f"{sign} {place}" for sign, place, usual in streams if place != usual
        ]
        return " ".join(["minigpt", *map(quoted, self.arguments), *ends])


HEARD = ("../out", "../err")
"""Where standard output and standard error lead, seen from the case's folder, unless they are what is wrong."""


def quoted(word: str) -> str:
    """Returns a word as a shell takes it, whatever bytes it holds."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(plain)}'"


WAITED_FOR = {"fifo"}
"""Prompts may come through a pipe, as in `--prompt-file <(command)`: nobody writing yet is no damage."""


def make_case(seed: int, number: int, folder: Path) -> Case:
    """Chooses a case, and puts what is wrong with it into a folder that is whole."""
    chance = random.Random(f"{seed}/{number}")
    names = list(FORMS)
    name = chance.choices(names, [OFTEN.get(name, 10) for name in names])[0]
    form, _, stdin = chance.choice(FORMS[name]).partition(" < ")
    case = Case(number, arguments=form.split())
    case.streams = Streams(stdin=stdin or os.devnull, stdout=HEARD[0], stderr=HEARD[1])
    reads_text = name in ("prepare", "evaluate")
    weights = [40, 26, 30, 4] if reads_text else [70, 26, 0, 4]
    case.kind = chance.choices(["damage", "option", "source", "stream"], weights)[0]
    if name == "device" and case.kind == "damage":
        case.kind = "option"
    {"damage": _damage, "option": _option, "source": _source, "stream": _stream}[case.kind](chance, case, folder)
    return case


def _damage(chance: random.Random, case: Case, folder: Path) -> None:
    """Damages one or two files among those that the command is given; of a run, its data set may be meant too."""
    given = [word for word in [*case.arguments, case.streams.stdin] if (folder / word).exists() and word[0] != "/"]
    if "run" in given and "--data" not in given and case.command in ("evaluate", "report", "resume", "doctor"):
        given.append("data")
    damaged: set[str] = set()
    for _ in range(chance.choice([1, 1, 1, 2])):
        root = folder / chance.choice(given)
        within = [root, *sorted(root.rglob("*"))] if root.is_dir() else [root]
        files = [path for path in within if path.is_file() and not path.is_symlink() and str(path) not in damaged]
        folders = [path for path in within if path.is_dir() and not path.is_symlink()]
        if not files:
            return
        file = chance.choice(folders if folders and chance.random() < 0.04 else files)
        way, what = damage(chance, file, WAITED_FOR if file.name.startswith("prompts") else ())
        case.ways.append(way)
        damaged.add(str(file))
        place = file.relative_to(folder).as_posix()
        case.what += f"{'; ' if case.what else ''}{place}: {what}"
        case.where = place
    if case.streams.stdin != os.devnull and not (folder / case.streams.stdin).is_file():
        case.streams = replace(case.streams, stdin=os.devnull)  # a shell would not start the command at all


def _option(chance: random.Random, case: Case, folder: Path) -> None:
    case.arguments, case.where = odd_options(chance, case.arguments, folder)
    case.what = "options"


def _source(chance: random.Random, case: Case, folder: Path) -> None:
    """Reads something odd by name, in a folder, or from standard input."""
    place, case.what = odd_source(chance, folder)
    case.where = case.what.partition(":")[0]
    name = f"./{place.name}" if place.name.startswith(("-", "hf:")) else place.name
    if place.is_file() and chance.random() < 0.25:
        case.streams, name = replace(case.streams, stdin=place.name), "-"
        case.what += ", standard input"
    if case.command == "evaluate":
        case.arguments = ["evaluate", "run", f"--text={name}"]
    else:
        tokenizer = chance.choice(["byte", "char", "bpe:270", "bpe:300", "run"])
        case.arguments = ["prepare", name, *OUT.split(), tokenizer]
        case.arguments += chance.choice(
            [[], [], ["--split-by", "sequence"], ["--pattern", "*"], ["--text-column", "Text"]]
        )


def _stream(chance: random.Random, case: Case, folder: Path) -> None:
    """Closes streams, or leads them to a full device."""
    ways = {"stdin": [CLOSED, "fixed.bin"], "stdout": [CLOSED, "/dev/full"], "stderr": [CLOSED, "/dev/full"]}
    chosen = {name: chance.choice(ways[name]) for name in chance.sample(sorted(ways), chance.choice([1, 1, 2, 3]))}
    (folder / "fixed.bin").write_bytes(bytes(range(256)))
    case.streams = replace(case.streams, **chosen)
    case.where = case.what = ", ".join(f"{name} {place}" for name, place in sorted(chosen.items()))
    if chance.random() < 0.5:
        case.arguments = [word if word != "run" else "nope" for word in case.arguments]
