"""Folders that transformers wrote, as runs: same logits, same ids, and everything a run can do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from minigpt import generate, load, resume
from minigpt.data import prepare
from minigpt.errors import DataError, RunError, TokenizerError
from minigpt.export.exporting import export_run
from minigpt.export.gpt2_names import TANH_GELUS
from minigpt.export.importing import import_hugging_face
from minigpt.runs.folder import RunFolder
from minigpt.tokenizers import make_tokenizer
from tests.export.conftest import TEXT, make_run

IDS = torch.randint(257, (2, 40), generator=torch.Generator().manual_seed(0))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        out = model(IDS)
    return getattr(out, "logits", out)


def assert_same(run: Path, theirs: GPT2LMHeadModel) -> None:
    torch.testing.assert_close(logits(load(run)[0]), logits(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tie_word_embeddings": False},
        {"n_inner": 24, "activation_function": "relu2"},
        {"reorder_and_upcast_attn": True},
        *({"activation_function": name} for name in TANH_GELUS),
    ],
    ids=str,
)
def test_logits_are_equal(make_gpt2, tmp_path, settings):
    theirs = make_gpt2(**settings)
    theirs.save_pretrained(tmp_path / "hf")
    made = import_hugging_face(tmp_path / "hf", tmp_path / "run", tokenizer="byte")
    assert_same(tmp_path / "run", theirs)
    assert made.parameters == sum(p.numel() for p in theirs.parameters())
    assert made.notes == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_numbers_become_float32(make_gpt2, tmp_path, dtype):
    theirs = make_gpt2().to(dtype)
    theirs.save_pretrained(tmp_path / "hf")
    import_hugging_face(tmp_path / "hf", tmp_path / "run", tokenizer="byte")
    assert_same(tmp_path / "run", theirs.float())
    assert {p.dtype for p in load(tmp_path / "run")[0].parameters()} == {torch.float32}


def test_shards_are_joined(make_gpt2, tmp_path):
    theirs = make_gpt2()
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="10KB")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 2
    import_hugging_face(tmp_path / "hf", tmp_path / "run", tokenizer="byte")
    assert_same(tmp_path / "run", theirs)


def test_the_bare_model_and_an_old_file_are_the_same_model(make_gpt2, plain, tmp_path):
    theirs = make_gpt2()
    bare = GPT2Model(theirs.config)
    bare.load_state_dict(theirs.transformer.state_dict())
    bare.save_pretrained(tmp_path / "bare")
    import_hugging_face(tmp_path / "bare", tmp_path / "bare-run", tokenizer="byte")
    assert_same(tmp_path / "bare-run", theirs)

    old = shutil.copytree(plain, tmp_path / "old")
    tensors = load_file(old / "model.safetensors")
    for layer in range(2):  # buffers that older files hold, and the tied projection once more
        tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 48, 48, dtype=torch.uint8)
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, old / "model.safetensors")
    import_hugging_face(old, tmp_path / "old-run", tokenizer="byte")
    assert_same(tmp_path / "old-run", theirs)


def test_padding_beyond_the_tokenizers_ids_is_kept_and_noted(make_gpt2, tmp_path):
    theirs = make_gpt2(vocab_size=320)
    theirs.save_pretrained(tmp_path / "hf")
    made = import_hugging_face(tmp_path / "hf", tmp_path / "run", tokenizer="byte")
    assert "63 ids more than its tokenizer" in made.notes[0]
    assert_same(tmp_path / "run", theirs)
    assert RunFolder.open(tmp_path / "run").origin()["notes"] == list(made.notes)
    again = export_run(tmp_path / "run", tmp_path / "again")
    assert GPT2LMHeadModel.from_pretrained(again).generation_config.suppress_tokens == list(range(257, 320))
    assert torch.equal(logits(GPT2LMHeadModel.from_pretrained(again)), logits(theirs))


def test_other_dropout_and_another_end_are_noted(make_gpt2, tmp_path):
    make_gpt2(embd_pdrop=0.3, eos_token_id=7).save_pretrained(tmp_path / "hf")
    made = import_hugging_face(tmp_path / "hf", tmp_path / "run", tokenizer="byte")
    assert len(made.notes) == 2
    assert "resid_pdrop's 0.1" in made.notes[0]
    assert "id 7" in made.notes[1]


@pytest.mark.parametrize("spec", ["gpt2", "bpe:300", "char", "byte"])
def test_an_export_comes_back(tmp_path, spec):
    run = make_run(tmp_path / "run", spec, tie_word_embeddings=False)
    export_run(run, tmp_path / "hf")
    import_hugging_face(tmp_path / "hf", tmp_path / "back")
    (model, tokenizer), (again, same) = load(run), load(tmp_path / "back")
    assert same.identity == tokenizer.identity
    assert same.spec == tokenizer.spec
    ids = IDS % tokenizer.vocab_size
    assert torch.equal(model(ids), again(ids))


@pytest.fixture
def imported(plain, tmp_path):
    import_hugging_face(plain, tmp_path / "imported", tokenizer="byte")
    return tmp_path / "imported"


def test_an_imported_run_generates_as_transformers_does(imported, make_gpt2):
    theirs = make_gpt2()
    model, tokenizer = load(imported)
    prompt = tokenizer.encode("the cat ").tolist()
    with torch.no_grad():
        new = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=256)[0]
    text = generate(model, tokenizer, "the cat ", max_new_tokens=20, temperature=0)
    assert text == tokenizer.decode(new[len(prompt) :].tolist())


def test_an_imported_run_has_no_data_and_nothing_to_resume(imported, data_folder):
    folder = RunFolder.open(imported)
    with pytest.raises(DataError, match="--data"):
        folder.open_data()
    assert folder.open_data(data_folder).tokenizer.spec == "byte"
    with pytest.raises(RunError, match="train --init-from"):
        resume(imported)
    with pytest.raises(RunError, match="train --init-from"):
        resume(imported, data=data_folder)


def test_a_failed_import_leaves_nothing(plain, imported, tmp_path, monkeypatch):
    before = sorted(imported.rglob("*"))
    with pytest.raises(RunError, match="already exists"):
        import_hugging_face(plain, imported, tokenizer="byte")
    assert before == sorted(imported.rglob("*"))

    def fail(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minigpt.runs.checkpoint.save_file", fail)
    with pytest.raises(RunError, match=r"cannot be created \(got: .*other: the disk is full\)"):
        import_hugging_face(plain, tmp_path / "other", tokenizer="byte")
    assert [path.name for path in tmp_path.iterdir()] == ["imported"]


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (None, ["No tokenizer", "--tokenizer"]),
        ("char", ["made from a text", "char"]),
        ("gpt2", ["50,257", "the model 257"]),
    ],
)
def test_a_tokenizer_that_is_not_the_models_is_refused(plain, tmp_path, tokenizer, words):
    with pytest.raises(TokenizerError) as caught:
        import_hugging_face(plain, tmp_path / "run", tokenizer=tokenizer)
    for word in words:
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_much_smaller_tokenizer_is_refused(make_gpt2, tmp_path):
    make_gpt2(vocab_size=2000).save_pretrained(tmp_path / "hf")
    with pytest.raises(TokenizerError, match="byte has 257 ids, the model 2,000"):
        import_hugging_face(tmp_path / "hf", tmp_path / "run", tokenizer="byte")


def test_a_run_names_the_tokenizer_too(plain, run_folder, tmp_path):
    made = import_hugging_face(plain, tmp_path / "run", tokenizer=str(run_folder))
    assert made.tokenizer == "byte"


def test_text_for_it_is_prepared_with_its_tokenizer(imported, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 30)
    prepare([str(tmp_path / "text.txt")], tmp_path / "data", tokenizer=str(imported), block_size=48)
    assert RunFolder.open(imported).open_data(tmp_path / "data").tokenizer.identity == make_tokenizer("byte").identity


def test_gpt2s_own_shape(tmp_path):
    """124 million weights: random, in bfloat16, to be quick."""
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config()).to(torch.bfloat16).eval()
    theirs.save_pretrained(tmp_path / "hf")
    made = import_hugging_face(tmp_path / "hf", tmp_path / "run")
    assert made.parameters == 124_439_808
    assert (made.tokenizer, made.config.block_size) == ("gpt2", 1024)
    model, _ = load(tmp_path / "run")
    ids = IDS[:1, :8] * 100
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs.float()(ids).logits, rtol=1e-5, atol=1e-5)
    for place in ("hf", "run"):  # three quarters of a gigabyte
        shutil.rmtree(tmp_path / place)
