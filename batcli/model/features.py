"""Features of the encoders: the STFT of both ears, and Spatial-AST's four mel channels."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from batcli.data.constants import HOP, N_BINS, N_FFT, SAMPLE_RATE

MEL_LOW, MEL_HIGH = 50.0, 14_000.0  # Hz
FLOOR = 1e-10  # smallest mel magnitude: −100 dB

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
    if spectrum.device.type != "cpu":
        return _features(spectrum, mel)
    # One by one: intermediate results are four times as large as the STFT and should stay in the processor's cache.
    return torch.cat([_features(scene, mel) for scene in spectrum.split(1)])


def _features(spectrum: Tensor, mel: Tensor) -> Tensor:
    spectrum = spectrum.mT.contiguous()  # the memory layout of `torch.stft`: no copy
    magnitude = spectrum.abs()
    level = 10 * torch.log10((magnitude @ mel).clamp_min(FLOOR))
    # Real arithmetic from here on: torch divides and multiplies complex numbers at a third of the speed.
    re, im = torch.view_as_real(spectrum).unbind(-1)
    silent = (magnitude == 0).to(magnitude.dtype)
    magnitude = magnitude + silent
    re, im = re / magnitude + silent, im / magnitude
    cosine, sine = re[:, 1] * re[:, 0] + im[:, 1] * im[:, 0], im[:, 1] * re[:, 0] - re[:, 1] * im[:, 0]
    return torch.cat([level, torch.stack([cosine, sine], dim=1) @ mel], dim=1)
