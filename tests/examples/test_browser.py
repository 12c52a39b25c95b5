"""The game in a real browser: headless Chromium, driven by Playwright, at the sizes of a desk and a phone."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from batcli.audio.io import write_wav
from batcli.core.errors import InputError

pytest.importorskip("starlette", reason="needs the extra 'game'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright, of the extra 'test'")
Page, expect = playwright.Page, playwright.expect

expect.set_options(timeout=30_000)
pytestmark = pytest.mark.browser

SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
SLOWEST_ANSWER = 3.0  # seconds of processor time, for game and model: what else the machine does is not theirs


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    from pictures import chromium

    try:
        with chromium() as opened:
            yield opened
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(params=SIZES)
def page(browser, address: str, request) -> Iterator[Page]:
    """The game's page. A script error or a request to elsewhere fails the test."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=request.param == "phone")
    page = context.new_page()
    page.set_default_timeout(30_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda sent: None if address in sent.url else faults.append(sent.url))
    page.goto(address)
    expect(page.locator("#sources fieldset")).to_have_count(2)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing to scroll sideways
    assert faults == []
    if folder := os.environ.get("SCREENSHOTS"):
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=f"{folder}/{request.node.name}.png", full_page=True)
    context.close()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    write_wav(tmp_path / "mine.wav", np.random.default_rng(0).standard_normal((2, 160_000)) / 20, 32_000, "pcm16")
    return tmp_path / "mine.wav"


def choose(page: Page, word: str) -> None:
    page.locator("#form-guess .choice label").filter(has_text=re.compile(f"^{word}$")).click()


def wait_until(page: Page, condition: str) -> None:
    """Playwright's own `wait_for_function` evaluates text in the page, which the page's policy forbids."""
    end = time.monotonic() + 15
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def numbers(page: Page) -> dict[str, int]:
    return {name: int(page.inner_text(f"#score-{name}")) for name in ("you", "model", "possible", "rounds")}


@pytest.mark.parametrize("sounds", ["One", "Two at once"])
def test_draw_listen_guess_ask(page: Page, sounds: str):
    page.locator("#form-draw .choice label").filter(has_text=sounds).click()
    page.click("#draw")
    expect(page.locator("#guess")).to_be_visible()
    expect(page.locator("#ask")).to_be_hidden()  # the model must not be asked before the guess
    wait_until(page, "document.querySelector('#player').readyState >= 3")
    page.evaluate("document.querySelector('#player').play()")
    wait_until(page, "document.querySelector('#player').currentTime > 0.1")
    page.select_option("#what", index=3)
    for word in ("Left", "In front", "Above"):
        choose(page, word)
    page.locator("#distance").fill("2.5")
    expect(page.locator("#distance-out")).to_have_text("2.5 m")
    expect(page.locator("#guesses .you .arc")).to_have_count(1)
    started = time.process_time()
    page.get_by_role("button", name="That is my guess").click()
    expect(page.locator("#result")).to_be_visible()
    assert time.process_time() - started < SLOWEST_ANSWER
    assert [cell.strip() for cell in page.locator("#result-head th").all_inner_texts()] == ["You", "Model", "Truth"]
    assert page.locator("#result-body tr").count() == (5 if sounds == "One" else 7)  # two headings
    found = numbers(page)
    assert found["rounds"] == 1
    assert found["possible"] == 5
    assert page.locator("#result-body td:first-of-type .mark.right").count() == found["you"]
    expect(page.locator("#result-title")).to_be_focused()  # where a screen reader goes on

    started = time.process_time()
    page.locator("#chips button").nth(1).click()
    expect(page.locator("#answers li")).to_have_count(1)
    assert time.process_time() - started < SLOWEST_ANSWER
    expect(page.locator("#answers li")).to_contain_text("Truth: ")
    page.fill("#question", "Is there a dog?")
    page.keyboard.press("Enter")
    expect(page.locator("#answers li")).to_have_count(2)
    page.reload()
    expect(page.locator("#score-rounds")).to_have_text("1")  # the score outlives the page
    page.click("#reset")
    expect(page.locator("#score-rounds")).to_have_text("0")


def test_a_guess_on_the_plan_fills_the_form(page: Page):
    page.click("#draw")
    expect(page.locator("#guess")).to_be_visible()
    page.locator("#plan").scroll_into_view_if_needed()
    box = page.locator("#plan").bounding_box()
    metre = box["width"] / 7.6
    page.mouse.click(box["x"] + box["width"] / 2 - 1.2 * metre, box["y"] + box["height"] / 2 + 1.6 * metre)
    assert page.evaluate("readGuess()") == {
        "what": "", "side": "left", "depth": "behind", "height": None, "distance": 2,
    }  # fmt: skip


def test_an_unfinished_guess_is_not_sent(page: Page):
    page.click("#draw")
    expect(page.locator("#guess")).to_be_visible()
    page.get_by_role("button", name="That is my guess").click()
    expect(page.locator("#guess")).to_be_visible()
    assert numbers(page)["rounds"] == 0


def test_drag_hear_and_compare(page: Page):
    page.get_by_role("tab", name="Place sounds").click()
    page.check("#second")
    handles = page.locator(".handle.movable")
    expect(handles).to_have_count(2)
    page.locator("#plan").scroll_into_view_if_needed()
    box, start = page.locator("#plan").bounding_box(), handles.first.bounding_box()
    metre, middle = box["width"] / 7.6, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(start["x"] + 22, start["y"] + 22)
    page.mouse.down()
    page.mouse.move(middle[0] - 2 * metre, middle[1] - 1 * metre, steps=5)
    page.mouse.up()
    x, _, z = page.evaluate("state.sources[0].place")
    assert (x, z) == pytest.approx((-2.0, -1.0), abs=0.1)
    expect(page.locator(".source .where").first).to_contain_text("left, front, above; 2.5 m")
    page.mouse.down()  # beyond the wall it stays inside
    page.mouse.move(middle[0] - 9 * metre, middle[1], steps=5)
    page.mouse.up()
    assert page.evaluate("fitted([-9, 0.4, 0])")[0] == pytest.approx(-2.9, abs=0.11)

    page.click("#hear")
    expect(page.locator("#listen")).to_be_visible()
    page.click("#ask-model")
    expect(page.locator("#result")).to_be_visible()
    assert page.locator("#result-head th").all_inner_texts() == ["Model", "Truth"]
    expect(page.locator("#result-body")).to_contain_text("Above or below")
    expect(page.locator(".handle.truth")).to_have_count(2)
    assert numbers(page)["rounds"] == 0


def test_everything_by_keyboard(page: Page):
    page.get_by_role("tab", name="Guess").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Place sounds")).to_be_focused()
    handle = page.get_by_role("button", name=re.compile("^Sound 1, .* Arrow keys move it"))
    handle.focus()
    before = page.evaluate("state.sources[0].place")
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowDown", "PageUp"):
        page.keyboard.press(key)
    expect(handle).to_be_focused()
    after = page.evaluate("state.sources[0].place")
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([-0.2, 0.1, 0.5], abs=1e-6)
    expect(page.locator("#status")).to_contain_text("Sound 1: right, front, above;")
    slider = page.get_by_role("slider", name="Height").first
    slider.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("state.sources[0].place")[1] == pytest.approx(after[1] - 0.1)
    assert slider.get_attribute("aria-valuetext") == "0.4 m above"
    page.locator("#hide").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#guess")).to_be_visible()
    expect(page.locator(".handle")).to_have_count(0)  # the friend must not see
    page.locator("#form-guess input[name=side]").first.focus()
    for _ in range(3):  # each choice, then on to the next
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#distance-out")).to_have_text("2 m")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_be_visible()
    assert numbers(page)["rounds"] == 1


def test_a_good_recording_and_bad_ones(page: Page, recording: Path, tmp_path: Path):
    page.get_by_role("tab", name="Your recording").click()
    expect(page.locator(".plan-card")).to_be_hidden()
    page.set_input_files("#file", recording)
    expect(page.locator("#recording")).to_contain_text("5.0 s")
    page.click("#form-ask .primary")
    expect(page.locator("#answers li")).to_have_count(1)
    page.locator("#start").fill("2")
    page.locator("#chips button").first.click()
    expect(page.locator("#answers li")).to_have_count(2)

    (tmp_path / "notes.txt").write_text("no sound at all")
    page.set_input_files("#file", tmp_path / "notes.txt")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text(
        re.compile("notes.txt: not audio: .*choose a WAV, FLAC or OGG file")
    )
    expect(page.locator("#ask")).to_be_hidden()
    write_wav(tmp_path / "mono.wav", np.ones((1, 9_000), np.float32) / 9, 32_000)
    page.set_input_files("#file", tmp_path / "mono.wav")
    expect(page.locator("#error-recording")).to_contain_text("1 channel, needed 2")
    page.set_input_files("#file", recording)  # and on it goes
    expect(page.locator("#error-recording")).to_be_hidden()
    expect(page.locator("#ask")).to_be_visible()


def test_every_control_has_a_name(page: Page):
    page.get_by_role("tab", name="Place sounds").click()
    nameless = """[...document.querySelectorAll('button, input, select, [role=img]')]
        .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()))
        .map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_a_game_that_has_ended_says_so(page: Page):
    page.route("**/scene", lambda route: route.abort())
    page.click("#draw")
    expect(page.locator("#error-draw")).to_contain_text("does not answer")
    expect(page.locator("#draw")).not_to_have_attribute("aria-busy", "true")
