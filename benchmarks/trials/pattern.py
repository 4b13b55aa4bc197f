"""What hostile cases take apart: texts, a data set, runs, models to import, prompts, settings. All of it tiny.

Not here: the damages (damage.py).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path

from trials.cases import TINY
from trials.forking import Child, Streams, be_quiet, import_told, tell_modules, warm_up
from trials.odd_sources import prose
from trials.workshop import MADE_IN, WITH_PATHS, Entry


@cache
def the_pattern() -> dict[str, Entry]:
    """Makes this process ready to be forked, and all that is taken apart; once, and before torch is imported.

    Returns:
        Entries by path. Absolute paths in them begin with `MADE_IN`.
    """
    be_quiet()
    warm_up()
    with tempfile.TemporaryDirectory(prefix="minigpt-pattern-") as place:
        folder = Path(place).resolve() / "work"
        for made in (folder, folder.with_name("tmp")):
            made.mkdir()
        pattern = make_pattern(folder)
    for name in WITH_PATHS:
        content, mode = pattern[name]
        pattern[name] = (content or b"").replace(os.fsencode(folder), MADE_IN), mode
    return pattern


def make_pattern(folder: Path) -> dict[str, Entry]:
    """Makes everything that cases take apart, with the commands themselves; returns the entries by path."""
    import pyarrow
    import pyarrow.parquet

    chance = random.Random(0)
    (folder / "stories").mkdir()
    for number in range(11):
        (folder / "stories" / f"{number:02d}.txt").write_text(prose(chance, 12))
    texts = [prose(chance, 12) for _ in range(12)]
    (folder / "records.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "table.csv").write_text("id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts)))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "table.parquet")
    (folder / "text.txt.gz").write_bytes(gzip.compress("".join(texts).encode()))
    (folder / "prompts.txt").write_text("The cat\nA dog\n\nx\n")
    (folder / "prompts.jsonl").write_text('{"prompt": "The cat"}\n{"prompt": "A dog"}\n')
    for line in (
        "prepare stories --out data --block-size 8 --tokenizer bpe:280",
        f"train --data data --run run --steps 6 --train.validate-every 3 --train.log-every 1 {TINY}",
        "report run --out page.html",
        "export run --out model",
        "import model --run imported",
    ):
        warmed(line, folder)
    make_shards(folder / "model", folder / "shards")
    make_dump(folder / "run")
    for line in (
        *("evaluate run", "doctor run", "samples run", "plan --data data --steps 1"),
        *("generate run --max-new-tokens 1", "generate run --max-new-tokens 1 --num-beams 2"),
    ):
        warmed(line, folder)  # it makes nothing
    (folder / "page.html").unlink()
    (folder / "settings.toml").write_bytes((folder / "run" / "config.toml").read_bytes())
    return {
        path.relative_to(folder).as_posix(): (None if path.is_dir() else path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def warmed(line: str, folder: Path) -> None:
    """Runs a command in a fork, and imports here what it imported, so that later forks find it."""
    out, err, modules = (folder / name for name in ("out.txt", "err.txt", "modules.txt"))
    streams = Streams(stdout=str(out), stderr=str(err))
    ended = Child(line.split(), folder, streams, after=partial(tell_modules, modules)).wait(120)
    assert ended.code == 0, f"{line}: {ended}\n{err.read_text()}"
    import_told(modules)
    for file in (out, err, modules):
        file.unlink()


def make_shards(model: Path, out: Path) -> None:
    """Writes a model's weights as two files and their index."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, out)
    tensors = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = out / f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file.name)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def make_dump(run: Path) -> None:
    """Leaves a dump of a step whose weights are not finite, as training does."""
    import torch

    from minigpt.runs import checkpoint
    from minigpt.runs.folder import RunFolder

    folder = RunFolder.open(run)
    weights = checkpoint.load_tensors(folder.find_checkpoint("latest"), "model")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    ids = torch.ones((4, 8), dtype=torch.int64)
    checkpoint.save(
        run / "dumps" / "step-000000005",
        {"model": weights, "batch": {"x": ids, "y": ids.clone()}},
        {"step": 5, "seed": 1},
    )
