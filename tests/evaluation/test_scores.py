"""The three numbers of each token, against all logits at once, against transformers, and at the ends of the range."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minigpt.config import GPTConfig
from minigpt.data import Dataset
from minigpt.errors import ConfigError, DeviceError
from minigpt.evaluation import split_loss
from minigpt.evaluation.eval_text import EvalText, text_of_sources, text_of_split
from minigpt.evaluation.scores import Scores, TokenScorer, score
from minigpt.model import GPT
from minigpt.runtime import detect_runtime
from tests.model.test_against_transformers import as_gpt2

CPU = detect_runtime("cpu", "float32")
SHAPE = GPTConfig(vocab_size=257, block_size=16, n_layer=2, n_head=2, n_embd=16, n_inner=32, dropout=0.1)


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model with an opinion: weights larger than at the start."""
    torch.manual_seed(0)
    model = GPT(SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def text(dataset: Dataset) -> EvalText:
    """300 tokens of a split."""
    shard = dataclasses.replace(dataset.val, tokens=dataset.val.tokens[:300])
    return text_of_split(shard, dataset.tokenizer)


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What TokenScorer returns, by way of all logits in float64."""
    logits = hidden.double() @ weight.double().T
    own = logits.gather(1, targets[:, None])
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return nll, (logits >= own).sum(1) - 1, logits.softmax(1).amax(1)


@pytest.mark.parametrize("tokens", [1, 16, 17, 600])
@pytest.mark.parametrize("scale", [0.3, 1.0, 40.0])  # the last has logits of some hundreds, far beyond exp's range
def test_equal_to_all_logits_at_once(tokens, scale):
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 24, generator=random)
    weight = torch.randn(311, 24, generator=random) * scale + 1
    targets = torch.randint(311, (tokens,), generator=random)
    targets[: tokens // 2] = (hidden @ weight.T).argmax(1)[: tokens // 2]
    nll, rank, confidence = TokenScorer(weight, torch.float32)(hidden, targets)
    expected_nll, expected_rank, expected_confidence = plain(hidden, weight, targets)
    torch.testing.assert_close(nll.double(), expected_nll, rtol=1e-5, atol=2e-5)
    # exp(z) of tokens hopelessly far behind is 0 in float32: among these alone ranks are not told apart.
    near = expected_nll < 80
    assert torch.equal(rank[near].long(), expected_rank[near])
    torch.testing.assert_close(confidence.double(), expected_confidence, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("scale", "error"), [(0.3, 0.03), (40.0, 4.0)])  # bfloat16 counts in fours from 512 on
def test_bfloat16_is_near_and_takes_no_side(scale, error):
    random = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(2000, 24, generator=random), torch.randn(311, 24, generator=random) * scale
    hidden, weight = hidden.bfloat16().float(), weight.bfloat16().float()
    targets = (hidden @ weight.T).topk(2).indices[torch.arange(2000), torch.arange(2000) % 2]  # first or second
    nll, rank, _ = TokenScorer(weight, torch.bfloat16)(hidden, targets)
    expected_nll, expected_rank, _ = plain(hidden, weight, targets)
    torch.testing.assert_close(nll.double(), expected_nll, rtol=0.02, atol=error)
    wrong = (rank == 0).float().mean() - (expected_rank == 0).double().mean()
    assert abs(wrong) < 0.01


def test_a_model_that_prefers_nothing_is_never_right():
    targets = torch.arange(40)
    nll, rank, confidence = TokenScorer(torch.zeros(40, 8), torch.float32)(torch.ones(40, 8), targets)
    torch.testing.assert_close(nll, torch.full((40,), math.log(40)))
    assert (rank == 39).all()
    torch.testing.assert_close(confidence, torch.full((40,), 1 / 40))


def test_the_mean_is_the_loss_of_training(model, text, dataset):
    shard = dataclasses.replace(dataset.val, tokens=dataset.val.tokens[:300])
    scores = score(model, text, CPU)
    reference = split_loss(model, shard, CPU)
    assert len(scores.nll) == reference.tokens == 299
    assert scores.nll.mean(dtype=np.float64) == pytest.approx(reference.loss, rel=1e-6)


@pytest.mark.parametrize("stride", [16, 5, 1])
def test_equal_to_transformers(model, text, stride):
    """Its own loss of each window, with the labels that an earlier window has counted left out."""
    other, ids = as_gpt2(model), torch.from_numpy(text.tokens.astype(np.int64))
    total, done, start = 0.0, 1, 0
    with torch.no_grad():
        while done < len(ids):
            window = ids[start : start + 17]
            labels = window.clone()
            labels[: done - start] = -100
            counted = int((labels != -100).sum())
            logits = other(window[None, :-1]).logits[0]
            total += torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum").item()
            done, start = done + counted, start + stride
    scores = score(model, text, CPU, stride=stride)
    assert scores.nll.mean(dtype=np.float64) == pytest.approx(total / 299, rel=1e-5)
    np.testing.assert_array_equal(scores.positions, np.arange(1, 300))


def test_transformers_agrees_on_first_guesses_and_their_confidence(model, text):
    ids = torch.from_numpy(text.tokens[:17].astype(np.int64))
    with torch.no_grad():
        logits = as_gpt2(model)(ids[None, :-1]).logits[0]
    scores = score(model, text, CPU)
    np.testing.assert_array_equal(scores.rank[:16] == 0, (logits.argmax(1) == ids[1:]).numpy())
    in_five = (logits.topk(5).indices == ids[1:, None]).any(1)
    np.testing.assert_array_equal(scores.rank[:16] < 5, in_five.numpy())
    np.testing.assert_allclose(scores.confidence[:16], logits.softmax(1).amax(1), rtol=1e-5)
    np.testing.assert_array_equal(scores.context[:18], [*range(1, 17), 1, 2])


def same(a: Scores, b: Scores) -> None:
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_allclose(a.nll, b.nll, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(a.rank, b.rank)


def test_the_batch_size_changes_nothing(model, text):
    same(score(model, text, CPU, batch_size=1), score(model, text, CPU, batch_size=5))


def test_twice_is_the_same_bits_and_the_models_mode_is_kept(model, text):
    model.train()
    first, second = score(model, text, CPU), score(model, text, CPU)
    assert model.training
    assert all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def test_a_text_has_the_same_figures_whatever_stands_beside_it(model, tmp_path, dataset):
    files = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for file, words in zip(files, ("the cat sees the dog, and more than a window", "x", "a fox"), strict=True):
        file.write_text(words)
    together = score(model, text_of_sources(map(str, files), dataset.tokenizer), CPU)
    alone = [score(model, text_of_sources([str(file)], dataset.tokenizer), CPU) for file in files]
    np.testing.assert_allclose(together.nll, np.concatenate([s.nll for s in alone]), rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor held."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, torch.Tensor):
                self.numbers = max(self.numbers, part.numel())
        return result


def test_all_logits_are_never_held():
    hidden, weight = torch.randn(3000, 8), torch.randn(500, 8)
    with Largest() as seen:
        TokenScorer(weight, torch.float32)(hidden, torch.zeros(3000, dtype=torch.long))
    assert seen.numbers <= 256 * 500


def test_numbers_that_are_not_finite_are_an_error_and_no_figure(text):
    torch.manual_seed(0)
    broken = GPT(SHAPE)
    with torch.no_grad():
        broken.ln_f.weight[3] = math.nan
    with pytest.raises(DeviceError, match="not finite"):
        score(broken, text, CPU)


def test_no_batch_is_refused(model, text):
    with pytest.raises(ConfigError, match="batch size"):
        score(model, text, CPU, batch_size=0)
