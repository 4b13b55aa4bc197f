"""The benchmarks at a tiny size: every section runs, its report is whole, and the peers compute what we compute.

What a benchmark does in a process of its own is done here in this one, but for one test: starting Python and torch for
each point would take longer than all the rest. No speed is looked at.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.model.accounting import flops_per_token

FOLDER = Path(__file__).parent.parent / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """Imports a script as Python itself would start it: with its own folder on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


measuring, peers, same_loss = benchmark("measuring"), benchmark("peers"), benchmark("same_loss")
training, scaling, gpu = benchmark("training"), benchmark("scaling"), benchmark("gpu")
gpu_checks, gpu_heads = benchmark("gpu_checks"), benchmark("gpu_heads")


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs a script's `main` where it would start a process; what it raises is a failure, as it would be there."""
    started: list[list[str]] = []

    def here(script: str, *words: str, timeout: float | None = None) -> Any:
        started.append([Path(script).name, *words])
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                benchmark(Path(script).stem).main(list(words))
        except (Exception, SystemExit) as error:
            raise measuring.Failed(repr(error)) from error
        return json.loads(said.getvalue().strip().splitlines()[-1])

    for module in (training, scaling, gpu):
        monkeypatch.setattr(module, "apart", here)
    monkeypatch.setattr(torch, "compile", lambda model=None, **_: model)  # a compiler takes longer than all tests
    return started


# Parts


@pytest.fixture(scope="module")
def quiet_shape():
    return replace(measuring.TINY, n_layer=2, dropout=0.0)


@pytest.fixture(scope="module")
def ours(quiet_shape):
    torch.manual_seed(3)
    model = GPT(measuring.our_config(quiet_shape).model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # biases and norms too
    return model


@pytest.fixture(scope="module")
def batch(quiet_shape):
    ids = measuring.zipf_ids(quiet_shape.vocab_size, 3 * 33, seed=5).reshape(3, 33)
    return torch.from_numpy(ids[:, :-1]), torch.from_numpy(ids[:, 1:])


def our_loss(model: GPT, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return model(*batch) / batch[0].numel()


def as_encoder(model: GPT, shape: Any) -> Any:
    """torch's own encoder with our weights."""
    peer, ours = peers.Encoder(shape), model.state_dict()
    names = {"self_attn.in_proj_": "attn.c_attn.", "self_attn.out_proj.": "attn.c_proj."}
    names |= {"linear1.": "mlp.c_fc.", "linear2.": "mlp.c_proj.", "norm1.": "ln_1.", "norm2.": "ln_2."}
    names |= {"blocks.layers.": "h.", "blocks.norm.": "ln_f.", "words.": "wte.", "places.": "wpe.", "head.": "lm_head."}
    state = {}
    for name in peer.state_dict():
        source = name
        for theirs, our_name in names.items():
            source = source.replace(theirs, our_name)
        state[name] = ours[source]
    peer.load_state_dict(state)
    return peer


def as_hugging_face(model: GPT, shape: Any) -> Any:
    """transformers' GPT-2 with our weights: its matrices lie the other way round."""
    peer, ours = peers.HuggingFace(shape), model.state_dict()
    state = {}
    for name in peer.state_dict():
        tensor = ours[name.removeprefix("model.").removeprefix("transformer.")]
        turned = ".c_" in name and tensor.dim() == 2
        state[name] = tensor.T if turned else tensor
    peer.load_state_dict(state)
    return peer


@pytest.mark.parametrize("kind", ["nano", "encoder", "hf"])
def test_peers_compute_our_loss_and_gradient(kind, ours, batch, quiet_shape):
    make = {"nano": lambda model, _: same_loss.as_plain(model), "encoder": as_encoder, "hf": as_hugging_face}[kind]
    peer = make(ours, quiet_shape).train()
    theirs = peer(*batch)
    theirs.backward()
    ours.zero_grad()
    loss = our_loss(ours.train(), batch)
    loss.backward()
    most = 1e-6 if kind == "hf" else 1e-4  # the two others take GELU as it is, GPT-2 and we its form with tanh
    words = {"nano": "wte", "encoder": "words", "hf": "model.transformer.wte"}[kind]
    assert gpu_checks.distance(theirs, loss) < most
    assert gpu_checks.distance(peer.get_submodule(words).weight.grad, ours.wte.weight.grad) < most


def test_peers_have_our_number_of_parameters(ours, quiet_shape):
    count = sum(parameter.numel() for parameter in ours.parameters())
    for build in (peers.Encoder, peers.NanoStyle, peers.HuggingFace):
        assert sum(parameter.numel() for parameter in build(quiet_shape).parameters()) == count


def test_the_shape_is_that_of_the_preset():
    assert measuring.our_config(peers.Shape()).model == GPTConfig(vocab_size=50_257)
    assert measuring.training_flops(peers.Shape()) == sum(flops_per_token(GPTConfig(vocab_size=50_257)).values())


def test_ids_are_distributed_as_words_are():
    ids = measuring.zipf_ids(1000, 200_000, seed=0)
    assert ids.min() == 0
    assert ids.max() == 999
    counts = np.bincount(ids)
    assert counts[0] / counts[9] == pytest.approx(np.log(2) / np.log(11 / 10), rel=0.1)
    assert np.array_equal(ids, measuring.zipf_ids(1000, 200_000, seed=0))


@pytest.mark.parametrize("name", ["ours-bf16", "ours-f32", "encoder", "nano", "nano-bf16", "hf"])
def test_every_contestant_learns(name):
    work = measuring.Workload(measuring.TINY, batch=4, steps=20)
    found = measuring.train(measuring.CONTESTANTS[name], work)
    assert len(found["seconds"]) == 20
    assert len(found["losses"]) == 20 + measuring.WARM_UP
    assert sum(found["losses"][-5:]) < sum(found["losses"][:5])


def test_a_process_that_fails_says_why(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("import sys\nprint(1)\nraise ValueError('out of ' + sys.argv[1])")
    with pytest.raises(measuring.Failed, match=r"ValueError: out of luck"):
        measuring.apart(str(script), "luck")
    script.write_text("import time\ntime.sleep(60)")
    with pytest.raises(measuring.Failed, match="not done after"):
        measuring.apart(str(script), timeout=0.2)
    script.write_text("print('a word')\nprint('[1, 2]')")
    assert measuring.apart(str(script)) == [1, 2]


# Scripts


def test_training_side_by_side(tmp_path, in_this_process, monkeypatch, capsys):
    def broken(shape: Any) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setitem(training.CONTESTANTS, "nano-bf16", peers.Peer("broken", broken))
    words = ["--tiny", "--rounds", "3", "--steps", "2", "--only", "ours-bf16,ours-f32,nano,nano-bf16"]
    training.main([*words, "--out", str(tmp_path)])
    started = [words[2] for words in in_this_process if "--contestant" in words]
    assert started == ["ours-bf16", "ours-f32", "nano", "nano-bf16", *2 * ["ours-bf16", "ours-f32", "nano"]]
    found = json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert list(found["summary"]) == ["ours-bf16", "ours-f32", "nano"]
    assert "no compiler here" in found["failures"]["nano-bf16"]
    ratios = [r["ours-bf16"]["tokens_per_second"] / r["nano"]["tokens_per_second"] for r in found["rounds"]]
    ratio = found["summary"]["nano"]["ratios"]["ours-bf16"]
    assert (ratio["least"], ratio["median"], ratio["most"]) == pytest.approx(sorted(ratios))
    text = (tmp_path / "training.md").read_text("utf-8")
    assert all(
        words in text for words in ("Mini-GPT, float32", "nanoGPT style, float32", "no compiler here", "torch 2.")
    )
    assert text in capsys.readouterr().out
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_training_in_processes_of_their_own(tmp_path):
    words = ["--tiny", "--rounds", "1", "--steps", "1", "--only", "ours-f32"]
    training.main([*words, "--out", str(tmp_path)])
    found = json.loads((tmp_path / "training.json").read_text("utf-8"))["rounds"][0]
    assert found["machine"]["rates"]["float32"] > 0
    assert found["ours-f32"]["peak_memory"] is None or found["ours-f32"]["peak_memory"] > 50e6
    assert "Mini-GPT, float32: " in (tmp_path / "training.md").read_text("utf-8")


def test_an_unknown_contestant_is_named(capsys):
    with pytest.raises(SystemExit):
        training.main(["--only", "nano,mega"])
    assert "no such contestant: mega" in capsys.readouterr().err


def test_scaling(tmp_path, in_this_process):
    scaling.main(["--tiny", "--steps", "1", "--out", str(tmp_path)])
    points = json.loads((tmp_path / "scaling.json").read_text("utf-8"))["points"]
    assert {sweep: tuple(p["size"] for p in found) for sweep, found in points.items()} == scaling.TINY_SWEEPS
    assert all(p["tokens_per_second"] > 0 for found in points.values() for p in found)
    text = (tmp_path / "scaling.md").read_text("utf-8")
    assert all(meaning in text for meaning, _ in scaling.SWEEPS.values())
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_swept_is_what_changes():
    base = measuring.Workload()
    changed = {sweep: scaling.workload(sweep, sizes[-1], base) for sweep, (_, sizes) in scaling.SWEEPS.items()}
    assert changed["corpus"] == base
    assert changed["batch"] == replace(base, batch=32)
    assert changed["length"].tokens == base.tokens
    assert (changed["length"].shape.block_size, changed["length"].batch) == (2048, 2)
    assert changed["width"].shape == replace(base.shape, n_embd=512, n_inner=2048, n_head=16)
    for work in changed.values():
        assert list(measuring.our_config(work.shape).model.problems()) == []
        assert measuring.Workload.from_json(work.to_json()) == work


def test_gpu_script_on_a_cpu(tmp_path, in_this_process, data_folder):
    words = ["--device", "cpu", "--tiny", "--racers", "ours-bf16,nano-bf16-compiled,hf", "--out", str(tmp_path)]
    gpu.main([*words, "--data", str(data_folder)])
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert found["failures"] == {}
    assert list(found["sections"]) == list(gpu.SECTIONS)
    checks = [row for name in ("head-check", "model-check") for row in found["sections"][name][name]]
    assert len(checks) == 3 + len(gpu_checks.WAYS)
    assert all(row["verdict"] == "ok" for row in checks)
    heads = {row["title"]: row for row in found["sections"]["heads"]["heads"]}
    assert list(heads) == list(gpu_heads.HEADS)
    for row in heads.values():
        assert "failed" in row or row["off"] < 0.02
    assert heads["ours"]["loss"] == pytest.approx(heads["plain, all logits"]["loss"], rel=1e-3)
    assert heads["compiled chunks"]["loss"] == pytest.approx(heads["plain, all logits"]["loss"], rel=1e-3)
    assert found["sections"]["seed"]["seed"]["steps"] == 3
    text = (tmp_path / "gpu.md").read_text("utf-8")
    assert all(words in text for words in ("against float64", "head alone", "Preset seed: 3 of 3 steps"))


def test_gpu_script_goes_on_after_a_failure(tmp_path, in_this_process, monkeypatch):
    def broken(device: Any, tiny: bool) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(gpu_checks, "check_head", broken)
    gpu.main(["--device", "cpu", "--tiny", "--only", "head-check,heads", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert "illegal memory access" in found["failures"]["head-check: head-check"]
    assert list(found["sections"]) == ["heads"]
    assert "illegal memory access" in (tmp_path / "gpu.md").read_text("utf-8")


def test_gpu_script_leaves_out_what_no_time_is_left_for(tmp_path, in_this_process):
    gpu.main(["--device", "cpu", "--tiny", "--minutes", "0", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert found["sections"] == {}
    assert set(found["failures"].values()) == {"no time left"}


def test_a_wrong_gradient_is_noticed():
    good = gpu_checks.row("x", "bfloat16", loss=1e-6, gradient=1e-3)
    assert good["verdict"] == "ok"
    for loss, gradient in ((1e-6, 0.1), (0.1, 1e-3), (float("nan"), float("nan"))):
        assert "TOO FAR OFF" in gpu_checks.row("x", "bfloat16", loss, gradient)["verdict"]
