"""Answer questions about scenes with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from batcli.data.constants import FAST, SAMPLE_RATE
from batcli.model.bat import BAT, Encoding
from batcli.model.llm import attention_window
from batcli.model.tokens import collate_prompts, padding_id, to_ids, to_text


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in evaluation mode, and how it answers."""

    model: BAT
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    num_beams: int = 1
    max_new_tokens: int = 200
    zero_audio: bool = False  # control: the audio tokens are zero
    rendering: str = FAST  # of the scenes that it answers about, see `data.constants`

    @property
    def seconds(self) -> float:
        """Length of a scene; of longer sound the model takes the beginning."""
        return self.model.config.seconds

    @property
    def samples(self) -> int:
        return round(self.seconds * SAMPLE_RATE)


@torch.inference_mode()
def encode_audio(loaded: LoadedModel, audio: np.ndarray) -> Encoding:
    """Encode binaural sound (2, n) at 32 kHz, cut or padded to the length of a scene."""
    waveform = torch.zeros(2, loaded.samples)
    waveform[:, : audio.shape[1]] = torch.from_numpy(audio[:, : loaded.samples])
    return loaded.model.encode(waveform[None].to(loaded.device))


def require_window(loaded: LoadedModel, questions: Sequence[str]) -> None:
    """Raise InputError if a question, with its answer, is longer than the language model attends."""
    if attention_window(loaded.model.language) is None:
        return
    longest = max(map(len, to_ids(loaded.tokenizer, questions)[0]), default=0)
    where = "the longest question with --max-new-tokens"
    loaded.model.require_window(longest + loaded.max_new_tokens, where, "give fewer --max-new-tokens")


@torch.inference_mode()
def answer(loaded: LoadedModel, questions: Sequence[str], encoding: Encoding) -> list[str]:
    """Answer each question. `encoding` has a row for each question's scene, or one row, of the scene of all."""
    if len(questions) > encoding.batch_size == 1:
        encoding = Encoding.concat([encoding] * len(questions))
    pad, end = padding_id(loaded.tokenizer), loaded.tokenizer.eos_token_id
    require_window(loaded, questions)
    prompts = collate_prompts(to_ids(loaded.tokenizer, questions)[0], pad).to(loaded.device)
    ids = loaded.model.generate(encoding, prompts, pad, end, loaded.num_beams, loaded.max_new_tokens, loaded.zero_audio)
    return to_text(loaded.tokenizer, ids)
