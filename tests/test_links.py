"""Links out of a dataset's folders: refused at once by every command, with the remedy; followed if one says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import inside, require_file
from batcli.data.dataset import open_dataset
from batcli.decode import decode
from batcli.options import DecodeOptions, QuestionsOptions, SpatializeOptions, TrainOptions
from batcli.prepare.questions import questions
from batcli.spatialize import spatialize
from batcli.train import train

OUT = "through a link: .*; --follow-links reads it"


def link_out(path: Path, blobs: Path) -> None:
    """Move a file or folder to `blobs`, and leave a link, as the hub's cache does."""
    blobs.mkdir(exist_ok=True)
    target = blobs / str(len(list(blobs.iterdir())))
    path.rename(target)
    path.symlink_to(os.path.relpath(target, path.parent))


@pytest.fixture
def data(demo: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo, tmp_path / "data")


def first_files(data: Path) -> tuple[Path, Path]:
    """Clip and BRIR of the first question."""
    source = next(open_dataset(data).questions("eval")).scene[0]
    return data / f"audio/{source.audio_id}.wav", data / f"reverb/binaural/{source.reverb_id}"


COMMANDS: dict[str, Callable[..., object]] = {
    "questions": lambda data, run, links: questions(
        QuestionsOptions(
            data=data.with_name("other"),
            clips=data / "metadata/eval.json",
            labels=data / "labels.csv",
            audio_root=data / "audio",
            reverb_root=data / "reverb",
            split="eval",
            count=20,
            dry_run=True,
            follow_links=links,
        )
    ),
    "spatialize": lambda data, run, links: spatialize(
        SpatializeOptions(data=data, output=data.with_name("scenes"), dry_run=True, follow_links=links)
    ),
    "decode": lambda data, run, links: decode(
        DecodeOptions(run=run, data=data, output=data.with_name("p.jsonl"), dry_run=True, follow_links=links)
    ),
    "decode --encoder": lambda data, run, links: decode(
        DecodeOptions(
            run=run, data=data, output=data.with_name("h.jsonl"), encoder=True, dry_run=True, follow_links=links
        )
    ),
    "train": lambda data, run, links: train(
        TrainOptions(data=data, output=data.with_name("run"), split="eval", dry_run=True, follow_links=links)
    ),
    "train --validate": lambda data, run, links: train(
        TrainOptions(data=data, output=data.with_name("run"), validate="eval", dry_run=True, follow_links=links)
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("what", ["a clip", "a BRIR", "a folder of clips", "a folder of BRIRs"])
def test_every_command_has_the_same_rule(data, run, tmp_path, name, what):
    clip, brir = first_files(data)
    link_out({"a clip": clip, "a BRIR": brir, "a folder of clips": clip.parent}.get(what, brir.parent), tmp_path / "b")
    with pytest.raises(InputError, match=OUT):
        COMMANDS[name](data, run, False)
    COMMANDS[name](data, run, True)


@pytest.mark.parametrize("name", COMMANDS)
def test_links_that_stay_in_the_folder_and_the_folder_itself_need_no_word(data, run, tmp_path, name):
    clip, _ = first_files(data)
    link_out(clip, clip.parent / "blobs")
    link_out(data / "audio", tmp_path / "b")
    link_out(data / "reverb", tmp_path / "b")
    COMMANDS[name](data, run, False)


def test_scenes_through_links_are_the_same_scenes(data, tmp_path):
    def render(name: str, **changes: object) -> list[bytes]:
        spatialize(SpatializeOptions(data=data, output=tmp_path / name, jobs=1, **changes))
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("*.wav"))]

    before = render("before")
    for folder in (data / "audio/eval", data / "reverb/binaural"):
        for path in sorted(folder.iterdir()):
            link_out(path, tmp_path / "b")
    assert render("after", follow_links=True) == before
    with pytest.raises(InputError, match=OUT):
        render("never")
    assert not (tmp_path / "never").exists()


def test_a_link_to_nothing_is_a_missing_file(data, run, tmp_path):
    clip, _ = first_files(data)
    clip.unlink()
    clip.symlink_to(tmp_path / "gone.wav")
    for follow in (False, True):
        warned = Warned()
        questions(
            QuestionsOptions(
                data=tmp_path / "other",
                clips=data / "metadata/eval.json",
                labels=data / "labels.csv",
                audio_root=data / "audio",
                reverb_root=data / "reverb",
                split="eval",
                count=20,
                dry_run=True,
                follow_links=follow,
            ),
            warned,
        )
        assert [line for line in warned.lines if "1 of" in line and "clips have no file" in line]
        with pytest.raises(TooManyBad, match="scenes failed"):
            COMMANDS["spatialize"](data, run, follow)
        COMMANDS["decode"](data, run, follow)  # a bad sample, of which --max-bad decides


class Warned:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def track(self, items, description, total=None):
        yield from items

    def status(self, text): ...

    def info(self, message): ...

    def detail(self, message): ...

    def warn(self, message):
        self.lines.append(message)


def test_a_single_scene_has_no_folder(tmp_path):
    with pytest.raises(InputError, match="--follow-links: has no effect without DATA"):
        spatialize(SpatializeOptions(audio=tmp_path / "a.wav", output=tmp_path / "o.wav", follow_links=True))
    with pytest.raises(InputError, match="--follow-links: has no effect without DATA"):
        decode(DecodeOptions(run=tmp_path, audio=tmp_path / "a.wav", question="?", follow_links=True))


# ---- any links at all ----------------------------------------------------------------------------

places = st.sampled_from(["a", "b", "a/x", "b/x", "a/x/y", "c"])
targets = st.sampled_from(["", "a", "b", "a/x", "gone", "../secret", "../secret/f", "..", "../root", "../nowhere"])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(places, st.booleans(), targets), max_size=5), st.data())
def test_without_the_word_nothing_outside_is_read_whatever_the_links(tmp_path, tree, drawn):
    shutil.rmtree(tmp_path / "t", ignore_errors=True)
    root, secret = tmp_path / "t/root", tmp_path / "t/secret"
    root.mkdir(parents=True)
    secret.mkdir()
    (secret / "f").write_text("secret")
    for place, is_link, target in tree:
        path = root / place
        if os.path.lexists(path) or not path.parent.is_dir() or not path.parent.resolve().is_relative_to(root):
            continue
        if is_link:
            path.symlink_to(os.path.relpath(root / target, path.parent))
        elif drawn.draw(st.booleans()):
            path.write_text("own")
        else:
            path.mkdir()
    for relative in ("a", "b", "c", "a/x", "b/x", "a/x/y", "a/f", "b/f", "a/x/f", "c/f", "a/secret/f"):
        true = Path(os.path.realpath(root / relative))
        try:
            inside.__globals__["_resolved"].cache_clear()  # the tree is another one each time
            found = require_file(inside(root, relative))
        except InputError:
            assert not (true.is_file() and true.is_relative_to(root)), "a file of its own is refused"
            continue
        assert found == root / relative
        assert true.is_relative_to(root)
        assert require_file(inside(root, relative, follow_links=True)) == found
