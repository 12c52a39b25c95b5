"""Embedders: the similarity of predicted texts with the names of classes, for mean average precision.

The published mAP is the cosine similarity of a text's embedding and that of each class name. The number
depends on the model, so a result carries the embedder's name and hash.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import re
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, open_memmap
from scipy.sparse import csr_array

from batcli.core.errors import InputError
from batcli.core.files import require_file, sha256
from batcli.data.answers import Vocabulary, read_labels
from batcli.evaluation.metrics import Column


class Embedder(Protocol):
    """A measure of similarity between texts and labels."""

    name: str

    def columns(self, texts: Sequence[str], labels: Sequence[str]) -> Iterator[Column]:
        """The similarity of every text with each label, one label after the other."""

    def hash(self, labels: Sequence[str]) -> str:
        """16 hex digits that differ whenever the similarities could."""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


# ---- words alone ---------------------------------------------------------------------------------

_STOP = frozenset(
    {"a", "an", "and", "at", "by", "for", "from", "in", "into", "of", "on", "or", "s", "the", "to", "with"}
)


def _words(text: str) -> set[str]:
    """The words of a text in lower case and singular, without function words."""
    words = set(re.findall(r"[^\W_]+", text.casefold())) - _STOP
    return {word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words}


def _rarity(labels: Sequence[str]) -> dict[str, float]:
    """Inverse document frequency of each word of the labels."""
    counts = Counter(word for label in labels for word in sorted(_words(label)))
    return {word: math.log((1 + len(labels)) / (1 + count)) + 1.0 for word, count in counts.items()}


class Lexical:
    """Cosine of bags of words, weighted by how rare a word is among the class names.

    Words of no class name are left out, so words around the labels do not matter.
    Needs no model: same texts, same scores, everywhere.
    """

    name = "lexical"

    def columns(self, texts: Sequence[str], labels: Sequence[str]) -> Iterator[Column]:
        rarity = _rarity(labels)
        rows, classes = _unit_rows(texts, rarity), _unit_rows(labels, rarity).toarray()
        for vector in classes:
            similar = np.round(rows @ vector, 9)  # sums differ in their last bits
            scored = np.flatnonzero(similar)
            yield scored, similar[scored]

    def hash(self, labels: Sequence[str]) -> str:
        return _digest(repr((1, list(labels), sorted(_rarity(labels).items()))).encode())


def _unit_rows(texts: Sequence[str], rarity: dict[str, float]) -> csr_array:
    """(texts, words): the weights of each text's known words, each row of length 1."""
    places = {word: place for place, word in enumerate(rarity)}
    weights = np.array(list(rarity.values()))
    bags = [sorted(places[word] for word in _words(text) if word in places) for text in texts]
    sizes = [len(bag) for bag in bags]
    norms = [math.sqrt(sum(weights[place] ** 2 for place in bag)) for bag in bags]
    columns = np.array([place for bag in bags for place in bag], dtype=int)
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=int)])
    return csr_array((weights[columns] / np.repeat(norms, sizes), columns, edges), shape=(len(texts), len(places)))


# ---- vectors -------------------------------------------------------------------------------------


class Vectors:
    """Cosine of vectors. `embed`: texts → (texts, dimensions)."""

    def __init__(self, name: str, embed: Callable[[Sequence[str]], np.ndarray], fingerprint: str) -> None:
        self.name, self.embed, self.fingerprint = name, embed, fingerprint

    def columns(self, texts: Sequence[str], labels: Sequence[str]) -> Iterator[Column]:
        classes, rows = self._unit(labels), self._unit(texts)
        every = np.arange(len(texts))
        for vector in classes:
            yield every, rows @ vector

    def _unit(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.asarray(self.embed(texts), dtype=np.float32) if len(texts) else np.empty((0, 0), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise InputError(f"shape {vectors.shape} for {len(texts)} texts", f"embedder {self.name}")
        if not np.isfinite(vectors).all():
            raise InputError("NaN or infinity in an embedding", f"embedder {self.name}")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def hash(self, labels: Sequence[str]) -> str:
        return _digest(repr((self.fingerprint, list(labels))).encode())


MAX_VECTORS = 1 << 28  # bytes: 527 labels of 4,096 dimensions take 17 MB


def label_vectors(path: Path, labels: Sequence[str], read: Callable[[str], frozenset[int]]) -> Vectors:
    """Given embeddings of the labels, as released: (labels, dimensions) in a `.npy`, in the labels' order.

    `read`: text → the labels that it names. A text's embedding is the mean of theirs.
    """
    if require_file(path).stat().st_size > MAX_VECTORS:  # NumPy reads a header as long as it says to be
        raise InputError(f"larger than {MAX_VECTORS:,} bytes", path)
    try:
        with open(path, "rb") as file, np.errstate(over="ignore"):
            # In memory, as large as the file is: what the header promises is then checked against that.
            given = open_memmap(path, "r") if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX else None
    except (ValueError, OSError, EOFError, SyntaxError, OverflowError, TokenError) as error:
        raise InputError(f"not a .npy array: {error!s:.200}", path) from None
    if given is None:
        raise InputError("not a .npy array", path)
    if given.ndim != 2 or len(given) != len(labels) or given.dtype.kind != "f":
        raise InputError(
            f"{given.dtype} array of shape {given.shape}, not a float vector for each of {len(labels)} labels",
            path,
            "give the labels it belongs to with --labels",
        )
    norms = np.linalg.norm(given, axis=1, keepdims=True)
    unit = np.asarray(given / np.where(norms > 0, norms, 1.0), dtype=np.float32)

    def embed(texts: Sequence[str]) -> np.ndarray:
        named = [sorted(read(text)) for text in texts]
        return np.array([unit[numbers].mean(axis=0) if numbers else np.zeros(unit.shape[1]) for numbers in named])

    return Vectors(f"labels:{path.name}", embed, sha256(path))


def sentence_model(where: str) -> Vectors:
    """A sentence-transformers model: a directory (or a name in the local Hugging Face cache)."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise InputError("sentence-transformers is missing", "--embedder", "pip install 'batcli[embed]'") from None
    path = Path(where)
    try:
        model = SentenceTransformer(where, local_files_only=True, trust_remote_code=False, device="cpu")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no sentence-transformers model: {error}", where, "give its directory") from None

    def embed(texts: Sequence[str]) -> np.ndarray:
        return model.encode(list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True)

    fingerprint = sha256(path) if path.is_dir() else _digest(embed(["dog", "music"]).tobytes())
    return Vectors(f"sentence:{path.name}", embed, fingerprint)


def installed_function(where: str) -> Vectors:
    """`package.module:function` of an installed package: a list of texts → (texts, dimensions)."""
    module, _, name = where.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"cannot be imported: {error}", f"--embedder python:{where}", "MODULE:FUNCTION") from None

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(function(list(texts)))

    return Vectors(f"python:{where}", embed, _digest(np.asarray(embed(["dog", "music"]), np.float32).tobytes()))


# ---- an endpoint ---------------------------------------------------------------------------------

BATCH = 256
ATTEMPTS = 6
TIMEOUT = 60.0  # seconds
_AGAIN = (408, 409, 429, 500, 502, 503, 504)


def endpoint(model: str, cache: Path, pause: Callable[[float], None] = time.sleep) -> Vectors:
    """An OpenAI-compatible `/embeddings`: `OPENAI_BASE_URL`, key in `OPENAI_API_KEY`.

    Every embedding is kept in `cache` (SQLite), so that a text is sent once. Line breaks become
    spaces before a text is sent, as in the published script.
    """
    base = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/")
    secret = os.environ.get("OPENAI_API_KEY", "")
    if not base.startswith(("http://", "https://")):
        raise InputError(f"not a web address: {base!r:.80}", "OPENAI_BASE_URL")

    def embed(texts: Sequence[str]) -> np.ndarray:
        plain = [text.replace("\n", " ") or " " for text in texts]
        keys = [hashlib.sha256(f"{base}\0{model}\0{text}".encode()).hexdigest() for text in plain]
        cache.parent.mkdir(parents=True, exist_ok=True)
        store = sqlite3.connect(cache, timeout=TIMEOUT)
        try:
            store.execute("CREATE TABLE IF NOT EXISTS embeddings (key TEXT PRIMARY KEY, vector BLOB NOT NULL)")
            known = {key: row[0] for key in keys if (row := store.execute(_SELECT, (key,)).fetchone())}
            missing = list({k: text for k, text in zip(keys, plain, strict=True) if k not in known}.items())
            for start in range(0, len(missing), BATCH):
                batch = missing[start : start + BATCH]
                vectors = _request(base, secret, model, [text for _, text in batch], pause)
                new = {k: vector.tobytes() for (k, _), vector in zip(batch, vectors, strict=True)}
                with store:
                    store.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", new.items())
                known |= new
        except sqlite3.Error as error:
            raise InputError(f"cannot be used as a cache: {error}", cache, "choose another --embedder-cache") from None
        finally:
            store.close()
        return np.stack([np.frombuffer(known[k], np.float32) for k in keys])

    return Vectors(model, embed, f"{base} {model}")


_SELECT = "SELECT vector FROM embeddings WHERE key = ?"


def _request(base: str, secret: str, model: str, texts: list[str], pause: Callable[[float], None]) -> np.ndarray:
    """Request embeddings (texts, dimensions), float32. Tries again after errors that may pass."""
    body = json.dumps({"model": model, "input": texts, "encoding_format": "float"}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    url = f"{base}/embeddings"
    for attempt in range(ATTEMPTS):
        wait = 2.0**attempt
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as answer:
                return _vectors(json.load(answer), len(texts), url)
        except urllib.error.HTTPError as error:
            message = f"HTTP {error.code}: {error.read(300).decode(errors='replace')}"
            if error.code not in _AGAIN:
                hint = "set OPENAI_API_KEY" if error.code in (401, 403) else None
                raise InputError(message.replace(secret, "…") if secret else message, url, hint) from None
            after = error.headers.get("Retry-After", "")
            wait = min(float(after), 60.0) if after.isdecimal() else wait
        except (OSError, ValueError) as error:  # no connection, cut off, not JSON
            message = str(error)
        if attempt < ATTEMPTS - 1:
            pause(wait)
    raise InputError(f"no answer after {ATTEMPTS} attempts: {message:.200}", url)


def _vectors(answer: Any, count: int, url: str) -> np.ndarray:
    try:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    except (KeyError, TypeError, ValueError):
        raise InputError("not an OpenAI-compatible answer", url) from None
    if vectors.ndim != 2 or len(vectors) != count:
        raise InputError(f"{len(vectors)} embeddings for {count} texts", url)
    return vectors


def default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "bat" / "embeddings.sqlite"


def embedder_of(text: str, vocabulary: Vocabulary, cache: Path | None) -> Embedder:
    """The embedder that a text such as `sentence:DIR` names. Raises InputError for any other text."""
    kind, _, value = text.partition(":")
    if kind == "lexical" and not value:
        return Lexical()
    if kind == "labels" and value:
        return label_vectors(Path(value), vocabulary.names, partial(read_labels, vocabulary=vocabulary))
    if kind == "sentence" and value:
        return sentence_model(value)
    if kind == "openai" and value:
        return endpoint(value, cache or default_cache())
    if kind == "python" and value:
        return installed_function(value)
    hint = "lexical, sentence:DIR, openai:MODEL, labels:FILE.npy or python:MODULE:FUNCTION"
    raise InputError(f"unknown embedder {text!r:.80}", "--embedder", hint)
