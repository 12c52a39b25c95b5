"""Embedders: the lexical one by hand, given vectors, an installed function, and an endpoint that misbehaves."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.core.errors import InputError
from batcli.evaluation.embed import BATCH, Lexical, endpoint, installed_function, label_vectors, sentence_model

LABELS = ["speech", "male speech, man speaking", "music", "dog", "accelerating, revving, vroom"]


def dense(embedder, texts, labels=LABELS) -> np.ndarray:
    """(texts, labels); what has no score is 0."""
    found = np.zeros((len(texts), len(labels)))
    for number, (scored, scores) in enumerate(embedder.columns(texts, labels)):
        found[scored, number] = scores
    return found


# ---- lexical -------------------------------------------------------------------------------------


def test_a_label_is_most_like_itself():
    assert dense(Lexical(), LABELS).argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    assert np.diag(dense(Lexical(), LABELS)) == pytest.approx(1.0)


def test_lexical_by_hand():
    """ "dog" and "music" are equally rare, so a text with both is at 45° to each."""
    assert dense(Lexical(), ["dog; music"])[0] == pytest.approx([0, 0, np.sqrt(0.5), np.sqrt(0.5), 0])


def test_words_around_the_labels_do_not_matter():
    texts = ["dog", "I can hear a DOG, barking loudly somewhere", "dogs"]
    scores = dense(Lexical(), texts)
    assert (scores == scores[0]).all()


def test_a_text_without_any_known_word_has_no_score():
    assert not dense(Lexical(), ["", "silence", "the of and"]).any()


@given(st.lists(st.text(max_size=30), max_size=5))
def test_lexical_scores_are_cosines_whatever_the_text(texts):
    scores = dense(Lexical(), texts)
    assert ((scores >= 0.0) & (scores <= 1.0)).all()


def test_the_hash_tells_vocabularies_apart():
    assert Lexical().hash(LABELS) == Lexical().hash(list(LABELS))
    assert Lexical().hash(LABELS) != Lexical().hash(LABELS[:-1])


# ---- vectors -------------------------------------------------------------------------------------


def test_given_label_vectors(tmp_path):
    """A text is the mean of the labels that it names; here they are at right angles."""
    path = tmp_path / "labels.npy"
    np.save(path, np.eye(5) * 3.0)
    named = {"dog and music": frozenset({2, 3}), "": frozenset()} | {n: frozenset({i}) for i, n in enumerate(LABELS)}
    embedder = label_vectors(path, LABELS, named.__getitem__)
    found = dense(embedder, ["dog and music", "music", ""])
    assert found == pytest.approx(np.array([[0, 0, np.sqrt(0.5), np.sqrt(0.5), 0], [0, 0, 1, 0, 0], [0] * 5]), abs=1e-6)
    assert embedder.name == "labels:labels.npy"


@pytest.mark.parametrize(
    "array", [np.zeros((4, 2)), np.zeros(5), np.zeros((5, 2), dtype=int), np.array([{"a": 1}] * 5, dtype=object)]
)
def test_label_vectors_that_do_not_fit_are_refused(tmp_path, array):
    path = tmp_path / "labels.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InputError, match=r"labels\.npy"):
        label_vectors(path, LABELS, lambda text: frozenset())


def test_an_installed_function(tmp_path, monkeypatch):
    (tmp_path / "lengths.py").write_text("def embed(texts):\n    return [[len(text), 1.0] for text in texts]\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = dense(installed_function("lengths:embed"), ["speech", "x"], ["speech"])
    assert found[:, 0] == pytest.approx([1.0, (6 + 1) / np.sqrt(37 * 2)])


@pytest.mark.parametrize("where", ["nowhere_at_all:embed", "json:nothing", "json", ""])
def test_a_function_that_is_not_there(where):
    with pytest.raises(InputError, match="--embedder"):
        installed_function(where)


@pytest.mark.parametrize("rows", ["[[1.0]]", "[[float('nan')]] * len(texts)", "[1.0] * len(texts)"])
def test_vectors_that_are_none(tmp_path, monkeypatch, rows):
    (tmp_path / "broken.py").write_text(f"def embed(texts):\n    return {rows}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "broken", raising=False)
    with pytest.raises(InputError, match="broken"):
        dense(installed_function("broken:embed"), ["a", "b", "c"], ["d", "e"])


def test_a_sentence_model_from_a_directory(tmp_path):
    """Tiny, random and offline: what matters is that equal texts have the cosine 1."""
    pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1, "dog": 2, "music": 3}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]")), pad_token="[PAD]"
    )
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=4, initializer_range=1.0, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    embedder = sentence_model(str(tmp_path / "bert"))
    found = dense(embedder, ["dog", "music"], ["dog", "music"])
    assert np.diag(found) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert found[0, 1] < 0.9999
    assert embedder.name == "sentence:bert"


def test_a_sentence_model_that_is_not_there(tmp_path):
    with pytest.raises(InputError):
        sentence_model(str(tmp_path / "nothing"))


# ---- an endpoint ---------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Answers with the length of each text, after failing in the ways that it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures: list[tuple[int, str]] = []
        self.batches: list[list[str]] = []
        self.keys: set[str | None] = set()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.add(self.headers.get("Authorization"))
        if self.server.failures:
            status, body = self.server.failures.pop(0)
        else:
            self.server.batches.append(request["input"])
            rows = [{"index": i, "embedding": [len(text), 1.0]} for i, text in enumerate(request["input"])]
            status, body = 200, json.dumps({"data": rows[::-1]})
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch):
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{running.server_port}/v1/")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        yield running
        running.shutdown()


def test_endpoint_sends_each_text_once(server, tmp_path):
    texts = [f"text {n}" for n in range(BATCH)] + ["two\nlines"]
    first = dense(endpoint("small", tmp_path / "cache.sqlite"), texts)
    assert server.keys == {"Bearer sk-secret"}
    assert [len(batch) for batch in server.batches] == [len(LABELS), BATCH, 1]
    assert server.batches[-1] == ["two lines"]
    again = dense(endpoint("small", tmp_path / "cache.sqlite"), texts)
    assert len(server.batches) == 3, "everything is in the cache"
    assert (first == again).all()
    dense(endpoint("large", tmp_path / "cache.sqlite"), ["text 0"])
    assert len(server.batches) == 5, "another model has other embeddings"


def test_endpoint_tries_again(server, tmp_path):
    server.failures = [(500, "oops"), (429, "slow down"), (200, "not JSON")]
    waits: list[float] = []
    found = dense(endpoint("small", tmp_path / "cache.sqlite", waits.append), ["speech"], ["speech"])
    assert found == pytest.approx(1.0)
    assert waits == [1.0, 7.0, 4.0]


def test_endpoint_that_never_answers(server, tmp_path):
    server.failures = [(503, "down")] * 20
    with pytest.raises(InputError, match="6 attempts"):
        dense(endpoint("small", tmp_path / "cache.sqlite", lambda seconds: None), ["a"])


@pytest.mark.parametrize("answer", ['{"data": []}', "[]", '{"data": [{"index": 0, "embedding": "x"}]}', '{"error": 1}'])
def test_endpoint_with_a_strange_answer(server, tmp_path, answer):
    server.failures = [(200, answer)]
    with pytest.raises(InputError, match="embeddings"):
        dense(endpoint("small", tmp_path / "cache.sqlite", lambda seconds: None), ["a"])


def test_endpoint_does_not_show_the_key(server, tmp_path):
    server.failures = [(401, "wrong key: sk-secret")]
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        dense(endpoint("small", tmp_path / "cache.sqlite"), ["a"])
    assert "sk-secret" not in str(caught.value)


def test_endpoint_that_is_no_address(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", "file:///etc")
    with pytest.raises(InputError, match="OPENAI_BASE_URL"):
        endpoint("small", tmp_path / "cache.sqlite")


def test_a_cache_that_is_none(server, tmp_path):
    (tmp_path / "cache.sqlite").write_text("this is no database" * 100)
    with pytest.raises(InputError, match="--embedder-cache"):
        dense(endpoint("small", tmp_path / "cache.sqlite"), ["a"])
