"""Every number that the page shows is one that torch gives, through minigpt.explain or by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import minigpt
from minigpt import explain
from minigpt.errors import ConfigError, DataError, MiniGPTError
from minigpt.evaluation.baselines import baselines
from minigpt.explorer.explored_run import ExploredRun
from minigpt.explorer.protocol import (
    CellRequest,
    HeadRequest,
    PositionRequest,
    Request,
    TextRequest,
    TokenRequest,
)
from minigpt.explorer.session import Session
from minigpt.explorer.training_matches import followers, longest_match
from tests.conftest import tiny
from tests.explorer.conftest import TEXT

PLACE = 9
OFF = ((0, 1), (1, 0))


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.fixture(scope="module")
def model(explored_folder):
    return minigpt.load(explored_folder)[0]


@pytest.fixture(scope="module")
def ids(explored_folder):
    return torch.from_numpy(minigpt.load(explored_folder)[1].encode(TEXT).astype("int64"))


@pytest.fixture(scope="module")
def trace(model, ids):
    return explain.record_trace(model, ids)


def at(**changes):
    return PositionRequest(**{"text": TEXT, "position": PLACE, **changes})


def test_the_run_is_described(session, explored_folder):
    (run,) = session.describe(Request())
    assert run.steps == session.runs[0].steps
    assert len(run.steps) == 4
    assert run.best in run.steps
    assert (run.layers, run.heads, run.head_dim, run.max_tokens) == (2, 2, 8, 32)
    assert run.missing_data == run.missing_counts == ""
    assert run.curve["train"]
    assert run.curve["val"]
    assert run.examples
    assert all(0 < example.position < 32 for example in run.examples)
    validation = session.runs[0].data.val
    text = session.runs[0].decode(validation.read(0, validation.n_tokens))
    assert all(example.text in text for example in run.examples)


def test_losses_and_ranks_of_a_text(session, ids, trace):
    answer = session.text(TextRequest(text=TEXT))
    assert [token.id for token in answer.tokens] == ids.tolist()
    assert "".join(token.piece for token in answer.tokens) == TEXT.replace("\n", "\\n")
    losses = explain.token_losses(trace).tolist()
    assert (answer.tokens[0].loss, answer.tokens[0].rank, answer.unread) == (None, None, 0)
    for token, loss, logits in zip(answer.tokens[1:], losses, trace.logits, strict=False):
        assert token.loss == near(loss)
        assert token.probability == near(math.exp(-loss))
        assert token.rank == logits.argsort(descending=True).tolist().index(token.id) + 1
    assert answer.mean_loss == near(sum(losses) / len(losses))


def test_an_empty_text_and_one_too_long(session):
    assert session.text(TextRequest(text="")).tokens == []
    long = session.text(TextRequest(text=TEXT * 3))
    assert (len(long.tokens), long.unread) == (32, 3 * len(TEXT) - 32)
    for ask in (session.next, session.heads, session.passages):
        with pytest.raises(ConfigError, match="empty"):
            ask(PositionRequest(text=""))


def test_the_next_token(session, ids, trace):
    answer = session.next(at(word="dog"))
    p = trace.logits[PLACE].softmax(-1)
    assert [guess.id for guess in answer.guesses] == p.topk(10).indices.tolist()
    assert [guess.probability for guess in answer.guesses] == near(p.topk(10).values.tolist())
    assert [guess.rank for guess in answer.guesses] == list(range(1, 11))
    assert all(guess.probability == guess.intact for guess in answer.guesses)
    assert answer.actual.id == ids[PLACE + 1]
    assert answer.actual.probability == near(float(p[ids[PLACE + 1]]))
    assert answer.word.id in (ord("d"), ord(" "))  # with or without a space, whichever is likelier
    assert answer.word.probability == near(float(max(p[ord("d")], p[ord(" ")])))
    assert answer.entropy == near(float(-(p * p.log()).sum()))
    assert session.next(at(position=len(ids) - 1)).actual is None


@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_heads_that_are_off(session, model, ids, trace, replacement):
    request = at(heads_off=OFF, replacement=replacement)
    values = None if replacement == "zero" else session.runs[0].mean_outputs(session.runs[0].best)
    p = explain.ablate(model, ids, OFF, values)[PLACE].softmax(-1)
    answer = session.next(request)
    assert answer.guesses[0].probability == near(float(p.max()))
    assert answer.guesses[0].intact == near(float(trace.logits[PLACE].softmax(-1)[answer.guesses[0].id]))
    effects = session.effects(request)
    assert effects.zero[0][1] is effects.zero[1][0] is None
    token = int(ids[PLACE + 1])
    with explain.heads_replaced(model, OFF, values):
        more = explain.ablate(model, ids, [(1, 1)]).log_softmax(-1)
    assert effects.zero[1][1] == near(float(more[PLACE, token] - p.log()[token]))


def test_what_the_bigram_says(session, ids):
    answer = session.bigram(at())
    train = session.runs[0].data.train
    expected = baselines(train, ids[:-1].numpy(), ids[1:].numpy())
    assert answer.losses == near(expected.bigram.tolist())
    assert answer.counts == np.bincount(train.read(0, train.n_tokens), minlength=300)[ids.numpy()].tolist()
    row = baselines(train, np.full(256, int(ids[PLACE])), np.arange(256)).bigram
    assert [guess.probability for guess in answer.guesses] == near(np.sort(np.exp(-row))[::-1][:10].tolist())


def test_heads_and_their_patterns(session, model, trace):
    patterns = explain.attention_patterns(model, trace)
    scores, induction = explain.head_scores(model, trace), explain.induction_scores(model)
    for found in session.heads(at()):
        where = found.layer, found.head
        assert found.previous == near(float(scores["previous token"][where]))
        assert found.same == near(float(scores["same token"][where]))
        assert found.first == near(float(scores["first token"][where]))
        assert found.induction == near(float(induction[where]))
        assert found.weight == near(float(patterns[where][PLACE].max()))
        assert found.source == int(patterns[where][PLACE].argmax())
        pattern = session.pattern(HeadRequest(text=TEXT, layer=found.layer, head=found.head))
        torch.testing.assert_close(pattern, patterns[where])
    assert session.thumbnails(TextRequest(text=TEXT)).shape == (2, 2, len(TEXT), len(TEXT))


def test_means_are_those_of_the_model_with_all_heads_on(explored_folder, session):
    fresh = Session([ExploredRun(explored_folder)])
    fresh.effects(at(heads_off=OFF))
    torch.testing.assert_close(*(one.runs[0].mean_outputs(one.runs[0].best) for one in (fresh, session)))


@pytest.mark.parametrize("position", [PLACE, len(TEXT) - 1])
def test_effects_of_heads(session, model, ids, trace, position):
    answer = session.effects(at(position=position))
    token = int(ids[position + 1]) if position + 1 < len(ids) else int(trace.logits[position].argmax())
    before = trace.logits[position].log_softmax(-1)[token]
    mean = session.runs[0].mean_outputs(session.runs[0].best)
    assert answer.token == token
    assert answer.log_probability == near(float(before))
    for found, replacement in ((answer.zero, None), (answer.mean, mean)):
        every = explain.ablate_each_head(model, ids, replacement)[:, :, position].log_softmax(-1)[..., token]
        np.testing.assert_allclose(found, every - before, atol=1e-4)


def test_layers(session, model, ids, trace):
    answer = session.layers(at(token=ord("t")))
    lens = explain.logit_lens(model, trace)
    assert [row.state for row in answer.lens][:3] == ["embedding", "after attention 0", "after feed-forward 0"]
    for row, logits in zip(answer.lens, lens.values(), strict=True):
        p = logits[PLACE].softmax(-1)
        assert row.probability == near(float(p[ord("t")]))
        assert row.guess_probability == near(float(p.max()))
        assert row.rank == 1 + int((p > p[ord("t")]).sum())
    assert answer.logit == near(float(trace.logits[PLACE, ord("t")]))
    assert sum(value for _, value in answer.contributions) == pytest.approx(answer.logit, abs=1e-4)


def test_a_cell_is_the_sum_that_it_shows(session, trace):
    answer = session.cell(CellRequest(text=TEXT, layer=1, head=1, query=PLACE, key=4))
    total = sum(q * k for q, k in zip(answer.query, answer.key, strict=True))
    assert answer.score == near(total / math.sqrt(8))
    assert answer.scores[4] == answer.score
    exps = np.exp(answer.scores)
    assert answer.weights == near((exps / exps.sum()).tolist())
    assert answer.weight == near(float(trace["h.1.attn.pattern"][1, PLACE, 4]))
    with pytest.raises(ConfigError, match="earlier tokens only"):
        session.cell(CellRequest(text=TEXT, query=2, key=3))


def test_neighbours(session, model):
    found = [(near_.id, near_.similarity) for near_ in session.neighbours(TokenRequest(token=ord("c")))]
    assert found == [(token, near(similarity)) for token, similarity in explain.nearest_tokens(model, ord("c"))]


def test_moments_are_those_of_the_checkpoint(session, explored_folder, ids):
    for step in session.runs[0].steps:
        model, _ = minigpt.load(explored_folder, str(step))
        trace = explain.record_trace(model, ids)
        answer = session.moment(at(step=step))
        assert answer.mean_loss == near(float(explain.token_losses(trace).mean()))
        assert answer.probability == near(float(trace.logits[PLACE].softmax(-1)[ids[PLACE + 1]]))
        np.testing.assert_allclose(answer.induction, explain.induction_scores(model), atol=1e-5)


def test_code_gives_the_numbers(session, explored_folder, ids):
    token = int(ids[PLACE + 1])

    def value_of(code: str) -> object:
        *lines, last = code.splitlines()
        indent = last[: len(last) - len(last.lstrip())]
        scope: dict[str, object] = {}
        exec("\n".join([*lines, f"{indent}result = {last.strip()}"]), scope)
        return scope["result"]

    for off, replacement in (((), "zero"), (OFF, "zero"), (OFF, "mean")):
        request = at(heads_off=off, replacement=replacement)
        answer = session.next(request)
        assert value_of(answer.code).values.tolist() == near([guess.probability for guess in answer.guesses])
        layers = session.layers(request)
        assert value_of(layers.code) == {name: near(value) for name, value in layers.contributions}
        cell = session.cell(
            CellRequest(text=TEXT, heads_off=off, replacement=replacement, layer=1, head=1, query=PLACE, key=4)
        )
        score, weight = value_of(cell.code)
        assert (float(score), float(weight)) == (near(cell.score), near(cell.weight))
        effects = session.effects(request)
        assert float(value_of(effects.code)[1, 1]) == near(effects.zero[1][1])
        assert effects.token == token


def test_hostile_words_in_code_stay_words(session):
    text = "the ''' \"\"\" \\ \n{x} %s"
    code = session.next(PositionRequest(text=text, position=3)).code
    compile(code, "code", "exec")
    assert repr(text) in code


def test_passages(session):
    run = session.runs[0]
    training = run.decode(run.data.train.read(0, run.data.train.n_tokens))
    answer = session.passages(at(text="xyzzy the cat sees", position=17))
    assert answer.length > len("the cat")
    assert "xyzzy the cat sees".endswith(answer.match)
    assert answer.count == training.count(answer.match)
    assert answer.followers[0][1] <= answer.count
    for passage in answer.passages:
        assert passage.match == answer.match
        assert passage.before + passage.match + passage.after in training
    assert session.passages(at(text="ü", position=1)).length == 0


def test_the_longest_match_equals_a_search():
    chance = np.random.default_rng(0)
    training = chance.integers(3, size=400).astype(np.uint16)
    for length in (1, 4, 9, 30):
        ids = chance.integers(3, size=length).astype(np.int64)
        found, ends = longest_match(training, ids)
        rows = [training.tolist()[i : i + found] for i in range(400 - found + 1)]
        assert [i + found for i, row in enumerate(rows) if row == ids[-found:].tolist()] == ends.tolist()
        if found < length:
            more = ids[-found - 1 :].tolist()
            assert more not in [training.tolist()[i : i + found + 1] for i in range(400 - found)]
    assert longest_match(training, np.array([7]))[0] == 0
    assert followers(training, np.array([400, 3]), 5) == [(int(training[3]), 1)]


@pytest.mark.parametrize(
    ("ask", "request_"),
    [
        ("text", TextRequest(run=1)),
        ("text", TextRequest(text="a", step=7)),
        ("text", TextRequest(text="a", heads_off=((0, 9),))),
        ("next", PositionRequest(text="a", position=4)),
        ("layers", PositionRequest(text="a", token=10**6)),
        ("pattern", HeadRequest(text="a", layer=5)),
        ("neighbours", TokenRequest(token=10**6)),
    ],
)
def test_what_is_not_there_is_refused_in_words(session, ask, request_):
    with pytest.raises(MiniGPTError):
        getattr(session, ask)(request_)


def test_a_run_without_its_data_set_shows_the_rest(explored_folder, tmp_path):
    folder = shutil.copytree(explored_folder, tmp_path / "moved")
    facts = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**facts, "folder": str(tmp_path / "gone")}))
    session = Session([ExploredRun(folder)])
    (run,) = session.describe(Request())
    assert "--data" in run.missing_data
    assert run.missing_counts == run.missing_data
    assert run.examples == []
    assert session.next(at()).guesses
    assert session.effects(at()).mean is None
    for ask in (session.bigram, session.passages):
        with pytest.raises(DataError):
            ask(at())
    with pytest.raises(DataError, match="validation text"):
        session.next(at(heads_off=OFF, replacement="mean"))
    with pytest.raises(DataError):
        ExploredRun(folder, tmp_path / "nowhere")


def test_a_run_in_training_is_followed(explored_folder, tmp_path):
    folder = shutil.copytree(explored_folder, tmp_path / "run")
    best, *others = sorted((folder / "checkpoints").glob("step-*"))
    held = [other.rename(tmp_path / other.name) for other in others]
    (folder / "checkpoints" / "best.json").unlink()
    session = Session([ExploredRun(folder)])
    assert session.describe(Request())[0].steps == [session.runs[0].folder.checkpoint_step(best)]
    for other in held:
        other.rename(folder / "checkpoints" / other.name)
    (run,) = session.describe(Request())
    assert len(run.steps) == 4
    assert run.best in run.steps
    state = folder / "checkpoints" / f"step-{run.best:09d}" / "model.safetensors"
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(MiniGPTError, match="damaged"):
        ExploredRun(folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(MiniGPTError, match="none yet"):
        ExploredRun(folder)


def test_two_runs_on_one_text(session, explored_folder, run_folder, tmp_path, text_folder):
    both = Session([ExploredRun(explored_folder), ExploredRun(run_folder)])
    assert len(both.describe(Request())) == 2
    other = minigpt.load(run_folder)[0]
    ids = torch.tensor([*TEXT.encode()])
    p = other(ids[None])[0, PLACE].detach().softmax(-1)
    assert both.next(at(run=1)).guesses[0].probability == near(float(p.max()))
    minigpt.prepare([str(text_folder)], tmp_path / "chars", tokenizer="char", block_size=32)
    minigpt.train(tmp_path / "chars", tmp_path / "run", tiny(train__epochs=1))
    with pytest.raises(ConfigError, match="different tokenizers"):
        Session([ExploredRun(explored_folder), ExploredRun(Path(tmp_path / "run"))])


def test_long_answers_stop_when_nobody_waits(session):
    class Stop(Exception):
        pass

    def check():
        raise Stop

    for ask in (session.effects, session.heads, session.layers, session.moment, session.passages):
        with pytest.raises(Stop):
            ask(at(), check)
