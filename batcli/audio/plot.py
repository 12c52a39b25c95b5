"""Draw a simulated room: plan, side view, BRIR and decay. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from batcli.audio.rooms import ListenerPose, to_room
from batcli.core.errors import InputError
from batcli.core.files import replacing
from batcli.data.constants import DIRECT_SAMPLE, SAMPLE_RATE
from batcli.data.geometry import Position, locate, octant, parse_vector

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Polygon, Rectangle
except ModuleNotFoundError:
    raise InputError("drawing needs the extra 'plot'", "--plot", "pip install 'batcli[plot]'") from None

FORMATS = (".png", ".pdf", ".svg")
INK, PAPER = "#333333", "#fbfaf6"
ABOVE, BELOW = "#7a3fa0", "#2c7f62"
EARS = (("left ear", "#1f6fb4"), ("right ear", "#d1452c"))
ONE_EAR = (("one point", "#444444"),)
PARTS = (("direct", "#f4c542"), ("early", "#8fc98b"), ("tail", "#b9c4d6"))


def require_format(file: Path) -> None:
    """Raises InputError for a file name that ends in none of FORMATS."""
    if file.suffix.lower() not in FORMATS:
        raise InputError("a picture of unknown format", file, f"end its name in {', '.join(FORMATS)}")


def plot_room(file: Path, root: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Draw one room of `bat prepare rooms` to `file`: `entries` of its metadata, BRIRs below `root`.

    Upper row: plan, side view, and the first 4 ms of the first source's BRIR. Lower row: the whole BRIR, and its
    decay.
    """
    brir = np.load(root / entries[0]["fname"], allow_pickle=False)
    figure = Figure(figsize=(14, 9), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1.2, 1.1, 1), height_ratios=(1.1, 1))
    plan = figure.add_subplot(grid[0, 0])
    _plan(plan, entries)
    _side(figure.add_subplot(grid[0, 1]), entries)
    _arrival(figure.add_subplot(grid[0, 2]), brir)
    _response(figure.add_subplot(grid[1, :2]), brir, entries[0])
    _decay(figure.add_subplot(grid[1, 2]), brir, entries[0])
    handles, labels = plan.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    width, height, length = entries[0]["room_size"]
    figure.suptitle(
        f"{entries[0]['fname'].rpartition('/')[0]}: {width:g} × {length:g} m, {height:g} m high, "
        f"RT60 {entries[0]['rt60']:.2f} s, head: {entries[0]['hrtf'].split()[0]}",
        fontsize=13,
    )
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=130)


def _position(entry: Mapping[str, Any]) -> Position:
    return locate(parse_vector(entry["sensor_position"]), parse_vector(entry["source_position"]))


def _plan(axes: Axes, entries: Sequence[Mapping[str, Any]]) -> None:
    """The plan: the room from above, its −z up, with the head, its heading and the sources."""
    first = entries[0]
    width, _, length = first["room_size"]
    listener = ListenerPose(tuple(first["listener_in_room"]), first["yaw"])
    axes.add_patch(Rectangle((0, 0), width, length, facecolor=PAPER, edgecolor=INK, linewidth=2))

    def seen(offset: Sequence[float]) -> tuple[float, float]:
        x, _, z = to_room(np.array(offset), listener)
        return float(x), float(length - z)

    size = 0.03 * max(width, length)
    nose = Polygon(
        [seen((-0.75 * size, 0, -0.6 * size)), seen((0, 0, -2.3 * size)), seen((0.75 * size, 0, -0.6 * size))]
    )
    nose.set(facecolor=INK, edgecolor="none", zorder=3)
    axes.add_patch(nose)
    head = Polygon([seen((size * np.cos(a), 0, size * np.sin(a))) for a in np.linspace(0, 2 * np.pi, 40)])
    head.set(facecolor="white", edgecolor=INK, linewidth=1.8, zorder=4)
    axes.add_patch(head)
    for side, (_, colour) in zip((-1, 1), EARS, strict=True):
        axes.plot(*seen((side * size, 0, 0)), "o", color=colour, markersize=6, zorder=5)
    for number, entry in enumerate(entries):
        sensor, source = (parse_vector(entry[key]) for key in ("sensor_position", "source_position"))
        place = seen([b - a for a, b in zip(sensor, source, strict=True)])
        axes.plot(*zip(seen((0, 0, 0)), place, strict=True), color="#aaaaaa", linewidth=0.8, zorder=1)
        _mark(axes, place, number, entry)
    axes.set(xlim=(-0.3, width + 0.3), ylim=(-0.3, length + 0.3), aspect="equal", xlabel="m", ylabel="m")
    axes.set_title("From above; the nose shows the heading")


def _side(axes: Axes, entries: Sequence[Mapping[str, Any]]) -> None:
    """The side view: heights over the distance along the floor, in front to the right, behind to the left."""
    _, height, _ = entries[0]["room_size"]
    ear = parse_vector(entries[0]["sensor_position"])[1]
    axes.axhspan(0, height, color=PAPER, zorder=0)
    for level in (0, height):
        axes.axhline(level, color=INK, linewidth=2)
    axes.axhline(ear, color="#aaaaaa", linewidth=0.8, linestyle="--", zorder=1)
    axes.plot(0, ear, "o", markersize=11, markerfacecolor="white", markeredgecolor=INK, markeredgewidth=1.8, zorder=4)
    farthest = 1.0
    for number, entry in enumerate(entries):
        x, y, z = parse_vector(entry["source_position"])
        along = np.hypot(x, z) * (1 if z <= 0 else -1)
        farthest = max(farthest, abs(along))
        _mark(axes, (along, y), number, entry)
    axes.set(xlim=(-1.2 * farthest, 1.2 * farthest), ylim=(-0.15, height + 0.15))
    axes.set(xlabel="← behind      m along the floor      in front →", ylabel="height, m")
    axes.set_title("From the side; dashed: the ears' height")


def _mark(axes: Axes, place: tuple[float, float], number: int, entry: Mapping[str, Any]) -> None:
    above = octant(_position(entry)).height == "above"
    colour = ABOVE if above else BELOW
    axes.plot(*place, "^" if above else "v", color=colour, markersize=10, zorder=6, label=_words(number, entry))
    axes.annotate(str(number), place, xytext=(8, 3), textcoords="offset points", color=colour, weight="bold", zorder=7)


def _words(number: int, entry: Mapping[str, Any]) -> str:
    position = _position(entry)
    words = ", ".join(octant(position))
    return f"{number}  {words}; {position.distance:.1f} m, {position.azimuth:.0f}°, {position.elevation:+.0f}°"


def _ears(brir: NDArray[np.floating]) -> Sequence[tuple[str, str]]:
    return EARS if len(brir) == 2 else ONE_EAR


def _arrival(axes: Axes, brir: NDArray[np.floating]) -> None:
    """The first 4 ms of a BRIR, which show the difference in time and level between the ears."""
    shown = brir[:, : DIRECT_SAMPLE + round(0.003 * SAMPLE_RATE)]
    milliseconds = (np.arange(shown.shape[1]) - DIRECT_SAMPLE) / SAMPLE_RATE * 1e3
    for ear, (name, colour) in zip(shown, _ears(brir), strict=True):
        axes.plot(milliseconds, ear, color=colour, linewidth=1.4, label=name)
    axes.axvline(0, color="#aaaaaa", linewidth=0.8, linestyle="--", zorder=1)
    axes.legend(frameon=False, loc="upper right")
    axes.set(xlabel="ms after the direct sound", xlim=(milliseconds[0], milliseconds[-1]))
    axes.set_title("Source 0 arrives")


def _response(axes: Axes, brir: NDArray[np.floating], entry: Mapping[str, Any]) -> None:
    """Levels of a BRIR over time, on the parts of the simulation: direct sound, reflections, tail."""
    milliseconds = (np.arange(brir.shape[1]) - DIRECT_SAMPLE) / SAMPLE_RATE * 1e3
    end = milliseconds[-1]
    mixing = 1e3 * entry["mixing_time"]
    direct = 2.5
    spans = ((-direct, direct), (direct, mixing), (mixing, end))
    loudest = 20 * np.log10(np.abs(brir).max())
    top, bottom = loudest + 12, loudest - 75
    for (name, colour), (start, stop) in zip(PARTS, spans, strict=True):
        axes.axvspan(start, stop, color=colour, alpha=0.55, linewidth=0, zorder=0)
        # Too narrow for its own name, the first one's stands beside it.
        place, align = (start + stop) / 2 if name != "direct" else start - 1, "center" if name != "direct" else "right"
        axes.text(place, top - 2, name, ha=align, va="top", fontsize=10)
    window = np.hanning(round(0.002 * SAMPLE_RATE))
    for ear, (name, colour) in zip(brir.astype(float), _ears(brir), strict=True):
        axes.plot(milliseconds, _decibels(ear**2), color=colour, linewidth=0.4, alpha=0.3)
        smooth = np.convolve(ear**2, window / window.sum(), "same")
        axes.plot(milliseconds, _decibels(smooth), color=colour, linewidth=1.6, label=f"{name}, 1 ms mean")
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    axes.set(xlim=(-0.06 * end, end), ylim=(bottom, top), xlabel="ms after the direct sound", ylabel="level, dB")
    axes.set_title(f"Response of source 0: direct to reverberant energy {entry['drr']:+.1f} dB")


def _decay(axes: Axes, brir: NDArray[np.floating], entry: Mapping[str, Any]) -> None:
    """The decay of the energy (Schroeder 1965), against that of the RT60 in the metadata."""
    octaves = signal.butter(3, (353.6, 1414.2), "bandpass", fs=SAMPLE_RATE, output="sos")
    left = np.cumsum((signal.sosfilt(octaves, brir) ** 2).sum(0)[::-1])[::-1]
    levels = _decibels(left / left[0])
    seconds = (np.arange(brir.shape[1]) - DIRECT_SAMPLE) / SAMPLE_RATE
    axes.plot(seconds, levels, color=INK, linewidth=1.8, label="this response, 500 Hz and 1 kHz")
    start = int(np.argmax(levels < -5))
    wanted = levels[start] - 60 * (seconds - seconds[start]) / entry["rt60"]
    label = f"as in the metadata: {entry['rt60']:.2f} s"
    axes.plot(seconds[start:], wanted[start:], "--", color="#d18b00", linewidth=1.6, label=label)
    axes.axhline(-60, color="#aaaaaa", linewidth=0.8)
    axes.legend(frameon=False, loc="upper right")
    bands = "\n".join(f"{float(band):>5g} Hz  {rt:.2f} s" for band, rt in entry["rt60_by_band"].items())
    axes.text(0.04, 0.05, f"RT60\n{bands}", transform=axes.transAxes, family="monospace", fontsize=8.5)
    axes.set(xlim=(0, seconds[-1]), ylim=(-70, 3), xlabel="s", ylabel="energy still to come, dB")
    axes.set_title("Decay")


def _decibels(energy: NDArray[np.floating]) -> NDArray[np.floating]:
    return 10 * np.log10(np.maximum(energy, 1e-12))
