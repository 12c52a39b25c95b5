"""Constants of the published system that several packages share, with their units."""

from __future__ import annotations

SAMPLE_RATE = 32_000  # Hz: clips, BRIRs and scenes
SCENE_SECONDS = 10.0  # length of a published scene
SCENE_SAMPLES = round(SCENE_SECONDS * SAMPLE_RATE)  # 320,000
MAX_SECONDS = 600.0  # longest scene that is rendered or heard
RMS_DBFS = -14.0  # level that each clip is brought to before its room, dB re full scale
FAST, PUBLISHED = RENDERINGS = ("fast", "published")
"""Ways to render a scene. `published`: clips resampled by `scipy.signal.resample_poly`, whole BRIRs, convolution in
64 bits, as the published data was made. `fast`: soxr, a BRIR without what lies 80 dB below it, 32 bits."""
DIRECT_SAMPLE = 32  # sample of a BRIR at which the nearer ear hears the direct sound

N_FFT = 1024  # samples of an STFT frame: 32 ms
HOP = 320  # samples between STFT frames: 10 ms
N_BINS = N_FFT // 2 + 1  # 513 bins, 31.25 Hz apart, 0 to 16,000 Hz
N_FRAMES = 1 + SCENE_SAMPLES // HOP  # 1,001 frames in a published scene

assert SAMPLE_RATE % HOP == 0, "frames come at a whole number per second"
