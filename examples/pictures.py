"""The pictures of the README: a room, the scores, the game.

    pip install -e '.[game,plot]' playwright        # and Debian's chromium, or another
    python examples/pictures.py quickstart -o examples/pictures

`quickstart` is what `examples/quickstart.sh` leaves. The browser is the first of: the variable
CHROMIUM, `chromium` or `google-chrome` in the path, Playwright's own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from game import build_app, open_game, serving
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from batcli.core.errors import BatError, InputError
from batcli.options import RoomsOptions, ScoreOptions
from batcli.prepare.rooms import rooms
from batcli.score import score

DESKTOP, PHONE = (1180, 800), (390, 844)
FLAGS = (
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser. Raises InputError where there is none."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))]
    path = next((path for path in found if path), None)
    with sync_playwright() as driver:
        if path is None and not Path(driver.chromium.executable_path).exists():
            raise InputError("no Chromium", hint="install one, or name it in the variable CHROMIUM")
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def shoot(page: Page, file: Path) -> None:
    """What the window shows, from the top of the page."""
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=file)


def draw_room(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rooms(
            RoomsOptions(reverb=Path(folder), rooms=1, sources=4, seed=1, max_distance=4, rt60="0.4", plot=file, jobs=1)
        )
    with Image.open(file) as picture:
        small = picture.convert("RGB").resize((1100, 1100 * picture.height // picture.width), Image.Resampling.LANCZOS)
    small.save(file, optimize=True)


def draw_scores(browser: Browser, quickstart: Path, file: Path) -> None:
    predictions = [quickstart / "predictions.jsonl", quickstart / "deaf.jsonl"]
    with tempfile.TemporaryDirectory() as folder:
        score(ScoreOptions(predictions=predictions, baseline=["random"], report=Path(folder), data=quickstart / "data"))
        page = browser.new_page(viewport={"width": 1100, "height": 780})
        page.goto(f"file://{folder}/index.html")
        shoot(page, file)
        page.close()


def play(browser: Browser, quickstart: Path, output: Path) -> None:
    """Two rounds of the game: a guess at a desk, sounds placed on a phone."""
    game = open_game(quickstart / "run", quickstart / "data", seed=5)
    with serving(build_app(game)) as address:
        page = browser.new_page(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
        page.goto(address)
        for _ in range(2):
            page.click("#draw")
            expect(page.locator("#guess")).to_be_visible()
            right = next(reversed(game.heard.values())).asked
            page.select_option("#what", right.named.names[0])
            for name, word in zip(("side", "depth", "height"), right.located.location.words, strict=True):
                page.check(f"#form-guess input[name={name}][value={word}]", force=True)
            wrong = "front" if right.located.location.words[1] == "behind" else "behind"
            page.check(f"#form-guess input[name=depth][value={wrong}]", force=True)
            page.locator("#distance").fill(f"{right.located.location.rounded:g}")
            page.get_by_role("button", name="That is my guess").click()
            expect(page.locator("#result")).to_be_visible()
        page.wait_for_timeout(500)
        shoot(page, output / "game.png")
        page.close()
        page = browser.new_page(viewport={"width": PHONE[0], "height": PHONE[1]})
        page.goto(address)
        page.get_by_role("tab", name="Place sounds").click()
        page.check("#second")
        shoot(page, output / "game-phone.png")
        page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quickstart", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("examples/pictures"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    try:
        draw_room(given.output / "room.png")
        with chromium() as browser:
            draw_scores(browser, given.quickstart, given.output / "scores.png")
            play(browser, given.quickstart, given.output)
    except BatError as error:
        parser.exit(error.exit_code, f"pictures.py: {error}\n")


if __name__ == "__main__":
    main()
