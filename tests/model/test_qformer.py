import pytest
import torch
from torch import nn

from batcli.model.config import QFormerConfig
from batcli.model.encoders.token_kind import NO_EVENT, TokenKind
from batcli.model.qformer import NO_TOKEN, Projector, QuestionProjector

CONFIG = QFormerConfig(layers=2, queries=5, dim=16, heads=2)
SOURCES = TokenKind(7, 1)


def test_queries_attend_to_a_set_of_tokens():
    torch.manual_seed(0)
    projector = Projector(CONFIG, 12, 24).eval()
    tokens = torch.randn(3, 40, 12)
    out = projector(tokens)
    assert out.shape == (3, 5, 24)
    torch.testing.assert_close(projector(tokens[:, torch.randperm(40)]), out)  # they carry their own positions
    torch.testing.assert_close(projector(tokens[1:2]), out[1:2])
    assert not torch.allclose(projector(tokens + torch.randn(3, 40, 12)), out, atol=1e-3)


def test_outputs_are_normalised():
    out = Projector(CONFIG, 12, 24).eval()(torch.randn(2, 40, 12))
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(-1, correction=0), torch.ones(2, 5), atol=1e-3, rtol=0)


def test_source_tokens_follow_the_queries_and_do_not_change_them():
    torch.manual_seed(0)
    projector = Projector(CONFIG, 12, 24, source_kind=SOURCES, n_events=4).eval()
    projector.names.set([[1], [2, 3], [4], [5]])
    words = nn.Embedding(20, 24)
    tokens, sources = torch.randn(2, 40, 12), torch.randn(2, 3, 1 + 7)
    sources[..., 0] = torch.tensor([0, 1, 2])
    out = projector(tokens, sources, words)
    assert out.shape == (2, 5 + 3, 24)
    torch.testing.assert_close(out[:, :5], projector(tokens))
    changed = sources.clone()
    changed[:, 1, 1:] += 1
    differs = (projector(tokens, changed, words) != out).any(-1).any(0)
    assert differs.tolist() == [False] * 5 + [False, True, False]


def test_a_source_token_carries_its_events_name():
    torch.manual_seed(0)
    projector = Projector(CONFIG, 12, 24, source_kind=SOURCES, n_events=2).eval()
    projector.names.set([[1, 2], [3]])
    words = nn.Embedding(20, 24)
    sources = torch.zeros(1, 2, 1 + 7)
    sources[0, :, 0] = torch.tensor([0, 1])
    first, second = projector(torch.zeros(1, 40, 12), sources, words)[0, -2:]
    names = torch.stack([words.weight[1:3].mean(0), words.weight[3]])
    names = names / names.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(first - second, names[0] - names[1], atol=1e-4, rtol=1e-4)


def test_words_carry_the_places_of_the_events_named_before_them():
    torch.manual_seed(0)
    projector = Projector(CONFIG, 12, 24, source_kind=SOURCES, n_events=3).eval()
    projector.names.set([[1, 2], [3], [2]])
    sources = torch.randn(2, 2, 1 + 7)
    sources[..., 0] = torch.tensor([[0, 1], [1, 2]])
    ids = torch.tensor([[9, 1, 2, 9, 3, 9, 1], [9, 1, 9, 2, 3, 9, NO_TOKEN]])
    words = torch.randn(2, 7, 24)
    mentioned = projector.mention(ids, words, sources)
    # Not half a name, not an event without a token, and not NO_TOKEN.
    assert (mentioned != words).any(-1).tolist() == [[False] + [True] * 6, [False] * 3 + [True] * 3 + [False]]
    place = mentioned - words / words.square().mean(-1, keepdim=True).sqrt()
    for same in ((1, 2), (2, 3), (4, 5), (5, 6)):
        torch.testing.assert_close(place[0, same[0]], place[0, same[1]])
    assert not torch.allclose(place[0, 3], place[0, 4], atol=0.1)

    def changes(source: int) -> list[int]:
        moved = sources.clone()
        moved[0, source, 1:] += 1
        return (projector.mention(ids, words, moved) != mentioned)[0].any(-1).nonzero()[:, 0].tolist()

    assert changes(1) == [4, 5, 6]
    assert changes(0) == [1, 2, 3, 4, 5, 6]  # the event named first is also the previous one of the second
    nameless = torch.tensor([[9, 9, 9]] * 2)
    assert torch.equal(projector.mention(nameless, words[:, :3], sources), words[:, :3])


SEVERAL = TokenKind(7, 3)


def several(events: list[list[int]], shares: list[list[float]]) -> torch.Tensor:
    """Tokens (1, K, SEVERAL.width) with these names and random values."""
    parts = [torch.tensor(events).float(), torch.tensor(shares), torch.randn(len(events), SEVERAL.dim)]
    return torch.cat(parts, -1)[None]


def test_a_token_with_several_names_is_found_by_any_of_them_and_carries_their_mean():
    torch.manual_seed(0)
    projector = Projector(CONFIG, 12, 24, SEVERAL, n_events=4).eval()
    projector.names.set([[1, 2], [3], [4], [5]])
    sources = several(
        [[0, 2, NO_EVENT], [3, NO_EVENT, NO_EVENT], [NO_EVENT] * 3], [[0.75, 0.25, 0], [1, 0, 0], [0] * 3]
    )
    ids = torch.tensor([[9, 1, 2, 9, 4, 9, 5, 9, 3]])
    words = nn.Embedding(20, 24)
    text = torch.randn(1, 9, 24)
    mentioned = projector.mention(ids, text, sources)
    added = mentioned - text / text.square().mean(-1, keepdim=True).sqrt()
    assert (mentioned != text).any(-1).tolist() == [[False] + [True] * 8]
    # Event 2 is of the source that event 0 named already, so nothing changes until event 3, and event 1 has no token.
    for column in (2, 3, 4, 5):
        torch.testing.assert_close(added[0, column], added[0, 1])
    torch.testing.assert_close(added[0, 8], added[0, 6])
    assert not torch.allclose(added[0, 6], added[0, 5], atol=0.1)
    out = projector(torch.zeros(1, 9, 12), sources, words)[0, -3:]
    name = 0.75 * words.weight[1:3].mean(0) + 0.25 * words.weight[4]
    place = projector.sources(SEVERAL.split(sources).values)[0]
    torch.testing.assert_close(out[0] - place[0], name / name.square().mean().sqrt(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out[2], place[2])  # a token without a name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.017, 1.0, 20.0])
def test_a_pretrained_model_s_words_keep_their_scale(scale: float, dtype: torch.dtype):
    """At first they are as they were; what is learned to be added has their own scale, whatever that is."""
    torch.manual_seed(0)
    projector = Projector(CONFIG, 12, 24, SOURCES, n_events=3, pretrained=True).eval()
    projector.names.set([[1, 2], [3], [2]])
    sources = torch.randn(1, 2, 1 + 7)
    sources[..., 0] = torch.tensor([0, 1])
    ids, words = torch.tensor([[9, 1, 2, 9, 3]]), torch.randn(1, 5, 24)
    words[:, 3] = 0  # as the padding of some language models
    text = (scale * words).to(dtype)
    assert torch.equal(projector.mention(ids, text, sources), text)
    nn.init.constant_(projector.mentions.map[1].weight, 0.5)
    mentioned = projector.mention(ids, text, sources)
    assert mentioned.dtype == dtype
    share = (mentioned - text).float().square().mean(-1).sqrt() / text.float().square().mean(-1).sqrt()
    assert share[0, 0] == 0
    assert share[0, [1, 2, 4]].tolist() == pytest.approx([0.5] * 3, rel=0.05)
    assert not mentioned[0, 3].any()


KINDS = {"patches": TokenKind(12, 0), "sources": SOURCES}


def question_projector():
    torch.manual_seed(0)
    config = QFormerConfig(2, 5, 16, 2, cross_attention_frequency=1, dropout=0.0, reads_question=True)
    projector = QuestionProjector(config, KINDS, 24, n_events=4).eval()
    projector.names.set([[1], [2, 3], [4], [5]])
    sources = torch.randn(2, 3, 1 + 7)
    sources[..., 0] = torch.tensor([0, 1, 2])
    encoding = {"patches": torch.randn(2, 9, 12), "sources": sources}
    ids = torch.tensor([[9, 8, 1, 7], [9, 8, 2, 3]])
    return projector, encoding, ids, torch.ones_like(ids), nn.Embedding(20, 24)


def test_only_the_queries_reach_the_language_model():
    projector, encoding, ids, mask, words = question_projector()
    out = projector(encoding, ids, mask, words)
    assert out.shape == (2, 5, 24)
    for name in encoding:
        changed = {**encoding, name: encoding[name].clone()}
        changed[name][..., 1:] += 1
        assert not torch.allclose(projector(changed, ids, mask, words), out, atol=1e-3)
    alone = {"sources": encoding["sources"]}
    assert projector(alone, ids, mask, words).shape == out.shape
    torch.testing.assert_close(
        projector({name: part[1:] for name, part in encoding.items()}, ids[1:], mask[1:], words), out[1:]
    )


def test_the_queries_read_the_question_in_its_order_and_not_its_padding():
    projector, encoding, ids, mask, words = question_projector()
    out = projector(encoding, ids, mask, words)
    assert not torch.allclose(projector(encoding, ids.flip(1), mask, words), out, atol=1e-3)
    padded = torch.cat([torch.full((2, 3), 6), ids], 1)
    shown = torch.cat([torch.zeros_like(ids[:, :3]), mask], 1)
    torch.testing.assert_close(projector(encoding, padded, shown, words), out)


def test_a_named_token_carries_its_name_through_the_map_of_the_words():
    projector, _, _, _, words = question_projector()
    sources = torch.zeros(1, 2, 1 + 7)
    sources[0, :, 0] = torch.tensor([0, 2])
    first, second = projector._map_tokens("sources", sources, words)[0]
    names = words.weight[[1, 4]]
    names = projector.words(names / names.square().mean(-1, keepdim=True).sqrt())
    torch.testing.assert_close(first - second, names[0] - names[1], atol=1e-4, rtol=1e-4)


def test_half_precision_tokens_are_read_in_the_projectors_own():
    projector = Projector(CONFIG, 12, 24).eval()
    assert projector(torch.randn(2, 9, 12).half()).dtype == torch.float32
