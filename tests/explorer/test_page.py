"""The page in a browser: it shows torch's numbers, works by keyboard and on a phone, and takes hostile text as text."""

from __future__ import annotations

import math
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn

from minigpt.explorer.app import make_app
from minigpt.explorer.explored_run import ExploredRun
from minigpt.explorer.protocol import CellRequest, HeadRequest, PositionRequest, TextRequest, TokenRequest
from minigpt.explorer.session import Session
from tests.explorer.conftest import TEXT

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the page is tested with Playwright: pip install playwright"
)
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="the page is tested in Chromium, which is not installed")

PLACE = 9
SCREENS = ("guide", "bench", "time", "compare")
HOSTILE = "<img src=x onerror=hacked=1><script>hacked=1</script>\u202e&amp;"


class Served:
    """A server in a thread."""

    def __init__(self, session: Session) -> None:
        app = make_app(session, "token")
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.address = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/token/"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture(scope="module")
def served(session) -> Iterator[Served]:
    server = Served(session)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, served):
    """Opens the page at a state of its address; no script may fail, and nothing from elsewhere may be asked for."""
    pages, complaints = [], []

    def opened(address: str = "", width: int = 1280, **state: object):
        page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme="light").new_page()
        pages.append(page)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on(
            "request",
            lambda request: request.url.startswith(("http://127.0.0.1:", "data:")) or complaints.append(request.url),
        )
        state = {"screen": "bench", "text": TEXT, "position": PLACE, "layer": 0, "head": 0, **state}
        page.goto(f"{address or served.address}#{urlencode(state)}")
        settle(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert not complaints


def settle(page) -> None:
    """Waits until nothing more is asked for."""
    page.wait_for_timeout(250)  # typing waits for the next key
    page.wait_for_selector("main:not([aria-busy])")


def rows(page, panel: str, table: int = 0) -> list[list[str]]:
    found = page.locator(f"#panel-{panel} table").nth(table).locator("tbody tr")
    return [row.locator("td").all_inner_texts() for row in found.all()]


def number(text: str) -> float:
    value = float(re.sub(r"[^\d.e+-]", "", text.replace("−", "-")))
    return value / 100 if "%" in text else value


def close(text: str, value: float) -> bool:
    """Whether a number on the page is the value, rounded as it is shown."""
    return math.isclose(
        number(text), value, rel_tol=0.06 if "e" in text else 0.01, abs_tol=6e-3 if "%" not in text else 6e-5
    )


def at(**changes) -> PositionRequest:
    return PositionRequest(**{"text": TEXT, "position": PLACE, **changes})


def test_the_strip_shows_each_tokens_loss(open_page, session):
    page = open_page()
    shown = [float(text) for text in page.locator("#strip .token small").all_inner_texts()[1:]]
    expected = [token.loss for token in session.text(TextRequest(text=TEXT)).tokens[1:]]
    assert shown == pytest.approx(expected, abs=6e-3)
    bigram = session.bigram(at())
    facts = page.inner_text("#token-facts")
    assert f"The bigram model's loss is {bigram.losses[PLACE - 1]:.2f}." in facts
    assert f"occurs {bigram.counts[PLACE]:,} times" in facts


def test_the_next_token(open_page, session):
    page = open_page()
    answer = session.next(at())
    for row, guess in zip(rows(page, "next"), answer.guesses, strict=True):
        assert row[1].replace("·", " ") == guess.piece
        assert close(row[2], guess.probability)
    page.fill("#panel-next input", "dog")
    settle(page)
    word = session.next(at(word="dog")).word
    assert f"rank {word.rank:,}" in page.inner_text(".word-answer")
    assert f"Entropy: {answer.entropy:.2f}" in page.inner_text("#panel-next")


def test_heads_their_effects_and_switching_them_off(open_page, session):
    page = open_page()
    effects = session.effects(at())
    for layer, head in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert close(page.inner_text(f"[data-effect='{layer}.{head}']"), effects.zero[layer][head])
    for row in rows(page, "effects"):
        layer, head = map(int, row[0].split("."))
        assert close(row[1], effects.zero[layer][head])
        assert close(row[3], effects.mean[layer][head])
    page.click("text=All scores")
    for row, scores in zip(rows(page, "heads"), session.heads(at()), strict=True):
        values = scores.previous, scores.same, scores.first, scores.induction, scores.weight
        assert all(close(text, value) for text, value in zip(row[1:], values, strict=True))
    page.click("[data-power='1.0']")
    settle(page)
    assert "1 head off (1.0)" in page.inner_text("#heads-off")
    off = session.next(at(heads_off=((1, 0),)))
    for row, guess in zip(rows(page, "next"), off.guesses, strict=True):
        assert close(row[2], guess.probability)
        assert close(row[4], guess.intact)
    page.check("input[value=mean]")
    settle(page)
    off = session.next(at(heads_off=((1, 0),), replacement="mean"))
    assert close(rows(page, "next")[0][2], off.guesses[0].probability)
    page.click("text=Undo")
    settle(page)
    assert page.is_hidden("#heads-off")
    assert close(rows(page, "next")[0][2], session.next(at()).guesses[0].probability)


def test_layers_neighbours_and_passages(open_page, session):
    page = open_page()
    answer = session.layers(at())
    for row, expected in zip(rows(page, "layers"), answer.lens, strict=True):
        assert row[0] == expected.state
        assert close(row[2], expected.guess_probability)
        assert close(row[3], expected.probability)
        assert number(row[4]) == expected.rank
    *parts, total = rows(page, "layers", 1)
    for row, (name, value) in zip(parts, answer.contributions, strict=True):
        assert row[0] == name
        assert close(row[1], value)
    assert close(total[1], answer.logit)
    assert sum(number(row[1]) for row in parts) == pytest.approx(number(total[1]), abs=0.05)
    near = session.neighbours(TokenRequest(token=ord(TEXT[PLACE])))
    assert [number(row[1]) for row in rows(page, "neighbours")] == pytest.approx([n.similarity for n in near], abs=6e-3)
    passages = session.passages(at())
    assert f"{passages.length} tokens" in page.inner_text("#panel-passages")
    assert page.locator("#panel-passages mark").first.inner_text() == passages.match


def test_another_token_can_be_explained(open_page, session):
    page = open_page()
    page.locator("#panel-next tbody button").nth(4).click()
    settle(page)
    token = session.next(at()).guesses[4].id
    assert close(rows(page, "layers", 1)[-1][1], session.layers(at(token=token)).logit)


def test_a_cell_opens_the_sum_it_came_from(open_page, session):
    page = open_page(layer=1, head=1, query=PLACE, key=3)
    answer = session.cell(CellRequest(text=TEXT, layer=1, head=1, query=PLACE, key=3))
    text = page.inner_text("#panel-cell")
    dot = sum(q * k for q, k in zip(answer.query, answer.key, strict=True))
    assert f"{dot:.3f}".replace("-", "−") in text
    assert f"{answer.score:.3f}".replace("-", "−") in text
    assert page.inner_text("#panel-cell .weight") == f"{answer.weight:.3f}"
    page.click("text=The products")
    products = [number(row[3]) for row in rows(page, "cell")]
    assert sum(products) == pytest.approx(dot, abs=0.01)
    page.click("#panel-cell >> text=The same in PyTorch")
    assert page.inner_text("#panel-cell pre code") == answer.code


def test_the_matrix_by_keyboard(open_page, session):
    page = open_page(layer=0, head=1, query=5, key=2)
    pattern = session.pattern(HeadRequest(text=TEXT, layer=0, head=1))
    page.focus("#panel-attention canvas")
    for key, cell in (
        ("ArrowDown", (6, 2)),
        ("ArrowRight", (6, 3)),
        ("End", (6, 6)),
        ("ArrowRight", (6, 6)),
        ("Home", (6, 0)),
    ):
        page.keyboard.press(key)
        assert f": {float(pattern[cell]):.3f}" in page.inner_text(".readout")
    page.keyboard.press("t")
    shown = [number(row[1]) for row in rows(page, "attention")]
    assert shown == pytest.approx(pattern[6, :7].tolist(), abs=6e-4)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settle(page)
    assert page.inner_text("#panel-cell .weight") == f"{float(pattern[6, 1]):.3f}"
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"


def test_tokens_heads_and_checkpoints_by_keyboard(open_page, session):
    page = open_page()
    page.focus("#strip [aria-selected=true]")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert f"Token {PLACE + 1} of" in page.inner_text("#token-facts")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "option"
    page.focus("[data-focus='head 0.0']")
    page.keyboard.press("ArrowDown")
    settle(page)
    page.keyboard.press("o")
    settle(page)
    assert "(1.0)" in page.inner_text("#heads-off")
    page.focus("#checkpoint")
    page.keyboard.press("Home")
    steps = session.runs[0].steps
    for _ in steps:
        page.keyboard.press("ArrowLeft")
    settle(page)
    assert f"step {steps[0]}" in page.inner_text("#slider")
    expected = session.next(at(position=PLACE + 1, heads_off=((1, 0),), step=steps[0]))
    assert close(rows(page, "next")[0][2], expected.guesses[0].probability)


def test_the_link_to_the_panels_keeps_the_state(open_page):
    page = open_page(position=4)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "screen-title"
    assert "Token 4 of" in page.inner_text("#token-facts")


def test_the_address_holds_the_state(open_page, session):
    page = open_page()
    page.click("[data-power='0.1']")
    page.click("#screens >> text=Compare")
    settle(page)
    address = page.url
    assert "off=0.1" in address
    other = open_page()
    other.goto("about:blank")
    other.goto(address)
    settle(other)
    assert other.inner_text("#heads-off") == page.inner_text("#heads-off")
    assert other.get_attribute("#screens [aria-current]", "data-screen") == "compare"
    page.go_back()
    settle(page)
    assert page.get_attribute("#screens [aria-current]", "data-screen") == "bench"


def test_the_guide_keeps_the_guess_and_answers(open_page, session):
    page = open_page(screen="guide", guide=0)
    assert page.is_hidden("#strip")
    page.fill(".guess input", "12")
    page.click(".guess >> text=Guess")
    settle(page)
    assert "You guessed: 12" in page.inner_text(".answer")
    assert f"{len(TEXT)} pieces" in page.inner_text(".answer")
    assert page.is_visible("#strip")
    titles = []
    for step in range(8):
        titles.append(page.inner_text(".card h3"))
        if step:
            page.click("text=Show me")
            settle(page)
        assert page.inner_text(".revealed")
        assert not page.locator("#problem:not([hidden]), .panel .problem").count()
        if step < 7:
            page.click("text=Next step")
            settle(page)
    assert [title[0] for title in titles] == list("12345678")
    page.click("text=1 Pieces")
    settle(page)
    assert "You guessed: 12" in page.inner_text(".answer")


def test_time_and_compare(open_page, session):
    steps = session.runs[0].steps
    page = open_page(screen="time")
    page.wait_for_selector("table.drift")
    moments = [session.moment(at(step=step)) for step in steps]
    assert len(page.locator("table.drift tbody tr").all()) == len(steps)
    assert f"loss: {moments[-1].mean_loss:.2f}" in page.inner_text(".charts")
    page = open_page(screen="compare", step=steps[-1], otherStep=steps[0])
    ours, theirs = (session.text(TextRequest(text=TEXT, step=step)).tokens for step in (steps[-1], steps[0]))
    shown = [number(text) for text in page.locator(".differences small").all_inner_texts()[1:]]
    assert shown == pytest.approx([b.loss - a.loss for a, b in zip(ours[1:], theirs[1:], strict=True)], abs=6e-3)


@pytest.mark.parametrize("screen", SCREENS)
def test_a_phone_scrolls_in_one_direction(open_page, screen):
    page = open_page(screen=screen, width=360, text=f"{'x' * 20} {TEXT}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_findings(open_page, screen, scheme):
    page = open_page(screen=screen, off="0.1")
    page.emulate_media(color_scheme=scheme)
    if screen == "guide":
        page.click("text=Show me")
    settle(page)
    found = axe.Axe().run(page)
    assert not found.response["violations"], found.generate_report()


def test_hostile_text_stays_text(open_page, explored_folder, tmp_path, browser):
    name = HOSTILE.replace("/", "")
    folder = shutil.copytree(explored_folder, Path(tmp_path) / name)
    server = Served(Session([ExploredRun(folder)]))
    try:
        for screen in SCREENS:
            page = open_page(server.address, screen=screen, text=HOSTILE[:32], position=3)
            page.fill("#text", HOSTILE[5:37])
            settle(page)
            if screen == "guide":
                page.click("text=2 Guess")
                page.fill(".guess input", HOSTILE[:20])
                page.click(".guess >> text=Guess")
                settle(page)
            assert not page.locator("img, script:not([src='main.js'])").count()
            assert page.evaluate("typeof hacked") == "undefined"
            assert page.inner_text("#run-name").startswith("<img")
        page = open_page(
            server.address, screen="<img>", layer=99, head=99, step=7, off="9.9,x", position=10**8, token=10**8
        )
        assert page.locator("#strip .token").count() == len(TEXT)
    finally:
        server.stop()


def test_an_empty_text_and_a_server_that_stops(browser, session):
    server = Served(session)
    page = browser.new_page()
    page.goto(f"{server.address}#screen=bench&text=a+cat+b")
    settle(page)
    page.fill("#text", "")
    page.wait_for_timeout(600)
    assert "Type a text" in page.inner_text("#token-facts")
    page.fill("#text", "a dog")
    settle(page)
    assert page.locator("#strip .token").count() == 5
    server.stop()
    page.fill("#text", "another")
    page.wait_for_selector("#problem:not([hidden])")
    assert "minigpt explore" in page.inner_text("#problem")
    page.close()


def test_a_run_without_its_data_says_what_is_missing(open_page, explored_folder, tmp_path):
    folder = shutil.copytree(explored_folder, tmp_path / "run")
    facts = folder / "data.json"
    facts.write_text(re.sub(r'"folder": "[^"]*"', '"folder": "/nowhere"', facts.read_text()))
    for old in sorted((folder / "checkpoints").glob("step-*"))[:-1]:
        shutil.rmtree(old)
    server = Served(Session([ExploredRun(folder)]))
    try:
        page = open_page(server.address)
        assert "--data" in page.inner_text("#panel-passages")
        assert "--data" in page.inner_text("#panel-effects")
        for guide, word in ((6, "--train.keep-checkpoints"), (7, "--data")):
            page = open_page(server.address, screen="guide", guide=guide)
            assert word in page.inner_text(".card")
    finally:
        server.stop()
