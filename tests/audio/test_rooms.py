"""Simulated rooms: directions, levels, decay and reflections of their responses."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from batcli.audio import hrtf as heads
from batcli.audio import rooms
from batcli.audio.hrtf import SPEED_OF_SOUND
from batcli.audio.rooms import (
    BANDS,
    DIRECT_SAMPLE,
    ListenerPose,
    Room,
    draw_room,
    draw_scene,
    image_sources,
    room_with_rt60,
    rt60_limits,
    simulate,
    to_room,
)
from batcli.core.errors import InputError
from batcli.data.constants import SAMPLE_RATE
from batcli.data.geometry import Direction, Position, locate, octant, offset

OCTANTS = [Direction(*words) for words in itertools.product(("right", "left"), ("front", "behind"), ("above", "below"))]
ORDINARY = np.tile([0.15, 0.14, 0.13, 0.13, 0.14, 0.16, 0.2], (6, 1))
DEAD = np.full((6, 7), 30.0)  # walls that give nothing back


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def place(azimuth: float, elevation: float, distance: float) -> tuple[float, float, float]:
    return offset(Position(azimuth, elevation, distance))


def octave(samples: np.ndarray, centre: float) -> np.ndarray:
    edges = (centre / 2**0.5, min(centre * 2**0.5, 15_500))
    return signal.sosfilt(signal.butter(3, edges, "bandpass", fs=SAMPLE_RATE, output="sos"), samples)


def reverberation_time(responses: list[np.ndarray], centre: float) -> float:
    """Seconds: the slope of the energy decay (Schroeder 1965) from −5 to −35 dB, the mean over responses."""
    slopes = []
    for response in responses:
        left = np.cumsum((octave(response, centre) ** 2).sum(0)[::-1])[::-1]
        levels = 10 * np.log10(left / left[0])
        part = slice(int((levels < -5).argmax()), int((levels < -35).argmax()))
        slopes.append(np.polyfit(np.arange(len(levels))[part], levels[part], 1)[0])
    return -60 / float(np.mean(slopes)) / SAMPLE_RATE


@pytest.fixture(scope="module")
def drawn():
    """(room, listener, sources, responses) of 36 rooms as `bat prepare rooms` draws them."""
    scenes = []
    for seed in range(36):
        rng = generator(seed)
        room, listener, sources = draw_scene(rng, OCTANTS)
        scenes.append((room, listener, sources, simulate(room, listener, sources, heads.kemar(), rng)))
    return scenes


# ---- the direct sound ----------------------------------------------------------------------------


def test_direct_sound_comes_at_its_sample_with_the_level_of_its_distance():
    room, listener = Room((30.0, 12.0, 30.0), DEAD, scattering=0.0), ListenerPose((15, 6, 15))
    peaks = {}
    for distance in (1.0, 1.4, 2.0, 3.5, 5.5):
        (brir,) = simulate(room, listener, [place(90, 0, distance)], heads.kemar(), generator(), 0.1)
        assert brir.samples.dtype == np.float32
        assert np.abs(brir.samples).argmax(-1).tolist() == [DIRECT_SAMPLE, DIRECT_SAMPLE]
        peaks[distance] = float(np.abs(brir.samples).max())
    assert peaks[1.0] == pytest.approx(0.46, abs=0.03)
    for distance in (2.0, 3.5, 5.5):
        assert 20 * math.log10(peaks[distance] * distance / (peaks[1.4] * 1.4)) == pytest.approx(0, abs=0.5)


def test_side_by_the_delay_between_the_ears(drawn):
    """Inter-aural delay of the direct sound, low-passed, as a simple localiser takes it."""
    low = signal.butter(4, 1500, fs=SAMPLE_RATE, output="sos")
    right = []
    for _, _, sources, brirs in drawn:
        for source, brir in zip(sources, brirs, strict=True):
            if abs(source[0]) < math.sin(math.radians(15)) * math.hypot(*source):
                continue
            left_ear, right_ear = signal.sosfilt(low, brir.samples[:, : DIRECT_SAMPLE + 48])
            lag = np.correlate(left_ear, right_ear, "full").argmax() - (len(left_ear) - 1)
            right.append((lag > 0) == (source[0] > 0))
    assert len(right) > 200
    assert np.mean(right) >= 0.99


def test_louder_ear_is_the_nearer_one(drawn):
    louder = [
        (np.diff((brir.samples[:, : DIRECT_SAMPLE + 48] ** 2).sum(-1))[0] > 0) == (source[0] > 0)
        for _, _, sources, brirs in drawn
        for source, brir in zip(sources, brirs, strict=True)
        if abs(source[0]) > math.sin(math.radians(15)) * math.hypot(*source)
    ]
    assert np.mean(louder) >= 0.99


def test_a_near_source_has_the_head_s_level_difference():
    room, listener = Room((6.0, 3.0, 6.0), DEAD, scattering=0.0), ListenerPose((3, 1.5, 3))

    def difference(distance: float) -> float:
        (brir,) = simulate(room, listener, [place(180, 0, distance)], heads.kemar(), generator(), 0.1)
        left, right = (octave(brir.samples, 500) ** 2).sum(-1)
        return 10 * math.log10(left / right)

    assert difference(0.5) > difference(1.0) + 1 > difference(1.6) + 1
    assert difference(1.5) == pytest.approx(difference(2.5), abs=0.2)


# ---- reflections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_image_sources_are_those_of_pyroomacoustics(seed):
    pra = pytest.importorskip("pyroomacoustics", reason="the oracle is not installed")
    rng = generator(seed)
    size = rng.uniform((3, 2.4, 3), (8, 4, 9))
    ear, source = (rng.uniform(0.4, 1, 3) * (size - 0.8) for _ in range(2))
    share = 0.3
    theirs = pra.ShoeBox(size, fs=SAMPLE_RATE, materials=pra.Material(share), max_order=12, air_absorption=False)
    theirs.add_source(source)
    theirs.add_microphone(ear)
    theirs.image_source_model()
    images = theirs.sources[0].images.T - ear
    reach = 9.0
    near = np.linalg.norm(images, axis=-1) < reach
    order = np.lexsort(images[near].round(6).T)

    offsets, hits = image_sources(Room(tuple(size), np.zeros((6, 7))), tuple(source), reach, tuple(ear))
    mine = np.lexsort(offsets.round(6).T)
    np.testing.assert_allclose(offsets[mine], images[near][order], atol=1e-6)
    assert (hits[mine].sum(-1) == theirs.sources[0].orders[near][order]).all()
    # Pressure: sqrt(1 − α) per reflection.
    damping = theirs.sources[0].damping[0][near][order]
    np.testing.assert_allclose(np.sqrt(1 - share) ** hits[mine].sum(-1), damping, rtol=1e-6)


def test_an_omnidirectional_response_is_that_of_pyroomacoustics():
    pra = pytest.importorskip("pyroomacoustics", reason="the oracle is not installed")
    size, ear, source, share = (5.0, 2.7, 4.0), (2.1, 1.5, 1.7), (3.7, 1.1, 3.1), 0.25
    theirs = pra.ShoeBox(size, fs=SAMPLE_RATE, materials=pra.Material(share), max_order=30, air_absorption=False)
    theirs.add_source(source)
    theirs.add_microphone(ear)
    theirs.compute_rir()
    distance = math.dist(ear, source)
    begin = pra.constants.get("frac_delay_length") // 2 + round(distance / pra.constants.get("c") * SAMPLE_RATE)
    expected = theirs.rir[0][0][begin - DIRECT_SAMPLE :][:1400]

    room = Room(size, np.full((6, 7), -math.log(1 - share)), scattering=0.0)
    relative = tuple(b - a for a, b in zip(ear, source, strict=True))
    (brir,) = simulate(room, ListenerPose(ear), [relative], heads.omni(), generator(), 0.3)
    assert brir.samples.shape[0] == 1
    # Below 2 kHz, where air takes nothing; with our high-pass on both.
    both = np.stack([brir.samples[0, :1400], signal.sosfilt(rooms._SECTIONS, expected)])
    both = signal.sosfilt(signal.butter(4, 2000, fs=SAMPLE_RATE, output="sos"), both)
    likeness = np.correlate(both[0], both[1], "full") / np.linalg.norm(both[0]) / np.linalg.norm(both[1])
    assert likeness.max() > 0.99
    assert abs(likeness.argmax() - 1399) <= 1
    # Against the direct sound, whose level theirs may have with or without 1 / 4π.
    direct, all_of_it = (np.linalg.norm(both[:, :end], axis=-1) for end in (60, 1400))
    assert 20 * np.log10(all_of_it / direct) @ (1, -1) == pytest.approx(0, abs=0.5)


def test_turning_the_listener_is_turning_the_room():
    """A listener turned by 90° hears the same as one who is not, in the room rotated the other way."""
    width, height, length = 6.0, 2.8, 4.0
    absorption = generator(5).uniform(0.05, 0.6, (6, 7))
    source = (0.9, -0.3, -1.2)
    turned = simulate(
        Room((width, height, length), absorption, 0.0),
        ListenerPose((3.9, 1.6, 1.5), 90.0),
        [source],
        heads.kemar(),
        generator(),
    )
    west, east, floor, ceiling, north, south = absorption
    same = simulate(
        Room((length, height, width), np.stack([south, north, floor, ceiling, west, east]), 0.0),
        ListenerPose((length - 1.5, 1.6, 3.9)),
        [source],
        heads.kemar(),
        generator(),
    )
    early = slice(0, 1200)
    np.testing.assert_allclose(turned[0].samples[:, early], same[0].samples[:, early], atol=2e-4)
    np.testing.assert_allclose(to_room(np.array((0, 0, -1.0)), ListenerPose((3, 1, 2), 90.0)), (2, 1, 2), atol=1e-12)


def test_a_reflection_comes_from_its_wall():
    """With one reflecting wall, at the right, the echo of a source in front comes from the right."""
    absorption = DEAD.copy()
    absorption[1] = 0.05
    room, listener = Room((8.0, 6.0, 8.0), absorption, 0.0), ListenerPose((6.0, 3.0, 5.0))
    (brir,) = simulate(room, listener, [(0.0, 0.0, -2.0)], heads.kemar(), generator(), 0.2)
    path = math.hypot(4.0, 2.0)
    arrival = DIRECT_SAMPLE + (path - 2.0) / SPEED_OF_SOUND * SAMPLE_RATE
    echo = brir.samples[:, round(arrival) - 30 : round(arrival) + 60]
    left, right = (echo**2).sum(-1)
    assert right > 3 * left
    assert abs(int(np.abs(echo[1]).argmax()) - 30 + 11) < 10  # the right ear leads the head's centre
    rest = np.concatenate(
        [brir.samples[:, 140 : round(arrival) - 60], brir.samples[:, round(arrival) + 200 : 2000]], -1
    )
    assert np.abs(rest).max() < 0.05 * np.abs(echo).max()


def test_no_build_up_of_a_constant(drawn):
    """Without the high-pass, image sources, all positive, have most of their energy below 20 Hz."""

    def share_below_20_hz(samples: np.ndarray) -> float:
        powers = np.abs(np.fft.rfft(samples, 1 << 16)) ** 2
        return float(powers[..., np.fft.rfftfreq(1 << 16, 1 / SAMPLE_RATE) < 20].sum() / powers.sum())

    for room, listener, sources, brirs in drawn[::8]:
        raw = rooms._reflections(room, listener, np.array(sources[0]), heads.kemar(), 32.0)
        assert share_below_20_hz(brirs[0].samples) < min(0.01, share_below_20_hz(raw) / 10)


# ---- decay ---------------------------------------------------------------------------------------


def test_rt60_is_the_one_of_the_metadata(drawn):
    """Within 15 % in every room, at mid frequencies and, over the rooms, in every band."""
    ratios = np.array(
        [
            [reverberation_time([b.samples for b in brirs[:4]], band) for band in BANDS] / room.rt60_by_band
            for room, _, _, brirs in drawn[::2]
        ]
    )
    middle = ratios[:, 2:4].mean(-1)
    assert np.abs(middle - 1).max() < 0.15, middle
    assert np.abs(ratios.mean(0) - 1).max() < 0.05, ratios.mean(0)
    assert np.abs(np.percentile(ratios[:, 1:], [5, 95]) - 1).max() < 0.15


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.2])
@pytest.mark.parametrize("size", [(3.0, 2.4, 3.5), (9.0, 3.2, 12.0)])
def test_rt60_is_the_one_asked_for(rt60, size):
    room = room_with_rt60(size, ORDINARY, rt60)
    assert room.rt60 == pytest.approx(rt60, rel=1e-3)
    listener = ListenerPose((size[0] * 0.4, 1.5, size[2] * 0.45), 30.0)
    sources = [place(azimuth, 10, 1.1) for azimuth in (20, 110, 200, 290)]
    brirs = [brir.samples for brir in simulate(room, listener, sources, heads.kemar(), generator())]
    measured = np.mean([reverberation_time(brirs, band) for band in (500, 1000)])
    assert measured == pytest.approx(rt60, rel=0.15)


def test_rt60_against_rays():
    """The formula's integral against 20,000 rays that are followed from wall to wall."""
    rng, size, absorption = generator(3), np.array((4.0, 2.5, 6.0)), generator(4).uniform(0.05, 0.5, 6)
    at = 0.07
    direction = rng.normal(size=(20_000, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    start = rng.random((20_000, 3)) * size
    end = (start + direction * SPEED_OF_SOUND * at) / size
    crossed = np.abs(np.floor(end)).astype(int)  # walls met across each axis, unfolded
    first_high = end > start / size
    odd, even = (crossed + 1) // 2, crossed // 2
    high = np.where(first_high, odd, even)
    low = np.where(first_high, even, odd)
    energy = np.exp(-(low @ absorption[::2] + high @ absorption[1::2])).mean()
    expected = -6 * at / math.log10(energy * math.exp(-rooms.AIR[2] * SPEED_OF_SOUND * at))
    found = rooms._rt60(tuple(size), np.repeat(absorption[:, None], 7, 1), at)[2]
    assert found == pytest.approx(expected, rel=0.03)


def test_energy_does_not_jump_where_the_tail_takes_over():
    """Image sources and the tail have the same level in each octave."""
    room = Room((5.0, 2.7, 4.0), ORDINARY, scattering=0.0)
    rng, images, noise = generator(1), np.zeros(len(BANDS)), np.zeros(len(BANDS))
    window = slice(round(0.03 * SAMPLE_RATE), round((room.mixing_time - rooms.CROSSFADE) * SAMPLE_RATE))
    full = Room(room.size, room.absorption, scattering=1.0)  # all of the energy in the tail
    for _ in range(24):
        listener = ListenerPose(tuple(rng.uniform(0.8, np.array(room.size) - 0.8)), rng.uniform(0, 360))
        source = rng.uniform(0.3, np.array(room.size) - 0.3)
        relative = rooms._rotated(source - np.array(listener.position), -listener.yaw)
        distance = float(np.linalg.norm(relative))
        early = rooms._reflections(room, listener, relative, heads.kemar(), 32.0)
        tail = rooms._tail(full, heads.kemar(), distance / SPEED_OF_SOUND, 4000, rng)
        for index, band in enumerate(BANDS):
            images[index] += (octave(early, band)[:, window] ** 2).sum()
            noise[index] += (octave(tail, band)[:, window] ** 2).sum()
    assert np.abs(10 * np.log10(images / noise)).max() < 2


def test_coherence_of_the_tail_is_that_of_a_diffuse_field():
    """Within 0.1 of the mean over all directions of this head, in octaves, and of what heads show."""
    room, head = Room((5.0, 2.7, 4.0), np.full((6, 7), 0.15)), heads.kemar()
    rng = generator()
    flat = np.exp(3 * math.log(10) * np.arange(32_000) / SAMPLE_RATE / room.rt60)
    tail = np.concatenate([rooms._tail(room, head, 0.1, 32_000, rng)[:, 4000:] * flat[4000:] for _ in range(6)], -1)
    unit = np.array([head.bank[::4][row] for row in range(37 * 72)], dtype=float)
    weights = np.repeat(np.cos(np.radians(heads.ELEVATIONS)), 72)[:, None]
    known = {250: 0.62, 500: 0.05, 1000: 0.0, 2000: 0.0}
    for centre in (250, 500, 1000, 2000):
        left, right = octave(tail, centre)
        found = (left @ right) / math.sqrt((left @ left) * (right @ right))
        heard = octave(np.pad(unit, ((0, 0), (0, 0), (0, 2000))), centre)
        cross, *powers = ((weights * heard[:, a] * heard[:, b]).sum() for a, b in ((0, 1), (0, 0), (1, 1)))
        assert found == pytest.approx(cross / math.sqrt(powers[0] * powers[1]), abs=0.1)
        assert found == pytest.approx(known[centre], abs=0.12)


def test_drr_falls_with_distance():
    room, listener = Room((7.0, 2.8, 9.0), ORDINARY), ListenerPose((3.4, 1.5, 7.6))
    ratios = []
    for distance in (0.5, 1.0, 2.0, 4.0, 7.0):
        sources = [place(azimuth, 3, distance) for azimuth in (70, 80, 90, 100, 110)]
        brirs = simulate(room, listener, sources, heads.kemar(), generator())
        ratios.append(np.mean([brir.drr for brir in brirs]))
    assert all(b < a - 2 for a, b in itertools.pairwise(ratios))
    # Direct energy falls with 1/r², that of the room hardly changes.
    assert ratios[1] - ratios[2] == pytest.approx(6, abs=2)


# ---- the interface -------------------------------------------------------------------------------


def test_length_is_to_60_db_or_as_asked_for():
    room, listener = room_with_rt60((4.0, 2.5, 5.0), ORDINARY, 0.4), ListenerPose((2, 1.5, 2))
    (whole,) = simulate(room, listener, [(1.0, 0, 0)], heads.kemar(), generator())
    assert whole.samples.shape == (2, round((room.rt60_by_band.max() + 0.001) * SAMPLE_RATE))
    start, end = (np.abs(whole.samples[:, part] ** 2).mean() for part in (slice(2500, 3500), slice(-1500, -500)))
    assert end < start * 1e-3
    for seconds in (0.02, 1.0):
        (brir,) = simulate(room, listener, [(1.0, 0, 0)], heads.kemar(), generator(), seconds)
        assert brir.samples.shape == (2, round(seconds * SAMPLE_RATE))
        assert np.isfinite(brir.samples).all()


def test_same_generator_same_response():
    room, listener, sources = draw_scene(generator(9), OCTANTS[:3])
    one, two, other = (
        [brir.samples.tobytes() for brir in simulate(room, listener, sources, heads.kemar(), generator(seed))]
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_positions_outside_the_room_are_refused():
    room = Room((4.0, 2.5, 5.0), ORDINARY)
    with pytest.raises(InputError, match="the listener stands outside"):
        simulate(room, ListenerPose((5, 1, 2)), [(1.0, 0, 0)], heads.kemar(), generator())
    with pytest.raises(InputError, match="a source stands outside"):
        simulate(room, ListenerPose((2, 1, 2)), [(0, 2.0, 0)], heads.kemar(), generator())
    with pytest.raises(InputError, match="in the listener's head"):
        simulate(room, ListenerPose((2, 1, 2)), [(0, 0.05, 0)], heads.kemar(), generator())


def test_impossible_rooms_are_refused():
    low, high = rt60_limits((4.0, 2.5, 5.0))
    for rt60 in (low * 0.9, high * 1.1):
        with pytest.raises(InputError, match=r"4 x 5 x 2.5 m cannot have an RT60 of .* from 0\.\d+ to \d"):
            room_with_rt60((4.0, 2.5, 5.0), ORDINARY, rt60)
    with pytest.raises(InputError, match="too small"):
        draw_scene(generator(), OCTANTS[:1], size=(1.5, 2.5, 4.0))
    for rt60 in ((0.001, 0.01), (60.0, 60.0)):
        with pytest.raises(InputError, match="cannot have"):
            draw_scene(generator(), OCTANTS[:1], rt60=rt60)


# ---- drawing -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from(OCTANTS), min_size=1, max_size=10),
    st.floats(0.5, 20),
    st.one_of(st.none(), st.tuples(st.floats(2, 12), st.floats(2, 6), st.floats(2, 12))),
)
def test_a_drawn_scene_is_what_was_asked_for(seed, octants, farthest, size):
    room, listener, sources = draw_scene(generator(seed), octants, (0.2, 0.8), size, farthest)
    assert size is None or room.size == size
    assert 0.199 < room.rt60 < 0.801
    for wanted, source in zip(octants, sources, strict=True):
        position = locate((0.0, 0.0, 0.0), source)
        assert octant(position) == wanted
        assert 0.499 < position.distance <= max(farthest, 0.5) + 0.001
        assert all(
            0.19 < p < side - 0.19 for p, side in zip(to_room(np.array(source), listener), room.size, strict=True)
        )
    assert all(0.5 < p < side - 0.5 for p, side in zip(listener.position, room.size, strict=True))


def test_rooms_differ_in_size_and_reverberation():
    scenes = [draw_scene(generator(seed), OCTANTS[:4]) for seed in range(300)]
    rt60 = [room.rt60 for room, _, _ in scenes]
    volumes = [room.volume for room, _, _ in scenes]
    assert min(rt60) < 0.25
    assert max(rt60) > 0.75
    assert np.percentile(volumes, 90) > 4 * np.percentile(volumes, 10)


@pytest.mark.parametrize("spread", ["near", "even"])
def test_directions_are_even(spread):
    scenes = [draw_scene(generator(seed), OCTANTS, spread=spread) for seed in range(200)]
    positions = [locate((0.0, 0.0, 0.0), source) for _, _, sources in scenes for source in sources]
    counts, _ = np.histogram([p.azimuth for p in positions], np.arange(0, 361, 15))
    assert stats.chisquare(counts).pvalue > 0.001
    up, down = ([p.elevation for p in positions if (p.elevation > 0) is above] for above in (True, False))
    assert np.median(up) == pytest.approx(-np.median(down), abs=6)


def test_distances_are_even_over_metres_or_over_decibels():
    def distances(spread: str) -> np.ndarray:
        drawn = [draw_scene(generator(seed), OCTANTS[:4], spread=spread)[2] for seed in range(500)]
        return np.array([math.hypot(*source) for sources in drawn for source in sources])

    even = np.histogram(distances("even"), np.linspace(0.5, 10, 20))[0]
    assert (np.abs(even / even.mean() - 1) < 0.35).all(), even
    near = np.histogram(np.log2(distances("near")), np.arange(-1, 3.1))[0]  # octaves of 6 dB from 0.5 m
    assert (near > 0.05 * near.sum()).all(), near
    assert near[0] > near[1] > near[2] > near[3]


def test_materials_decide_the_colour_of_the_reverberation():
    drawn = [draw_room(generator(seed), (5.0, 2.6, 6.0), (0.5, 0.5)) for seed in range(40)]
    assert all(room.rt60 == pytest.approx(0.5, rel=1e-3) for room in drawn)
    low_to_high = [room.rt60_by_band[0] / room.rt60_by_band[5] for room in drawn]
    assert np.percentile(low_to_high, 10) < 1.1
    assert np.percentile(low_to_high, 90) > 1.8
    assert max(room.rt60_by_band.max() for room in drawn) < 2.0
