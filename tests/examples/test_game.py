"""The game's web side, without a browser: what it answers, what it refuses, what it keeps."""

import io
import json
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="needs the extra 'game'")

from game import KEPT, MAX_JSON, MAX_QUESTION, MAX_SECONDS, MAX_UPLOAD, ask, draw_scene, keep_recording, reveal
from rounds import truth

from batcli.core.errors import InputError

GUESS = {"what": "bark", "side": "left", "depth": "front", "height": "above", "distance": 1.5}


def wav(audio: np.ndarray, rate: int = 32_000, form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio.T, rate, format=form)
    return file.getvalue()


def noise(seconds: float, channels: int = 2, rate: int = 32_000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((channels, round(seconds * rate))) / 10


class Browser:
    """Keeps cookies, as browsers do."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def call(self, path: str, content: object = None, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict]:
        body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.address}/{path}", body, headers or {})
        try:
            with self.opener.open(request, timeout=30) as response:
                return response.status, response.read(), dict(response.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def post(self, path: str, content: object) -> tuple[int, dict]:
        status, body, _ = self.call(path, content)
        return status, json.loads(body)


@pytest.fixture
def browser(address: str) -> Browser:
    return Browser(address)


def test_a_round_over_the_web(browser: Browser):
    status, scene = browser.post("scene", {"hall": 1, "sounds": 2})
    assert status == 200
    assert set(scene) == {"id", "hall", "hidden", "what", "where"}  # nothing that gives the truth away
    status, body, headers = browser.call(f"{scene['id']}/audio.wav")
    assert status == 200
    assert headers["content-type"] == "audio/wav"
    audio, rate = soundfile.read(io.BytesIO(body))
    assert rate == 32_000
    assert audio.shape[1] == 2
    assert audio.any()

    assert browser.post(f"{scene['id']}/ask", {"question": "What can be heard here?"}) == (
        400,
        {"error": "guess first; the model answers questions when the scene is shown"},
    )
    status, result = browser.post(f"{scene['id']}/reveal", {"guess": GUESS})
    assert status == 200
    assert result["said"]["you"] == GUESS
    assert len(result["questions"]) == len(result["texts"]) == 2
    assert result["match"]["rounds"] == 1
    assert result["match"]["you"] == sum(right is True for right in result["marks"]["you"].values())
    status, again = browser.post(f"{scene['id']}/reveal", {"guess": GUESS})
    assert (status, again["error"]) == (400, "this scene has been shown already; make a new one")

    status, found = browser.post(f"{scene['id']}/ask", {"question": result["more"][0]})
    assert status == 200
    assert found["truth"]
    assert isinstance(found["answer"], str)
    assert json.loads(browser.call("about")[1])["match"]["rounds"] == 1
    assert browser.post("reset", {})[1]["match"]["rounds"] == 0


def test_scores_belong_to_a_player(browser: Browser):
    scene = browser.post("scene", {})[1]
    browser.post(f"{scene['id']}/reveal", {"guess": GUESS})
    assert json.loads(Browser(browser.address).call("about")[1])["match"]["rounds"] == 0


def test_a_placed_scene_tells_its_truth_and_gives_no_points(browser: Browser):
    sounds = [{"label": "bark", "place": [-1.0, 0.4, 1.0]}]
    scene = browser.post("placed", {"hall": 0, "sounds": sounds})[1]
    result = browser.post(f"{scene['id']}/reveal", {})[1]
    assert result["said"]["truth"] == {
        "what": "bark", "side": "left", "depth": "behind", "height": "above", "distance": 1.5,
    }  # fmt: skip
    assert "you" not in result["said"]
    assert result["match"]["rounds"] == 0
    hidden = browser.post("placed", {"hall": 0, "sounds": sounds, "hide": True})[1]
    assert browser.post(f"{hidden['id']}/reveal", {"guess": GUESS})[1]["match"]["rounds"] == 1


@pytest.mark.parametrize(
    ("path", "content", "what"),
    [
        ("scene", {"sounds": 3}, "3 sounds"),
        ("scene", {"hall": 99}, "no room 99"),
        ("scene", {"hall": -1}, "no room -1"),
        ("scene", b"[]", "not a JSON object"),
        ("scene", b"{", "not JSON"),
        ("scene", b" " * (MAX_JSON + 1), "larger than"),
        ("placed", {}, "no sounds to place"),
        ("placed", {"sounds": [{"label": "bark", "place": [1]}]}, "three coordinates"),
        ("placed", {"sounds": [{"label": "bark", "place": "far"}]}, "no sounds to place"),
        ("0123/ask", {"question": "Where?"}, "no longer kept"),
        ("0123/reveal", {"guess": "left"}, "not a guess"),
    ],
)
def test_what_is_wrong_is_explained(browser: Browser, path: str, content: object, what: str):
    status, found = browser.post(path, content)
    assert status == 400
    assert what in found["error"]


@pytest.mark.parametrize(
    ("change", "what"),
    [({"side": None}, "left or right"), ({"height": "up"}, "above or below"), ({"distance": "far"}, "how far")],
)
def test_a_guess_must_be_whole(game, change, what):
    scene = draw_scene(game, {})
    with pytest.raises(InputError, match=what):
        reveal(game, scene["id"], "me", {**GUESS, **change})
    assert reveal(game, scene["id"], "me", GUESS)["match"]["rounds"] == 1  # it was not used up


def test_a_perfect_guess_has_all_points(game):
    scene = draw_scene(game, {"sounds": 1})
    right = truth(game.heard[scene["id"]].asked).to_dict()
    found = reveal(game, scene["id"], "me", right)
    assert found["match"]["you"] == found["match"]["possible"] == 5


def test_only_the_latest_scenes_are_kept(game):
    first = draw_scene(game, {})["id"]
    for _ in range(KEPT):
        last = keep_recording(game, wav(noise(0.1)), "a.wav")["id"]
    assert first not in game.heard
    assert last in game.heard
    assert len(game.heard) == KEPT


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_a_recording_is_heard(game, form):
    found = keep_recording(game, wav(noise(1.0), form=form), f"a.{form.lower()}")
    assert found["seconds"] == pytest.approx(1.0, abs=0.01)
    assert ask(game, found["id"], {"question": "What can be heard here?", "start": 0.5})["truth"] is None


def test_another_moment_of_a_recording_is_another_sound(game, monkeypatch):
    heard = []
    monkeypatch.setattr("game.answer", lambda loaded, questions, encoding: heard.append(encoding) or ["yes"])
    late = np.concatenate([np.zeros((2, 64_000)), noise(2.0)], axis=1)
    key = keep_recording(game, wav(late), "a.wav")["id"]
    for start in (0, 2.0, 0):
        ask(game, key, {"question": "Where?", "start": start})
    assert heard[0]["sources"].equal(heard[2]["sources"])
    assert not heard[0]["sources"].equal(heard[1]["sources"])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "a.wav: is empty"),
        (b"hello, this is no sound", "a.wav: not audio"),
        (wav(noise(0.5, channels=1)), "1 channel, needed 2"),
        (wav(noise(1.0))[:9_000], "truncated"),
        (wav(noise(0.0)), "holds no samples"),
        (wav(noise(MAX_SECONDS + 1, rate=8_000), 8_000), "61 s long; cut it to 60 s or less"),
    ],
    ids=["empty", "text", "mono", "cut", "nothing", "long"],
)
def test_a_bad_recording_is_explained(game, content, what):
    with pytest.raises(InputError) as caught:
        keep_recording(game, content, "a.wav")
    assert what in str(caught.value)
    assert "/" not in str(caught.value)  # no path of this machine
    assert not game.heard


def test_an_upload_is_cut_off_at_its_limit(browser: Browser):
    status, found = browser.post("recording?name=big.wav", bytes(MAX_UPLOAD + 1))
    assert (status, found["error"]) == (400, "larger than 20 MB; send less")


def test_notes_say_what_a_recording_cannot_tell(game):
    mono, panned = np.tile(noise(0.5, channels=1), (2, 1)), noise(0.5, channels=1) * np.array([[1.0], [0.4]])
    assert "mono" in keep_recording(game, wav(mono), "a.wav")["notes"][0]
    assert "panning" in keep_recording(game, wav(panned), "a.wav")["notes"][0]
    assert "The right channel is silent" in keep_recording(game, wav(noise(0.5) * [[1], [0]]), "a.wav")["notes"][0]
    later = np.roll(panned[0], 12)
    assert keep_recording(game, wav(np.stack([panned[0], 0.4 * later])), "a.wav")["notes"] == []


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({}, "empty"),
        ({"question": "  "}, "empty"),
        ({"question": "why " * MAX_QUESTION}, "characters"),
        ({"question": "Where?", "start": 9}, "the recording has 1.0 s"),
        ({"question": "Where?", "start": "now"}, "starts at"),
    ],
)
def test_a_bad_question_is_explained(game, wanted, what):
    key = keep_recording(game, wav(noise(1.0)), "a.wav")["id"]
    with pytest.raises(InputError, match=what):
        ask(game, key, wanted)


def test_a_recording_has_no_known_truth(game):
    key = keep_recording(game, wav(noise(1.0)), "a.wav")["id"]
    with pytest.raises(InputError, match="no known truth"):
        reveal(game, key, "me", None)


def test_the_page_needs_nothing_from_elsewhere(browser: Browser):
    for name in ("", "page.css", "page.js", "icon.svg"):
        status, body, headers = browser.call(name)
        assert status == 200
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "://" not in body.decode().replace("http://www.w3.org/", "")


def test_other_names_and_other_paths_are_refused(browser: Browser):
    assert browser.call("about", headers={"Host": "evil.example"})[0] == 400
    assert browser.call("../game.py")[0] == 404
    assert browser.call("page/index.html")[0] == 404


def test_the_same_seed_draws_the_same_scenes(quickstart: Path):
    from game import open_game

    scenes = []
    for _ in range(2):
        game = open_game(quickstart / "run", quickstart / "data", seed=3)
        scenes.append([draw_scene(game, {"sounds": n})["where"] for n in (1, 2)])
    assert scenes[0] == scenes[1]
