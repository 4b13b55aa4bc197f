"""Weights for generation: close to the model's own, batch-invariant, chosen by measuring."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.errors import ConfigError, DeviceError
from minigpt.generation import for_inference, inference_weights, quantized_linear
from minigpt.generation.cached_batch import CachedBatch
from minigpt.generation.inference_weights import choose_dtype, loss_change
from minigpt.generation.quantized_linear import DTYPES, SMALL
from minigpt.generation.row_invariant import agreeing_rows
from minigpt.model import GPT


def make(config: GPTConfig) -> GPT:
    """A model whose weights are so large that a mistake in any part shows."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def large(**changes) -> GPTConfig:
    """A model with two matrices that are not small: the head and one with more than 1,024 inputs."""
    shape = {"vocab_size": 2100, "block_size": 40, "n_layer": 1, "n_head": 4, "n_embd": 64, "n_inner": 2080}
    return GPTConfig(**{**shape, **changes})


CONFIGS = [
    large(),
    large(position="rope", norm="rmsnorm", mlp="swiglu", bias=False, tie_word_embeddings=False, n_inner=2100),
    large(n_head=3, n_embd=66, mlp="relu2"),  # rows that begin at odd places
    GPTConfig(vocab_size=50, block_size=40, n_layer=2, n_head=3, n_embd=18, n_inner=50, mlp="swiglu"),  # all small
]


def check_batch_invariance(config: GPTConfig, dtype: str) -> None:
    """Reads texts of many lengths, each alone and all in a batch, and compares their logits."""
    model, rng = for_inference(make(config), dtype), torch.Generator().manual_seed(2)
    lengths = [1, 2, 39, 40, 41, 60, 7, 7, 17, 33, 5]  # some renew their window on the way
    prompts = [torch.randint(config.vocab_size, (length,), generator=rng).tolist() for length in lengths]
    together, alone = CachedBatch(model, len(prompts)), [CachedBatch(model, 1) for _ in prompts]
    with torch.inference_mode():
        for batch, prompt in zip(alone, prompts, strict=True):
            batch.add(prompt)
            together.add(prompt)
        for _ in range(4):
            found = together.next_logits()
            assert torch.equal(found, torch.cat([batch.next_logits() for batch in alone]))
            for batch, token in zip(alone, found.argmax(dim=-1).tolist(), strict=True):
                batch.append([token])
            kept = range(len(alone))[::-1][:-1]  # one leaves, the others change places
            together.append(found.argmax(dim=-1).tolist())
            together.select(kept)
            alone = [alone[row] for row in kept]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", CONFIGS, ids=["large", "swiglu", "odd", "small"])
def test_logits_are_batch_invariant(config, dtype):
    check_batch_invariance(config, dtype)


@pytest.mark.parametrize("config", CONFIGS, ids=["large", "swiglu", "odd", "small"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.04), ("int8", 0.1)])
def test_logits_are_near_the_models_own(config, dtype, tolerance):
    model = make(config)
    fixed = for_inference(model, dtype)
    ids = torch.randint(config.vocab_size, (3, 30), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(ids)
        for rows in (ids, ids[:1]):
            torch.testing.assert_close(fixed(rows), expected[: len(rows)], rtol=0, atol=tolerance * expected.std())
        if config.vocab_size * config.n_embd < SMALL:  # then nothing is rounded
            torch.testing.assert_close(fixed(ids), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def fresh_detection():
    """What a form of product is was changed: nothing is known of it, nor of what it was later."""
    agreeing_rows.cache_clear()
    yield
    agreeing_rows.cache_clear()


@pytest.fixture(params=["bytes", "int8"])
def both_int8_products(request, monkeypatch, fresh_detection):
    """oneDNN's product of bytes, and the one that other machines have."""
    if request.param == "int8":
        monkeypatch.setattr(quantized_linear, "_multiplies_bytes", lambda: False)


@pytest.mark.usefixtures("both_int8_products")
@pytest.mark.parametrize("n_in", [64, 72, 2080])
def test_int8_rounds_each_weight_to_half_a_step_of_its_output(n_in):
    weight = torch.randn(SMALL // 64, n_in, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    found = quantized_linear.int8_head(weight, None)(torch.eye(n_in)[:, None])[
        :, 0
    ].T  # (n_out, n_in): the weights as they act
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((found - weight).abs() <= step * 0.5 + weight.abs() / 200 + 1e-9).all()


@pytest.mark.usefixtures("both_int8_products")
def test_both_int8_products_are_batch_invariant_and_accurate():
    check_batch_invariance(CONFIGS[1], "int8")
    test_logits_are_near_the_models_own(CONFIGS[1], "int8", 0.1)


def test_int8_handles_a_row_of_zeros():
    weight, bias = torch.randn(SMALL // 64, 64), torch.randn(SMALL // 64)
    found = quantized_linear.int8_head(weight, bias)(torch.zeros(2, 1, 64))
    torch.testing.assert_close(found, bias.expand(2, 1, -1))


def test_the_original_model_is_not_changed():
    model = make(large(tie_word_embeddings=True))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fixed = for_inference(model.train(), "bfloat16")
    assert model.training
    assert not fixed.training
    assert for_inference(fixed) is fixed
    assert fixed.wte.weight is model.wte.weight
    assert model.lm_head.weight is model.wte.weight
    model(torch.zeros(1, 3, dtype=torch.long)).sum().backward()  # it can still be trained
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_change_in_loss_is_the_difference_of_mean_cross_entropies():
    model = make(large())
    fixed = for_inference(model, "int8")
    ids = torch.randint(2100, (101,), generator=torch.Generator().manual_seed(1))
    losses = []
    with torch.no_grad():
        for each in (model, fixed):
            parts = [(ids[at : at + 40], ids[at + 1 : at + 41]) for at in (0, 40)] + [(ids[80:100], ids[81:])]
            sums = [torch.nn.functional.cross_entropy(each(x[None])[0], y, reduction="sum") for x, y in parts]
            losses.append(sum(sums).item() / 100)
    loss, change = loss_change(model, fixed, ids.tolist())
    assert (loss, change) == pytest.approx((losses[0], losses[1] - losses[0]), abs=1e-5)
    assert 0 < abs(change) < 0.05


def test_auto_takes_the_fastest_data_type_that_is_fast_enough(monkeypatch):
    model, seconds = make(large()), {"float32": 1.0, "bfloat16": 0.8, "int8": 0.74}
    forms = {dtype: for_inference(model, dtype) for dtype in DTYPES}
    monkeypatch.setattr(inference_weights, "for_inference", lambda model, dtype: forms[dtype])
    monkeypatch.setattr(inference_weights, "_step_seconds", lambda form, rows: seconds[find(form)])

    def find(form: GPT) -> str:
        return next(dtype for dtype in forms if forms[dtype] is form)

    choice = choose_dtype(model)
    assert (choice.dtype, choice.model) == ("bfloat16", forms["bfloat16"])  # int8 is less than 1.1 times as fast
    assert "bfloat16 800.00" in choice.reason
    seconds |= {"int8": 0.5}
    assert choose_dtype(model).dtype == "int8"
    seconds |= {"bfloat16": 0.96, "int8": 0.92}
    assert choose_dtype(model).dtype == "float32"


def test_auto_measures_and_a_requested_data_type_is_used():
    model = make(large())
    choice = choose_dtype(model, rows=3)
    assert choice.dtype in DTYPES
    assert choice.reason.startswith("milliseconds per step: float32 ")
    assert choose_dtype(model, "int8").dtype == "int8"


def test_unknown_and_unavailable_data_types_are_refused(monkeypatch):
    model = make(large())
    with pytest.raises(ConfigError, match="Did you mean int8"):
        for_inference(model, "int4")
    monkeypatch.setattr(quantized_linear, "_multiplies_bytes", lambda: False)
    monkeypatch.setattr(quantized_linear, "_multiplies_int8", lambda device: False)
    with pytest.raises(DeviceError, match="int8"):
        for_inference(model, "int8")
    assert choose_dtype(model).dtype in ("float32", "bfloat16")


@pytest.mark.usefixtures("fresh_detection")
@pytest.mark.parametrize("config", CONFIGS, ids=["large", "swiglu", "odd", "small"])
def test_logits_are_batch_invariant_without_onednn(monkeypatch, config):
    monkeypatch.setattr(quantized_linear, "_packs", lambda dtype: False)
    for dtype in ("float32", "bfloat16"):
        check_batch_invariance(config, dtype)


def test_a_model_in_training_stays_in_training_and_its_copy_drops_nothing():
    model = GPT(replace(CONFIGS[-1], dropout=0.5)).train()
    fast = for_inference(model)
    assert all(module.training for module in model.modules())
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        torch.testing.assert_close(fast(ids), model.eval()(ids), rtol=1e-4, atol=1e-4)
