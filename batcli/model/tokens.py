"""Questions and answers as token ids of the language model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# The published prompt, before and after the question; the answer follows without a space.
BEFORE = "Based on the audio you've heard, refer to the instruction and provide a response.\n\n### Instruction:\n"
AFTER = "\n\n### Response:"
IGNORED = -100  # label of columns that the loss leaves out

# A word or a distance such as 3.5m, with the space before it; a run of signs; white space.
WORDS = r" ?\d+(?:\.\d+)?m?| ?\p{L}+(?:['’]\p{L}+)?| ?[^\s\p{L}\d]+|\s+"


class TextBatch(NamedTuple):
    """Token ids of prompts, padded on the left, and of answers, padded on the right; audio tokens are not in it."""

    ids: Tensor  # (B, L)
    mask: Tensor  # (B, L), 1 for tokens, 0 for padding
    labels: Tensor  # (B, A), of the last A columns: the id of answer and end tokens, else IGNORED

    @property
    def prompt_length(self) -> int:
        """Columns before the answers."""
        return self.ids.shape[1] - self.labels.shape[1]

    def to(self, device: str | torch.device) -> TextBatch:
        return TextBatch(*(part.to(device) for part in self))


def to_ids(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answers: Sequence[str] | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokenize → (ids of each prompt, ids of each answer); without `answers`, the latter are empty lists.

    A prompt starts with the tokenizer's BOS if it has one. An answer has no EOS: `collate` adds it.
    Prompt and answer are tokenized as one text, as in the published code, because some tokenizers
    treat the first word of a text differently.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    texts = [BEFORE + question + AFTER for question in questions]
    prompts = _ids(tokenizer, texts)
    if answers is None:
        return [start + prompt for prompt in prompts], [[] for _ in prompts]
    joint = _ids(tokenizer, [text + answer for text, answer in zip(texts, answers, strict=True)])
    ends = [
        ids[len(prompt) :] if ids[: len(prompt)] == prompt else _ids(tokenizer, [answer])[0]
        for ids, prompt, answer in zip(joint, prompts, answers, strict=True)
    ]
    return [start + prompt for prompt in prompts], ends


def name_ids(tokenizer: PreTrainedTokenizerBase, name: str) -> list[int]:
    """Token ids of a name within a sentence, where it follows a space."""
    before, whole = _ids(tokenizer, ["sound of", f"sound of {name}"])
    return whole[len(before) :]


def near_distances(tokenizer: PreTrainedTokenizerBase, step: float = 0.5, farthest: float = 10.0) -> Tensor:
    """Neighbours of each token that is a whole distance, such as 3.5m: (vocabulary, 2), a `step` nearer and farther.

    Every other token, and a distance without a neighbour, has its own id. Llama's vocabulary holds no distances.
    """
    near = torch.arange(len(tokenizer)).unsqueeze(1).repeat(1, 2)
    count = round(farthest / step) + 1
    for space in ("", " "):
        distances = _ids(tokenizer, [f"{space}{step * number:g}m" for number in range(count)])
        for nearer, farther in pairwise(distances):
            if len(nearer) == len(farther) == 1:
                near[nearer, 1], near[farther, 0] = farther[0], nearer[0]
    return near


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of each text; special tokens are neither added nor recognised, so "</s>" in a question is text."""
    if not getattr(tokenizer, "is_fast", False):
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []
    # Past transformers, whose wrapper takes two thirds of the time.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return [encoded.ids for encoded in backend.encode_batch_fast(texts, add_special_tokens=False)]


def to_text(tokenizer: PreTrainedTokenizerBase, ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
    """Text of each row of generated ids up to its first EOS, stripped."""
    rows = ids.tolist() if isinstance(ids, Tensor) else [list(row) for row in ids]
    end = tokenizer.eos_token_id
    rows = [row[: row.index(end)] if end in row else row for row in rows]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text.strip() for text in texts]


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding token, or its EOS if it has none, as Llama 2; padding is never attended to."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def collate(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad: int, end: int) -> TextBatch:
    """Batch rows of [padding, prompt, answer, end, padding]; all answers start in the same column."""
    middle, longest = max(map(len, prompts)), max(map(len, answers)) + 1
    size = len(prompts), middle + longest
    ids, mask = torch.full(size, pad), torch.zeros(size, dtype=torch.long)
    labels = torch.full((len(prompts), longest), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        first, last = middle - len(prompt), middle + len(answer) + 1
        ids[row, first:last] = torch.tensor([*prompt, *answer, end])
        mask[row, first:last] = 1
        labels[row, : last - middle] = ids[row, middle:last]
    return TextBatch(ids, mask, labels)


def collate_prompts(prompts: Sequence[Sequence[int]], pad: int) -> TextBatch:
    """Batch rows of [padding, prompt], for `BAT.generate`."""
    batch = collate(prompts, [[] for _ in prompts], pad, pad)
    return TextBatch(*(part[:, :-1] for part in batch))


def train_tokenizer(texts: Iterable[str], size: int = 4096) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of at most `size` tokens: PAD 0, BOS 1, EOS 2; lossless for any text.

    Merges stay within the words of `WORDS`, so that frequent words and distances are one token each if
    `size` allows it. The two constant parts of the prompt are one token each.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in (BEFORE, AFTER)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
