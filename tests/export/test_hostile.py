"""Hostile and broken checkpoints: refused by name, never executed, never half-loaded, and no run is left behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt.cli.app import main
from minigpt.errors import CheckpointError, MiniGPTError, RunError
from minigpt.export.importing import import_hugging_face

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NAME = "transformer.h.1.mlp.c_fc.weight"


@pytest.fixture
def folder(plain, tmp_path) -> Path:
    """A good checkpoint, to be damaged; next to where the run would be."""
    return shutil.copytree(plain, tmp_path / "hf")


def refuse(folder: Path, words: str) -> None:
    """The checkpoint is refused with these words, and leaves nothing."""
    with pytest.raises(CheckpointError, match=words):
        import_hugging_face(folder, folder.parent / "run", tokenizer="byte")
    assert [path.name for path in folder.parent.iterdir() if path != folder] == []


def with_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return damage


def one_number(value: float, dtype: torch.dtype = torch.float32) -> Callable[[Path], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME] = tensors[NAME].to(dtype)
        tensors[NAME][3, 5] = value

    return with_tensors(change)


TENSORS = {
    "missing": (with_tensors(lambda t: t.pop(NAME)), r"missing.*h\.1\.mlp\.c_fc\.weight \(16, 64\)"),
    "surplus": (with_tensors(lambda t: t.update(extra=torch.zeros(1))), "Unexpected tensor.*'extra'"),
    "another head": (
        with_tensors(lambda t: t.update({"score.weight": torch.zeros(2, 16)})),
        r"Unexpected.*score\.weight",
    ),
    "a layer more": (
        with_tensors(lambda t: t.update({NAME.replace("h.1", "h.2"): torch.zeros(16, 64)})),
        r"Unexpected.*h\.2\.mlp",
    ),
    "its transpose": (with_tensors(lambda t: t.update({NAME: t[NAME].t().contiguous()})), r"c_fc\.weight \(64, 16\)"),
    "another rank": (with_tensors(lambda t: t.update({NAME: torch.zeros(16, 64, 1)})), r"c_fc\.weight \(16, 64, 1\)"),
    "nothing": (with_tensors(lambda t: t.clear()), r"missing.*wte\.weight"),
    "not a number": (one_number(float("nan")), r"not finite.*h\.1\.mlp\.c_fc\.weight"),
    "infinity": (one_number(float("-inf")), r"not finite.*h\.1\.mlp\.c_fc\.weight"),
    "a half's infinity": (one_number(1e6, torch.float16), r"not finite.*h\.1\.mlp\.c_fc\.weight"),
    "integers": (with_tensors(lambda t: t.update({NAME: t[NAME].to(torch.int64)})), r"c_fc\.weight 'I64'"),
    "doubles": (with_tensors(lambda t: t.update({NAME: t[NAME].double()})), r"c_fc\.weight 'F64'"),
    "quarters": (with_tensors(lambda t: t.update({NAME: t[NAME].to(torch.float8_e4m3fn)})), r"c_fc\.weight 'F8_E4M3'"),
    "a name twice": (
        with_tensors(lambda t: t.update({"wte.weight": torch.zeros(257, 16)})),
        r"occurs twice.*wte\.weight",
    ),
    "its head": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
        ),
        r"missing.*lm_head\.weight \(257, 16\)",
    ),
    "an untied head": (with_tensors(lambda t: t.update({"lm_head.weight": torch.zeros(257, 16)})), "ties them"),
    "a head too small": (with_tensors(lambda t: t.update({"lm_head.weight": torch.zeros(5, 16)})), "ties them"),
}


@pytest.mark.parametrize(("damage", "words"), TENSORS.values(), ids=TENSORS)
def test_a_wrong_tensor_is_named(folder, damage, words):
    damage(folder)
    refuse(folder, words)


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_under_a_safetensors_name_is_never_opened(folder, protocol):
    target = folder / "exploded"
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(target), protocol=protocol))
    refuse(folder, "(?i)never opened|damaged, or not a safetensors|too long")
    assert not target.exists()


def test_torchs_own_pickles_are_never_opened(folder):
    target = folder / "exploded"
    torch.save(Bomb(target), folder / WEIGHTS)
    refuse(folder, "A pickle named safetensors")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    refuse(folder, r"never opened.*pytorch_model\.bin.*safe_serialization")
    assert not target.exists()


def header(content: bytes, claims: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(content) if claims is None else claims) + content + data


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> bytes:
    return json.dumps({"wte.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


FILES = {
    "empty": b"",
    "short": b"\x01\x02",
    "no header": header(b"", 0),
    "a header beyond the end": header(b"{}", 500),
    "an overlong header": header(b"{}", 10**9),
    "the longest header": header(b"{}", 2**64 - 1),
    "a header that is not JSON": header(b"[[[[[["),
    "a deep header": header(b'{"a":' * 50_000),
    "a list": header(b"[]"),
    "data missing": header(tensor()),
    "data left over": header(tensor(), data=bytes(9)),
    "offsets that overlap nothing": header(tensor(offsets=(8, 0)), data=bytes(8)),
    "negative offsets": header(tensor(offsets=(-8, 0)), data=bytes(8)),
    "a shape that is not the data's": header(tensor(shape=(3,)), data=bytes(8)),
    "a shape beyond counting": header(tensor(shape=(2**40, 2**40)), data=bytes(8)),
    "a negative shape": header(tensor(shape=(-2,)), data=bytes(8)),
    "a shape of words": header(tensor(shape=("two",)), data=bytes(8)),
    "an unknown format": header(tensor(dtype="OBJECT"), data=bytes(8)),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_damaged_file_is_refused(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    refuse(folder, "(?i)header is too long|damaged, or not a safetensors file")


def test_a_file_cut_anywhere_is_refused(folder):
    content = (folder / WEIGHTS).read_bytes()
    for place in (1, 7, 8, 9, 500, len(content) // 2, len(content) - 1):
        (folder / WEIGHTS).write_bytes(content[:place])
        refuse(folder, "(?i)damaged, or not a safetensors file")


def test_only_regular_files_are_read(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    refuse(folder, "it is a folder")
    if hasattr(os, "mkfifo"):
        (folder / WEIGHTS).rmdir()
        os.mkfifo(folder / WEIGHTS)
        refuse(folder, "not a regular file")


@pytest.fixture
def sharded(make_gpt2, tmp_path) -> Path:
    make_gpt2().save_pretrained(tmp_path / "hf", max_shard_size="10KB")
    return tmp_path / "hf"


def reindex(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    [
        "../elsewhere.safetensors",
        "/etc/passwd.safetensors",
        "sub/model.safetensors",
        "..\\elsewhere.safetensors",
        "C:\\elsewhere.safetensors",
        "C:elsewhere.safetensors",
        "..",
        "",
        "pytorch_model.bin",
        "\x1b[31mred.safetensors/",
    ],
)
def test_an_index_cannot_name_files_elsewhere(sharded, plain, name):
    shutil.copy(plain / WEIGHTS, sharded.parent / "elsewhere.safetensors")
    reindex(sharded, lambda index: index["weight_map"].update({NAME: name}))
    with pytest.raises(CheckpointError, match="must name safetensors files in its own folder") as caught:
        import_hugging_face(sharded, sharded.parent / "run", tokenizer="byte")
    assert "\x1b" not in str(caught.value)
    assert not (sharded.parent / "run").exists()


INDICES = {
    "no map": (lambda index: index.pop("weight_map"), "no weight_map"),
    "a list": (lambda index: index.update(weight_map=[]), "no weight_map"),
    "numbers": (lambda index: index["weight_map"].update({NAME: 3}), "no weight_map"),
    "a tensor in no file": (
        lambda index: index["weight_map"].update(extra=index["weight_map"][NAME]),
        "missing.*extra",
    ),
    "a tensor elsewhere": (
        lambda index: index["weight_map"].update({NAME: index["weight_map"]["transformer.wte.weight"]}),
        r"does not match.*c_fc\.weight",
    ),
    "a tensor omitted": (lambda index: index["weight_map"].pop(NAME), r"does not match.*c_fc\.weight"),
    "a shard that is not there": (
        lambda index: index["weight_map"].update({NAME: "gone.safetensors"}),
        "no such file|does not match",
    ),
    "nothing": (lambda index: index.update(weight_map={}), r"missing.*wte\.weight"),
}


@pytest.mark.parametrize(("change", "words"), INDICES.values(), ids=INDICES)
def test_a_wrong_index_is_refused(sharded, change, words):
    reindex(sharded, change)
    refuse(sharded, words)


def test_a_tensor_in_two_shards_is_refused(sharded):
    one, other = sorted(sharded.glob("*.safetensors"))[:2]
    save_file({**load_file(other), **load_file(one)}, other)
    refuse(sharded, "does not match its files")


def test_a_huge_index_or_config_is_not_read(sharded, monkeypatch):
    monkeypatch.setattr("minigpt.export.safe_load.MAX_JSON", 100)
    refuse(sharded, r"Cannot read config\.json.*more than 100 bytes")


CONFIGS = {
    "another model": ({"model_type": "llama"}, "model_type 'llama'"),
    "no model": ({"model_type": None}, "model_type None"),
    "code": ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map.*evil"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "pruned": ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
    "exact gelu": ({"activation_function": "gelu"}, "activation_function 'gelu'.*can be gelu_new"),
    "relu": ({"activation_function": "relu"}, "activation_function 'relu'"),
    "epsilon": ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06.*can be 1e-05"),
    "unscaled": ({"scale_attn_weights": False}, "scale_attn_weights False"),
    "scaled by layer": ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
    "cross attention": ({"add_cross_attention": True}, "add_cross_attention True"),
    "tied a little": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings 'yes'"),
    "words": ({"n_layer": "two"}, "n_layer 'two'.*whole numbers"),
    "a truth": ({"n_layer": True}, "n_layer True"),
    "none": ({"n_embd": 0}, "n_embd 0"),
    "negative": ({"n_inner": -4}, "n_inner -4"),
    "fractions": ({"n_positions": 4.5}, "n_positions 4.5"),
    "too large": ({"n_embd": 2**30}, "n_embd 1073741824"),
    "heads": ({"n_head": 3}, "n_embd 16, n_head 3"),
    "heads under another name": ({"num_attention_heads": 2}, "n_head 4, num_attention_heads 2"),
    "dropout": ({"resid_pdrop": 1.5}, "resid_pdrop 1.5"),
    "dropout that is none": ({"resid_pdrop": None}, "resid_pdrop None"),
    "many layers": ({"n_layer": 2**24}, r"missing.*h\.2\.ln_1\.weight"),
    "large layers": ({"n_embd": 2**24}, r"wte\.weight \(257, 16\), expected \(257, 16777216\)"),
    "several": ({"activation_function": "silu", "layer_norm_epsilon": 0}, "activation.*layer_norm_epsilon"),
    "a novel": ({"activation_function": "\x1b[31m" + "x" * 10**5}, r"'\\x1b\[31mxxx"),
}


@pytest.mark.parametrize(("changes", "words"), CONFIGS.values(), ids=CONFIGS)
def test_unsupported_settings_are_named(folder, changes, words):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    refuse(folder, words)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, "\xff"])
def test_config_must_be_a_json_object(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refuse(folder, r"Cannot read config\.json")


def test_missing_files_are_named(folder):
    (folder / WEIGHTS).unlink()
    refuse(folder, "No weights found")
    (folder / "config.json").unlink()
    refuse(folder, r"config\.json not found")
    with pytest.raises(RunError, match="Folder not found"):
        import_hugging_face(folder / "nowhere", folder.parent / "run")


def test_memory_is_checked_before_the_first_tensor_is_read(folder, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr("minigpt.export.importing.read_tensor", lambda stored: pytest.fail("it was read"))
    refuse(folder, "Not enough memory")


def test_control_characters_do_not_reach_the_terminal(folder, capsys):
    with_tensors(lambda tensors: tensors.update({"\x1b[31m[red]evil[/red]": torch.zeros(1)}))(folder)
    with pytest.raises(SystemExit) as end:
        main(["import", str(folder), "--run", str(folder.parent / "run"), "--tokenizer", "byte"])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert r"'\x1b[31m[red]evil[/red]'" in err
    assert "\x1b" not in err


def test_a_refusal_has_all_parts_of_a_message(folder):
    (folder / WEIGHTS).write_bytes(b"junk")
    with pytest.raises(MiniGPTError) as caught:
        import_hugging_face(folder, folder.parent / "run", tokenizer="byte")
    assert caught.value.what
    assert caught.value.remedy
    assert str(folder) in str(caught.value.got)
