"""Exported folders, opened by transformers in a process that cannot import Mini-GPT: same ids, logits and texts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from minigpt import generate, load
from minigpt.config import Position
from minigpt.errors import ConfigError, DataError, MiniGPTError
from minigpt.export.exporting import ExportSource, export_run
from minigpt.export.formats import FORMATS, ExportFormat
from minigpt.export.tokenizer_out import WRITERS
from minigpt.tokenizers import TOKENIZER_TYPES, load_tokenizer
from tests.export.conftest import TEXT, make_run
from tests.tokenizers.conftest import GREETINGS, MANY_SCRIPTS

RUNS = {
    "gpt2": {},
    "bpe:400": {"position": "sinusoidal", "mlp": "relu2", "bias": False, "tie_word_embeddings": False},
    "char": {"position": "none", "n_layer": 1},
    "byte": {"bias": False},
}
"""Each kind of tokenizer once, each variant that GPT-2 can express once."""

TEXTS = [
    *GREETINGS,
    MANY_SCRIPTS,
    "",
    " ",
    "\n\n  \n\t x ",
    "a<|endoftext|>b",
    "<|unknown|>\ufffd",
    "\x00\x1b[31m\u2028",
]
PROMPTS = ["", "the cat", "the dog hears 12", "t"]

THEIRS = """
import json, sys
sys.modules["minigpt"] = None  # as where it is not installed
import numpy as np, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
texts, prompts, folders = json.load(open(sys.argv[1]))
for folder in folders:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    with torch.no_grad():
        logits = model(torch.tensor([ids[-1]])).logits
    def says(**inputs):
        with torch.no_grad():
            new = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        return [tokenizer.decode(row, skip_special_tokens=True) for row in new]
    alone = [says(**tokenizer(prompt, return_tensors="pt"))[0] if prompt else says()[0] for prompt in prompts]
    together = says(**tokenizer(prompts[1:], return_tensors="pt", padding=True))
    facts = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    settings = {name: getattr(model.generation_config, name) for name in facts}
    decoded = [tokenizer.decode(row) for row in ids]
    result = {"ids": ids, "decoded": decoded, "alone": alone, "together": together, "facts": facts}
    np.save(folder + ".npy", logits.numpy())
    json.dump({**result, "settings": settings, "size": len(tokenizer)}, open(folder + ".json", "w"))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """For each kind: our model and tokenizer, and what transformers made of their export."""
    place = tmp_path_factory.mktemp("exports")
    ours, folders = {}, {}
    for spec, shape in RUNS.items():
        name = spec.partition(":")[0]
        run = make_run(place / f"run-{name}", spec, TEXT + MANY_SCRIPTS[:300], **shape)
        folders[spec] = export_run(run, place / name)
        ours[spec] = load(run)
    task = place / "task.json"
    texts = [*TEXTS, TEXT[:40]]
    task.write_text(json.dumps([texts, PROMPTS, [str(folder) for folder in folders.values()]]))
    command, offline = [sys.executable, "-c", THEIRS, str(task)], {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, cwd=place, env=offline, capture_output=True)
    theirs = {
        spec: {**json.loads(folder.with_suffix(".json").read_text()), "logits": np.load(folder.with_suffix(".npy"))}
        for spec, folder in folders.items()
    }
    return {spec: (*ours[spec], folders[spec], theirs[spec]) for spec in RUNS}


@pytest.fixture(params=RUNS)
def case(request, opened):
    return opened[request.param]


def test_ids_are_equal_for_any_text(case):
    _, tokenizer, _, theirs = case
    for text, ids, decoded in zip(TEXTS, theirs["ids"], theirs["decoded"], strict=False):
        assert tokenizer.encode(text).tolist() == ids, text
        assert tokenizer.decode(ids) == decoded
    assert theirs["size"] == tokenizer.vocab_size


def test_logits_are_equal(case):
    model, _, _, theirs = case
    with torch.no_grad():
        mine = model(torch.tensor([theirs["ids"][-1]]))
    torch.testing.assert_close(mine, torch.from_numpy(theirs["logits"]), rtol=1e-5, atol=1e-5)


def test_greedy_texts_are_equal(case):
    model, tokenizer, _, theirs = case
    mine = [prompt + generate(model, tokenizer, prompt, max_new_tokens=12, temperature=0) for prompt in PROMPTS]
    assert theirs["alone"] == mine
    assert theirs["together"] == mine[1:]  # padded on the left, by the end-of-text id


def test_the_end_of_text_begins_ends_and_pads(case):
    _, tokenizer, _, theirs = case
    assert set(theirs["facts"].values()) == set(theirs["settings"].values()) == {tokenizer.end_of_text}


def test_mini_gpt_reads_the_exported_tokenizer(case):
    _, tokenizer, folder, _ = case
    assert load_tokenizer(folder).identity == tokenizer.identity


def test_every_type_of_tokenizer_can_be_exported():
    assert WRITERS.keys() == TOKENIZER_TYPES.keys() == {spec.partition(":")[0] for spec in RUNS}


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"position": "rope"}, ["model.position rope", "--model.position learned"]),
        ({"norm": "rmsnorm"}, ["model.norm rmsnorm", "--model.norm layernorm"]),
        ({"mlp": "swiglu"}, ["model.mlp swiglu", "--model.mlp gelu"]),
        ({"qk_norm": True}, ["model.qk_norm True", "--model.no-qk-norm"]),
        ({"n_kv_head": 2}, ["model.n_kv_head 2", "--model.n-kv-head 4"]),
        ({"position": "rope", "norm": "rmsnorm"}, ["model.position rope", "model.norm rmsnorm"]),
    ],
)
def test_variants_that_gpt2_lacks_are_refused_by_name(tmp_path, shape, words):
    run = make_run(tmp_path / "run", **shape)
    with pytest.raises(ConfigError) as caught:
        export_run(run, tmp_path / "out")
    for word in words:
        assert word in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_new_format_is_a_module_and_a_line(tmp_path, monkeypatch):
    def write(source: ExportSource, folder: Path) -> None:
        (folder / "names.txt").write_text("\n".join(source.model.state_dict()))

    monkeypatch.setitem(sys.modules, "my_format", SimpleNamespace(write=write))
    monkeypatch.setitem(FORMATS, "names", ExportFormat("people", "my_format"))
    out = export_run(make_run(tmp_path / "run"), tmp_path / "out", format="names")
    assert "wte.weight" in (out / "names.txt").read_text().splitlines()
    with pytest.raises(ConfigError, match=r"Unknown export format.*nams.*Did you mean names.*hf, names"):
        export_run(tmp_path / "run", tmp_path / "2", format="nams")


def test_each_position_is_either_exported_or_refused():
    assert set(get_args(Position)) == {"learned", "sinusoidal", "none", "rope"}


def test_nothing_is_overwritten(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="already exists"):
        export_run(run, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments, **settings):
        raise OSError(28, "No space left on device")

    run = make_run(tmp_path / "run")
    monkeypatch.setattr("minigpt.export.hugging_face.model_card", fail)
    with pytest.raises(MiniGPTError, match="full"):
        export_run(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_card_states_results_data_and_licence_but_no_paths(run_folder, text_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "a|b`c\nd")
    card = (export_run(run, tmp_path / "out", license="cc-by-4.0") / "README.md").read_text("utf-8")
    best = json.loads((run_folder / "checkpoints" / "best.json").read_text())
    assert 'license: "cc-by-4.0"' in card
    assert f"| validation loss | {best['val_loss']:.4f} nats per token |" in card
    assert "validation bits per byte" in card
    assert f"| sources | `{text_folder.name}` |" in card
    assert "# `a/b'c d`" in card
    assert str(tmp_path) not in card
    assert str(text_folder.parent) not in card
    other = export_run(run, tmp_path / "other", checkpoint="latest")
    assert 'license: "unknown"' in (other / "README.md").read_text("utf-8")
