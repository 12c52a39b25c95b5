"""The QA game: hear a room on headphones, guess what, where and how far, and see what the model says.

    pip install -e '.[game]'
    python examples/game.py quickstart/run quickstart/data

opens a page at http://127.0.0.1:7860 that needs no network. Sounds are clips that training never
heard (split `eval`); scenes are rendered on the spot. What a round is, stands in `rounds.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import socket
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import uvicorn
from rounds import (
    FARTHEST,
    HALLS,
    NEAREST,
    SAMPLE_RATE,
    Asked,
    Challenge,
    Match,
    Said,
    Stock,
    challenge,
    draw_placement,
    mark,
    more_questions,
    open_stock,
    place_by_hand,
    read_answers,
    render_placement,
    to_wav,
    truth,
)
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from batcli.audio.cues import interaural
from batcli.audio.hrtf import load_hrtf
from batcli.audio.io import MAX_RATE, read_binaural, silent_ear
from batcli.core.errors import BatError, InputError
from batcli.data.answers import Doa
from batcli.data.dataset import open_dataset
from batcli.decode import LoadedModel, answer, encode_audio, load_model
from batcli.options import DecodeOptions
from batcli.questions.scenes import Placement

PAGE = Path(__file__).parent / "page"
KEPT = 64  # scenes and recordings, players: the oldest are forgotten
MAX_UPLOAD = 20 << 20  # bytes
MAX_SECONDS = 60.0
MAX_JSON = 1 << 14  # bytes
MAX_QUESTION = 300  # characters
ALIKE_DB, ALIKE_US = 1.5, 32.0  # ears that differ by less than this in level, and by a sample in time
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass
class Heard:
    """A scene or a recording that can be asked about."""

    audio: np.ndarray  # (2, n) at 32 kHz
    placement: Placement = ()
    asked: Challenge | None = None
    more: list[Asked] = field(default_factory=list)
    hidden: bool = False  # drawn or hidden for a guess, and not yet shown


@dataclass
class Game:
    """Everything that is loaded once, and what is kept of the rounds."""

    loaded: LoadedModel
    stock: Stock
    rng: random.Random
    heard: OrderedDict[str, Heard] = field(default_factory=OrderedDict)
    matches: OrderedDict[str, Match] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)  # one request at a time has the processor

    @property
    def seconds(self) -> float:
        return self.loaded.seconds


def open_game(run: Path, data: Path, split: str = "eval", seed: int | None = None, follow_links: bool = False) -> Game:
    """Load the model and the clips. Raises InputError for a run or a dataset that is not finished."""
    stock = open_stock(open_dataset(data, follow_links), split)
    game = Game(load_model(DecodeOptions(run=run, max_new_tokens=48)), stock, random.Random(seed))
    load_hrtf("kemar").bank  # noqa: B018 - computed here, so that the first scene does not wait for it
    return game


# ---- what the page asks for ------------------------------------------------------------------------


def about(game: Game) -> dict[str, Any]:
    return {
        "labels": game.stock.labels,
        "halls": [hall.to_dict() for hall in HALLS],
        "seconds": game.seconds,
        "nearest": NEAREST,
        "farthest": FARTHEST,
        "max_upload": MAX_UPLOAD,
        "max_seconds": MAX_SECONDS,
        "max_question": MAX_QUESTION,
    }


def draw_scene(game: Game, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """`{"hall": number, "sounds": 1 or 2}` → a hidden scene."""
    hall = _hall(wanted)
    sounds = wanted.get("sounds", 1)
    if sounds not in (1, 2):
        raise InputError(f"{sounds!r:.20} sounds", hint="one or two")
    return _keep_scene(game, hall, draw_placement(game.rng, game.stock, HALLS[hall], sounds), True)


def place_scene(game: Game, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """`{"hall": number, "sounds": [{"label", "place": [x, y, z]}], "hide": bool}` → that scene."""
    hall = _hall(wanted)
    try:
        sounds = [(str(sound["label"]), tuple(float(part) for part in sound["place"])) for sound in wanted["sounds"]]
        if any(len(place) != 3 for _, place in sounds):
            raise ValueError("a place has three coordinates")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"no sounds to place: {error}") from None
    placement = place_by_hand(game.stock, HALLS[hall], sounds, game.rng)  # type: ignore[arg-type]
    return _keep_scene(game, hall, placement, bool(wanted.get("hide", False)))


def _hall(wanted: Mapping[str, Any]) -> int:
    hall = wanted.get("hall", 0)
    if not isinstance(hall, int) or not 0 <= hall < len(HALLS):
        raise InputError(f"no room {hall!r:.20}", hint=f"0 to {len(HALLS) - 1}")
    return hall


def _keep_scene(game: Game, hall: int, placement: Placement, hidden: bool) -> dict[str, Any]:
    audio = render_placement(game.stock, HALLS[hall], placement, game.seconds)
    asked = challenge(placement, game.rng)
    scene = Heard(audio, placement, asked, more_questions(placement, game.rng), hidden)
    return {
        "id": _keep(game.heard, secrets.token_hex(8), scene),
        "hall": hall,
        "hidden": hidden,
        "what": asked.what.question if asked.what else None,
        "where": asked.where.question,
    }


def _keep(store: OrderedDict[str, Any], key: str, value: Any) -> str:
    store[key] = value
    store.move_to_end(key)
    while len(store) > KEPT:
        store.popitem(last=False)
    return key


def find(game: Game, key: str) -> Heard:
    if key not in game.heard:
        raise InputError("this scene is no longer kept", hint="make a new one")
    return game.heard[key]


def reveal(game: Game, key: str, player: str, guess: Mapping[str, Any] | None) -> dict[str, Any]:
    """The model's answers beside the truth and, for a hidden scene with a guess, the player's own, with points."""
    scene = find(game, key)
    if scene.asked is None:
        raise InputError("a recording has no known truth", hint="ask a question about it")
    yours = read_guess(guess) if guess is not None else None
    if yours is not None and not scene.hidden:
        raise InputError("this scene has been shown already", hint="make a new one")
    texts = answer(game.loaded, scene.asked.questions, encode_audio(game.loaded, scene.audio))
    its = read_answers(game.stock, texts[0] if scene.asked.what else None, texts[-1])
    marks = {"model": mark(its, scene.asked)}
    scene.hidden = False
    match = game.matches.get(player, Match())
    if yours is not None:
        marks["you"] = mark(yours, scene.asked)
        match = match.after(marks["you"], marks["model"])
        _keep(game.matches, player, match)
    return {
        "questions": scene.asked.questions,
        "texts": texts,
        "said": {
            "model": its.to_dict(),
            "truth": truth(scene.asked).to_dict(),
            **({"you": yours.to_dict()} if yours is not None else {}),
        },
        "marks": marks,
        "sounds": [{"names": placed.names, "place": placed.location.offset} for placed in scene.placement],
        "located": scene.placement.index(scene.asked.located),
        "match": vars(match),
        "more": [asked.question for asked in scene.more],
    }


def read_guess(guess: Mapping[str, Any]) -> Said:
    """The form. Raises InputError for what is missing."""
    words = {"side": ("left", "right"), "depth": ("front", "behind"), "height": ("above", "below")}
    for name, known in words.items():
        if guess.get(name) not in known:
            raise InputError(f"say {known[0]} or {known[1]}")
    distance = guess.get("distance")
    if not isinstance(distance, (int, float)) or not 0 < distance <= 100:
        raise InputError("say how far away it is")
    what = str(guess.get("what") or "")
    names = frozenset([what]) if what else frozenset()
    return Said(names, Doa(guess["side"], guess["depth"], guess["height"], float(distance)))


def ask(game: Game, key: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """`{"question", "start"}` → the model's answer, and the truth where the question is one of ours."""
    scene = find(game, key)
    question = " ".join(str(wanted.get("question") or "").split())
    if not question:
        raise InputError("the question is empty", hint="ask, for example, where the sound comes from")
    if len(question) > MAX_QUESTION:
        raise InputError(f"the question has {len(question)} characters", hint=f"use {MAX_QUESTION} at most")
    if scene.hidden:
        raise InputError("guess first", hint="the model answers questions when the scene is shown")
    start = wanted.get("start", 0)
    seconds = scene.audio.shape[1] / SAMPLE_RATE
    if not isinstance(start, (int, float)) or not 0 <= start < seconds:
        raise InputError(f"starts at {start!r:.20} s", hint=f"the recording has {seconds:.1f} s")
    text = answer(game.loaded, [question], encode_audio(game.loaded, scene.audio[:, round(start * SAMPLE_RATE) :]))[0]
    known = {asked.question: asked.answer for asked in scene.more}
    return {"question": question, "answer": text, "truth": known.get(question)}


def keep_recording(game: Game, content: bytes, name: str) -> dict[str, Any]:
    """An uploaded file → what it is, and what to think of it. Raises InputError for one that cannot be heard."""
    if not content:
        raise InputError("is empty", name, "choose a recording")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        path.write_bytes(content)
        try:
            _refuse_long(path)
            audio = read_binaural(path)
        except InputError as error:
            raise InputError(error.what, name, error.hint) from None
    cues = interaural(audio)
    return {
        "id": _keep(game.heard, secrets.token_hex(8), Heard(audio)),
        "seconds": audio.shape[1] / SAMPLE_RATE,
        "cues": cues.words(),
        "notes": notes_about(audio, cues.ild_db, cues.itd_us, game.seconds),
    }


def _refuse_long(path: Path) -> None:
    """By its header, before any samples are read."""
    try:
        header = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"not audio: {error.error_string.rstrip('.')}", path, "choose a WAV, FLAC or OGG file"
        ) from None
    if header.samplerate <= MAX_RATE and header.duration > MAX_SECONDS:
        raise InputError(f"{header.duration:.0f} s long", path, f"cut it to {MAX_SECONDS:.0f} s or less")


def notes_about(audio: np.ndarray, ild_db: float, itd_us: float, seconds: float) -> list[str]:
    """What a person should know before believing an answer about a recording."""
    notes = []
    if audio.shape[1] > seconds * SAMPLE_RATE:
        notes.append(f"The model hears {seconds:g} seconds at a time, from the moment that you choose.")
    if ear := silent_ear(audio):
        notes.append(f"The {ear} channel is silent, which no ear is. Do not trust any place.")
    elif np.abs(audio[0] - audio[1]).max() < 1e-4:
        notes.append("Both channels are the same. A mono recording does not say where anything is.")
    elif abs(itd_us) < ALIKE_US and abs(ild_db) > ALIKE_DB:
        notes.append(
            "The ears differ in level and not in time, as in stereo panning; no head makes such sound. "
            "Do not trust front or behind, above or below, or the distance."
        )
    return notes


# ---- the web ---------------------------------------------------------------------------------------


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises InputError as soon as it is longer than `limit` bytes."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            size = f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit:,} bytes"
            raise InputError(f"larger than {size}", hint="send less")
    return bytes(body)


async def read_json(request: Request) -> dict[str, Any]:
    try:
        content = json.loads(await read_body(request, MAX_JSON) or b"{}")
    except ValueError:
        raise InputError("not JSON") from None
    if not isinstance(content, dict):
        raise InputError("not a JSON object")
    return content


Handler = Callable[[Game, Request], Awaitable[Any]]


def build_app(game: Game, hosts: tuple[str, ...] = ("127.0.0.1", "localhost")) -> Starlette:
    """The page and its six requests. `hosts`: names under which a browser may call it."""

    async def locked(function: Callable[..., Any], *arguments: Any) -> Any:
        def work() -> Any:
            with game.lock:
                return function(game, *arguments)

        return await run_in_threadpool(work)

    def player(request: Request) -> str:
        return request.cookies.get("player") or secrets.token_hex(8)

    async def get_about(request: Request) -> Any:
        match = game.matches.get(request.cookies.get("player", ""), Match())
        return {**about(game), "match": vars(match)}

    async def post_scene(request: Request) -> Any:
        return await locked(draw_scene, await read_json(request))

    async def post_placed(request: Request) -> Any:
        return await locked(place_scene, await read_json(request))

    async def post_reveal(request: Request) -> Any:
        guess = (await read_json(request)).get("guess")
        if guess is not None and not isinstance(guess, dict):
            raise InputError("not a guess")
        return await locked(reveal, request.path_params["key"], request.state.player, guess)

    async def post_ask(request: Request) -> Any:
        return await locked(ask, request.path_params["key"], await read_json(request))

    async def post_recording(request: Request) -> Any:
        content = await read_body(request, MAX_UPLOAD)
        name = request.query_params.get("name", "recording")[:80]
        return await locked(keep_recording, content, name)

    async def post_reset(request: Request) -> Any:
        game.matches.pop(request.state.player, None)
        return {"match": vars(Match())}

    async def get_audio(request: Request) -> Any:
        return Response(to_wav(find(game, request.path_params["key"]).audio), media_type="audio/wav")

    def serve(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            request.state.player = player(request)
            try:
                found = await handler(request)
            except BatError as error:
                found = JSONResponse({"error": str(error)}, 400)
            except ClientDisconnect:
                return Response(status_code=400)
            response = found if isinstance(found, Response) else JSONResponse(found)
            response.headers.update(HEADERS)
            response.set_cookie("player", request.state.player, httponly=True, samesite="strict")
            return response

        return run

    def page(name: str) -> Callable[[Request], Awaitable[Any]]:
        async def file(request: Request) -> Any:
            return FileResponse(PAGE / name)

        return serve(file)

    return Starlette(
        routes=[
            Route("/", page("index.html")),
            *(Route(f"/{name}", page(name)) for name in ("page.css", "page.js", "icon.svg")),
            Route("/about", serve(get_about)),
            Route("/scene", serve(post_scene), methods=["POST"]),
            Route("/placed", serve(post_placed), methods=["POST"]),
            Route("/recording", serve(post_recording), methods=["POST"]),
            Route("/reset", serve(post_reset), methods=["POST"]),
            Route("/{key}/audio.wav", serve(get_audio)),
            Route("/{key}/reveal", serve(post_reveal), methods=["POST"]),
            Route("/{key}/ask", serve(post_ask), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Serve beside the caller's own work, on any free port: its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("quickstart/run"), help="what `bat train` made")
    parser.add_argument("data", type=Path, nargs="?", default=Path("quickstart/data"), help="whose clips are played")
    parser.add_argument("--split", default="eval")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines play, without any password")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--seed", type=int, help="the same scenes in the same order")
    parser.add_argument("--follow-links", action="store_true", help="read clips through links")
    given = parser.parse_args()
    try:
        game = open_game(given.run, given.data, given.split, given.seed)
    except BatError as error:
        parser.exit(error.exit_code, f"game.py: {error}\n")
    print(f"http://{given.host}:{given.port}  (Ctrl-C ends it)")
    hosts = ("127.0.0.1", "localhost") if given.host in ("127.0.0.1", "localhost") else ("*",)
    uvicorn.run(build_app(game, hosts), host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
