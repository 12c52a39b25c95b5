"""Inter-aural level and time difference of a recording."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from batcli.data.constants import SAMPLE_RATE

MAX_ITD_SECONDS = 1e-3  # the head allows about 0.75 ms
ITD_BAND_HZ = (100.0, 1_500.0)  # where the phase difference between the ears is unambiguous enough


class Cues(NamedTuple):
    """Differences between the ears."""

    ild_db: float  # level of the left ear above the right
    itd_us: float  # arrival at the left ear after the right: negative when the source is at the left

    def words(self) -> str:
        """Both differences in words: `left ear 3.1 dB louder, left ear 250 µs earlier`."""
        louder = f"{'left' if self.ild_db > 0 else 'right'} ear {abs(self.ild_db):.1f} dB louder"
        earlier = f"{'left' if self.itd_us < 0 else 'right'} ear {abs(self.itd_us):.0f} µs earlier"
        return f"{louder if abs(self.ild_db) >= 0.05 else 'both ears alike'}, {earlier if self.itd_us else 'at once'}"


def interaural(audio: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Cues:
    """Broadband level difference of a binaural recording (2, n), and delay at the peak of the cross-correlation."""
    left, right = np.maximum(np.mean(np.square(audio, dtype=np.float64), axis=1), 1e-20)
    reach = int(MAX_ITD_SECONDS * sample_rate)
    size = next_fast_len(max(audio.shape[1], reach) + reach + 1, real=True)
    spectra = rfft(audio, size, axis=-1)
    frequency = rfftfreq(size, 1 / sample_rate)
    cross = spectra[0] * spectra[1].conj()
    cross[(frequency < ITD_BAND_HZ[0]) | (frequency > ITD_BAND_HZ[1])] = 0
    correlation = irfft(cross, size)
    lags = np.arange(-reach, reach + 1)
    delay = int(lags[np.argmax(correlation[lags])]) if cross.any() else 0
    return Cues(10.0 * float(np.log10(left / right)), 1e6 * delay / sample_rate)
