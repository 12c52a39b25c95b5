"""HRTFs: sides, cues, near field, diffuse field, and SOFA files."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, special

from batcli.audio import hrtf as heads
from batcli.audio.hrtf import BANK_LEAD, FAR, HEAD_RADIUS, SPEED_OF_SOUND, Hrtf
from batcli.core.errors import InputError
from batcli.data.constants import SAMPLE_RATE

LEFT, RIGHT = 0, 1
HEADS = [heads.kemar, heads.sphere]
azimuths = st.floats(0, 360, exclude_max=True)
elevations = st.floats(-90, 90)


def microseconds_right_leads(pair: np.ndarray, below: float = 1500.0) -> float:
    """Inter-aural delay from the cross-correlation of the low-passed ears."""
    low = signal.butter(4, below, fs=SAMPLE_RATE, output="sos")
    spectra = np.fft.rfft(signal.sosfiltfilt(low, np.pad(pair, ((0, 0), (256, 256)))), 2048)
    likeness = np.fft.fftshift(np.fft.irfft(spectra[LEFT] * spectra[RIGHT].conj(), 2048 * 16))
    return (likeness.argmax() - 1024 * 16) / (16 * SAMPLE_RATE) * 1e6


def band_level(response: np.ndarray, low: float, high: float) -> np.ndarray:
    """dB, last axis in time."""
    frequencies = np.fft.rfftfreq(1024, 1 / SAMPLE_RATE)
    inside = (frequencies >= low) & (frequencies <= high)
    return 10 * np.log10((np.abs(np.fft.rfft(response, 1024)[..., inside]) ** 2).mean(-1))


@pytest.mark.parametrize("head", HEADS)
def test_a_source_at_the_right_is_louder_and_earlier_in_channel_1(head):
    response, _ = head().direct(0, 0, 2.0)
    assert (response[RIGHT] ** 2).sum() > 4 * (response[LEFT] ** 2).sum()
    assert np.abs(response[RIGHT]).argmax() < np.abs(response[LEFT]).argmax()
    mirrored, _ = head().direct(180, 0, 2.0)
    np.testing.assert_allclose(mirrored, response[::-1], atol=1e-9)


@pytest.mark.parametrize(("from_front", "delay", "tolerance"), [(30, 336, 60), (90, 746, 80)])
def test_kemar_delay(from_front, delay, tolerance):
    for side in (1, -1):
        response, _ = heads.kemar().direct(90 - side * from_front, 0, 2.0)
        assert side * microseconds_right_leads(response) == pytest.approx(delay, abs=tolerance)


@pytest.mark.parametrize("head", HEADS)
def test_delay_grows_from_the_median_plane_to_the_side(head):
    delays = [microseconds_right_leads(head().direct(azimuth, 0, 2.0)[0]) for azimuth in (90, 75, 60, 45, 30, 15)]
    assert delays[0] == pytest.approx(0, abs=5)
    assert all(b > a + 50 for a, b in pairwise(delays))


def test_kemar_level_difference():
    response, _ = heads.kemar().direct(0, 0, 2.0)
    difference = band_level(response[RIGHT], 5000, 15_000) - band_level(response[LEFT], 5000, 15_000)
    assert difference == pytest.approx(20, abs=4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("one", "other"), [((90, 0), (270, 0)), ((90, 30), (90, -30)), ((270, 30), (270, -30))])
def test_front_and_back_and_above_and_below_sound_different(head, one, other):
    frequencies = np.fft.rfftfreq(1024, 1 / SAMPLE_RATE)
    inside = (frequencies >= 3000) & (frequencies <= 14_000)
    spectra = [20 * np.log10(np.abs(np.fft.rfft(head().at(*place)[0][LEFT], 1024)[inside])) for place in (one, other)]
    assert np.sqrt(((spectra[0] - spectra[1]) ** 2).mean()) > 3.0


def test_kemar_keeps_what_was_measured():
    """At a measured direction only the equalisation, the same for all, lies between file and grid."""
    with np.load(Path(heads.__file__).with_name("data") / "kemar_32k.npz") as data:
        ratios = []
        for azimuth, elevation in ((0, 0), (90, 0), (45, 0), (130, 20), (90, 10), (0, -20)):
            row = int(np.flatnonzero((data["az"] == azimuth) & (data["el"] == elevation))[0])
            response, delays = heads.kemar().at(azimuth + 90, elevation)
            measured = np.abs(np.fft.rfft(data["q"][row] / 20_000, 512))
            ratios.append(20 * np.log10(np.abs(np.fft.rfft(response, 512)) / measured)[:, 4:220])
            assert delays[LEFT] - delays[RIGHT] == pytest.approx(data["itd"][row], abs=1e-5)
    assert np.ptp(np.concatenate(ratios), axis=0).max() < 0.6


def test_kemar_below_what_was_measured_goes_over_to_the_middle():
    head = heads.kemar()
    below, delays = head.at(0, -90)
    np.testing.assert_allclose(below[LEFT], below[RIGHT], atol=1e-12)
    np.testing.assert_allclose(delays, 0, atol=1e-12)
    leads = [head.at(0, elevation)[1] @ (1, -1) for elevation in (-40, -55, -70, -90)]
    assert all(a > b for a, b in pairwise(leads))


@settings(max_examples=40, deadline=None)
@given(azimuths, elevations, st.floats(0.3, 10))
@pytest.mark.parametrize("head", HEADS)
def test_the_nearer_ear_hears_the_direct_sound_on_its_sample(head, azimuth, elevation, distance):
    response, centre = head().direct(azimuth, elevation, distance)
    nearer = np.abs(response[LEFT if azimuth > 90 and azimuth < 270 else RIGHT])
    assert np.isfinite(response).all()
    assert abs(int((nearer > nearer.max() / 3).argmax()) - BANK_LEAD) <= 1
    assert BANK_LEAD <= centre <= BANK_LEAD + 13


def test_the_frontal_peak_at_1_m_is_that_of_the_published_responses():
    assert np.abs(heads.kemar().direct(90, 0, 1.0)[0]).max() == pytest.approx(0.46, abs=0.03)


@settings(max_examples=40, deadline=None)
@given(azimuths, elevations, st.floats(FAR, 20))
def test_beyond_the_near_field_only_the_level_changes(azimuth, elevation, distance):
    response, _ = heads.kemar().direct(azimuth, elevation, distance)
    np.testing.assert_allclose(response * distance, heads.kemar().direct(azimuth, elevation, 2.0)[0] * 2, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(azimuths, elevations)
def test_interpolation_agrees_with_the_bank(azimuth, elevation):
    """The bank of delayed responses, for reflections, holds the same head as `at`, for single directions."""
    head = heads.kemar()
    grid = (round(azimuth / 5) % 72 * 5, round(elevation / 5) * 5)
    row = head.nearest(np.array(grid[0]), np.array(grid[1]), np.array(0))
    responses, delays = head.at(*grid)
    spectrum = np.fft.rfft(responses, 128) * heads._delay(BANK_LEAD + delays, 128)
    np.testing.assert_allclose(head.bank[row], np.fft.irfft(spectrum, 128), atol=1e-6)
    assert head.nearest(np.array(azimuth), np.array(elevation), np.array(3)) < len(head.bank)


# ---- the rigid sphere ----------------------------------------------------------------------------


def test_sphere_pressure_is_duda_and_martens_series():
    """Against scipy's Bessel functions, term by term; and what physics demands at both ends."""
    size, distance, angle = 256, 0.5, 40.0
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)[1:]
    ka = 2 * np.pi * frequencies * HEAD_RADIUS / SPEED_OF_SOUND
    kr = ka * distance / HEAD_RADIUS
    expected = np.zeros(len(ka), complex)
    for m in range(50):
        h = special.spherical_jn(m, kr) + 1j * special.spherical_yn(m, kr)
        derivative = special.spherical_jn(m, ka, True) + 1j * special.spherical_yn(m, ka, True)
        expected += (2 * m + 1) * special.eval_legendre(m, np.cos(np.radians(angle))) * h / derivative
    expected *= -distance / HEAD_RADIUS / ka * np.exp(-1j * kr)
    found = heads._sphere_pressure(np.array([angle]), distance, size)[0, 1:]
    np.testing.assert_allclose(found, expected.conj(), rtol=1e-6)

    facing = np.abs(heads._sphere_pressure(np.array([0.0, 150.0]), 100.0, 512))
    assert facing[0, 1] == pytest.approx(1, abs=0.1)  # a long wave does not notice the head
    assert facing[0, -20:] == pytest.approx(2, abs=0.1)  # a short one is reflected: twice the pressure
    assert facing[1, -20:].max() < 0.5


def test_a_near_source_at_the_side_has_a_larger_level_difference():
    def difference(distance: float) -> float:
        response, _ = heads.kemar().direct(0, 0, distance)
        return float(np.diff(band_level(response, 100, 800))[0])

    differences = [difference(distance) for distance in (FAR, 1.0, 0.75, 0.5, 0.3)]
    assert all(b > a + 0.3 for a, b in pairwise(differences))
    assert differences[3] - differences[0] == pytest.approx(3, abs=1)
    ratio = heads.near_field(np.array([20.0, 160.0]), FAR, 256)
    np.testing.assert_allclose(ratio, 1, atol=1e-12)


# ---- the diffuse field ---------------------------------------------------------------------------


@pytest.mark.parametrize("head", [*HEADS, heads.omni])
def test_all_heads_have_the_same_level_in_a_diffuse_field(head):
    power, _ = head().diffuse_field
    frequencies = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)
    inside = (frequencies > 100) & (frequencies < 13_500)
    np.testing.assert_allclose(10 * np.log10(power[inside]), 20 * np.log10(heads.LEVEL_AT_1M), atol=0.5)


@pytest.mark.parametrize("head", HEADS)
def test_coherence_of_a_diffuse_field(head):
    """About 0.7 at 200 Hz and 0 above 600 Hz, as measured on heads (Lindevald and Benade 1986)."""
    _, coherence = head().diffuse_field
    frequencies = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)
    assert coherence[np.abs(frequencies - 200).argmin()] == pytest.approx(0.75, abs=0.15)
    assert np.abs(coherence[(frequencies > 600) & (frequencies < 14_000)]).max() < 0.2
    assert coherence[1] > 0.9


# ---- SOFA ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sofar():
    return pytest.importorskip("sofar", reason="the extra 'sofa' is not installed")


def write_sofa(sofar, path: Path, rate: int = 44_100, right_first: bool = False, pick: slice = slice(None)) -> Path:
    """KEMAR as a laboratory would publish it: whole responses with their delays, every 10°, any level."""
    head = heads.kemar()
    azimuth, elevation = (grid.ravel() for grid in np.meshgrid(np.arange(0, 360, 10), np.arange(-40, 91, 10)))
    irs = []
    for a, e in zip(azimuth, elevation, strict=True):
        responses, delays = head.at(a + 90, e)
        spectrum = np.fft.rfft(responses, 512) * np.exp(-2j * np.pi * np.fft.rfftfreq(512) * (50 + delays)[:, None])
        irs.append(np.fft.irfft(spectrum, 512)[:, :256])
    irs = signal.resample_poly(np.array(irs), rate // 100, SAMPLE_RATE // 100, axis=-1) * 3.0
    content = sofar.Sofa("SimpleFreeFieldHRIR")
    ears = np.array([[0, 0.09, 0], [0, -0.09, 0]])
    content.Data_IR = irs[pick, ::-1] if right_first else irs[pick]
    content.ReceiverPosition = ears[::-1] if right_first else ears
    content.SourcePosition = np.stack([azimuth, elevation, np.full(len(azimuth), 1.4)], -1)[pick]
    content.Data_SamplingRate = rate
    sofar.write_sofa(str(path), content)
    return path


@pytest.mark.parametrize(("rate", "right_first"), [(44_100, False), (48_000, True), (32_000, False)])
def test_sofa_round_trip(sofar, tmp_path, rate, right_first):
    read, true = heads.sofa(write_sofa(sofar, tmp_path / "h.sofa", rate, right_first)), heads.kemar()
    assert read.name == "h.sofa"
    measured = np.ix_(np.arange(10, 37, 2), np.arange(0, 72, 2))  # the directions in the file
    levels = [20 * np.log10(np.abs(np.fft.rfft(head.responses[measured], 512)))[..., 4:215] for head in (read, true)]
    assert np.sqrt(((levels[0] - levels[1]) ** 2).mean()) < 0.2
    np.testing.assert_allclose(read.delays[measured], true.delays[measured], atol=0.1)


def test_sofa_refused_in_one_line(sofar, tmp_path):
    other = sofar.Sofa("GeneralFIR")
    other.Data_IR, other.Data_Delay, other.ReceiverPosition = np.zeros((1, 2, 8)), np.zeros((1, 2)), np.zeros((2, 3))
    sofar.write_sofa(str(tmp_path / "other.sofa"), other)
    (tmp_path / "text.sofa").write_text("not HDF5")
    (tmp_path / "head.txt").write_text("")
    write_sofa(sofar, tmp_path / "horizon.sofa", pick=slice(36 * 4, 36 * 5))
    for name, what in {
        "other.sofa": "convention is 'GeneralFIR'",
        "text.sofa": "not a SOFA file",
        "head.txt": "not a SOFA file",
        "missing.sofa": "no such file",
        "horizon.sofa": "nothing was measured for 90°",
    }.items():
        with pytest.raises(InputError, match=what) as error:
            heads.load_hrtf(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_sofa_without_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "netCDF4", None)
    (tmp_path / "h.sofa").write_text("")
    with pytest.raises(InputError, match="needs the extra 'sofa'"):
        heads.sofa(tmp_path / "h.sofa")


def test_heads_by_name():
    assert isinstance(heads.load_hrtf("kemar"), Hrtf)
    assert heads.load_hrtf("sphere").name == "sphere"
    assert heads.omni().ears == 1
