"""Features of the encoders: the STFT of both ears, Spatial-AST's four channels and DSpAST's six."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from batcli.data.constants import HOP, N_BINS, N_FFT, SAMPLE_RATE

MEL_LOW, MEL_HIGH = 50.0, 14_000.0  # Hz
FLOOR = 1e-10  # smallest mel magnitude: −100 dB
RATIO_FLOOR = 1e-16  # added to the denominator of the level ratio

# Slaney's mel scale: linear to 1,000 Hz, then 27 steps for each factor 6.4.
LINEAR_HZ = 200 / 3  # Hz per mel below the knee
KNEE_HZ = 1000.0
KNEE_MEL = KNEE_HZ / LINEAR_HZ  # 15
LOG_STEP = np.log(6.4) / 27  # natural logarithm of the frequency ratio per mel above the knee


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Frequency in Hz → Slaney's mel."""
    hz = np.asarray(hz, np.float64)
    return np.where(hz < KNEE_HZ, hz / LINEAR_HZ, KNEE_MEL + np.log(np.maximum(hz, KNEE_HZ) / KNEE_HZ) / LOG_STEP)


def mel_to_hz(mel: np.ndarray | float) -> np.ndarray:
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    return np.where(mel < KNEE_MEL, mel * LINEAR_HZ, KNEE_HZ * np.exp(LOG_STEP * (mel - KNEE_MEL)))


@cache
def mel_filterbank(n_mels: int = 128) -> np.ndarray:
    """Triangular filters of equal area on Slaney's mel scale, float32 (513 bins, n_mels); cached, do not modify.

    Each band rises from its lower neighbour's centre and falls to its upper one's; its height is
    2 / (width in Hz) (Slaney 1998, Auditory Toolbox).
    """
    edges = mel_to_hz(np.linspace(hz_to_mel(MEL_LOW), hz_to_mel(MEL_HIGH), n_mels + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.linspace(0, SAMPLE_RATE / 2, N_BINS)[:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32)


def spectrum(waveform: Tensor) -> Tensor:
    """Waveform (…, N) at 32 kHz → complex STFT (…, 513, 1 + N // 320); frame t is centred on sample 320 t."""
    window = torch.hann_window(N_FFT, periodic=True, device=waveform.device, dtype=waveform.dtype)
    frames = torch.stft(
        waveform.reshape(-1, waveform.shape[-1]), N_FFT, HOP, window=window, pad_mode="reflect", return_complex=True
    )
    return frames.reshape(*waveform.shape[:-1], *frames.shape[1:])


def features(spectrum: Tensor, mel: Tensor) -> Tensor:
    """Spatial-AST's input: STFT (B, 2, F, T), mel filterbank (F, M) → (B, 4, T, M).

    Channels 0 and 1: mel spectrogram of the magnitude at the left and right ear, in dB. Channels 2 and 3:
    mel-weighted cosine and sine of the phase of the right ear relative to the left; silence has phase 0.
    """
    return _scene_by_scene(_features, spectrum, mel)


def dspast_features(spectrum: Tensor, mel: Tensor) -> Tensor:
    """DSpAST's input: STFT (B, 2, F, T), mel filterbank (F, M) → (B, 6, T, M).

    Channels 0, 1, 4 and 5 are the four of `features`. Channel 2: generalised cross-correlation of the ears with
    phase transform (GCC-PHAT) at lags −M/2 … M/2 − 1; one of −d means that the right ear is d samples later.
    Channel 3: interaural level difference as a ratio, exp(level left) / exp(level right), of levels in dB; it spans
    forty orders of magnitude. Silence has correlation 1 at lag 0.
    """
    return _scene_by_scene(_dspast_features, spectrum, mel)


def _scene_by_scene(compute: Callable[[Tensor, Tensor], Tensor], spectrum: Tensor, mel: Tensor) -> Tensor:
    with torch.autocast(spectrum.device.type, enabled=False):  # bfloat16 would leave 8 bits of a level, and of a phase
        if spectrum.device.type != "cpu":
            return compute(spectrum, mel)
        # One by one: intermediate results are four times as large as the STFT and should stay in the processor's cache.
        return torch.cat([compute(scene, mel) for scene in spectrum.split(1)])


def _features(spectrum: Tensor, mel: Tensor) -> Tensor:
    level, phase, _ = _level_and_phase(spectrum, mel)
    return torch.cat([level, phase @ mel], dim=1)


def _dspast_features(spectrum: Tensor, mel: Tensor) -> Tensor:
    level, phase, silent = _level_and_phase(spectrum, mel)
    cosine, sine = phase.unbind(1)
    heard = 1 - silent.amax(1)  # both ears are
    cross = torch.complex(cosine * heard + (1 - heard), -sine * heard)  # of left and conjugate of right, scaled to 1
    lags = torch.fft.irfft(cross, N_FFT)
    half = mel.shape[1] // 2
    correlation = torch.cat([lags[..., -half:], lags[..., :half]], -1)
    ratio = level[:, 0].exp() / (level[:, 1].exp() + RATIO_FLOOR)
    return torch.cat([level, torch.stack([correlation, ratio], dim=1), phase @ mel], dim=1)


def _level_and_phase(spectrum: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """STFT (B, 2, F, T) → mel levels in dB (B, 2, T, M), cosine and sine of the interaural phase (B, 2, T, F), silence.

    Silence: (B, 2, T, F), 1 where an ear's bin is 0. Its phase is 0.
    """
    spectrum = spectrum.mT.contiguous()  # the memory layout of `torch.stft`: no copy
    magnitude = spectrum.abs()
    level = 10 * torch.log10((magnitude @ mel).clamp_min(FLOOR))
    # Real arithmetic from here on: torch divides and multiplies complex numbers at a third of the speed.
    re, im = torch.view_as_real(spectrum).unbind(-1)
    silent = (magnitude == 0).to(magnitude.dtype)
    magnitude = magnitude + silent
    re, im = re / magnitude + silent, im / magnitude
    cosine, sine = re[:, 1] * re[:, 0] + im[:, 1] * im[:, 0], im[:, 1] * re[:, 0] - re[:, 1] * im[:, 0]
    return level, torch.stack([cosine, sine], dim=1), silent
