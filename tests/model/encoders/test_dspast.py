"""DSpAST: its features, its three branches, its heads, and the scale that training adapts."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from batcli.model.bat import BAT
from batcli.model.checkpoint import finish, load_encoders, load_run, save_run, write_config
from batcli.model.config import DspastConfig, LlmConfig, ModelConfig, QFormerConfig
from batcli.model.encoders.dspast import AdaCos, DSpAST
from batcli.model.features import dspast_features, features, mel_filterbank, spectrum
from batcli.model.llm import new_llm
from batcli.model.tokens import collate_prompts

CONFIG = DspastConfig(
    seconds=1.0, n_classes=7, n_mels=32, dim=16, depth=2, heads=2, branch_dim=4,
    drop_path=0.0, patch_mask=0.0, frame_mask=0, band_mask=0,
)  # fmt: skip
PATCHES = 8 * 2
CORRELATION, RATIO = 2, 3
MEL = torch.from_numpy(mel_filterbank())


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = DSpAST(CONFIG).eval()
    with torch.no_grad():
        encoder.head.weight.normal_()
    return encoder


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(n=2, seed=1):
    return 0.1 * noise(n, 2, CONFIG.samples, seed=seed)


def test_four_of_the_features_are_those_of_spatial_ast():
    stft = spectrum(noise(2, 2, 6400))
    found = dspast_features(stft, MEL)
    assert found.shape == (2, 6, 21, 128)
    torch.testing.assert_close(found[:, [0, 1, 4, 5]], features(stft, MEL))


@pytest.mark.parametrize("later", [-30, -1, 0, 1, 12, 63])
def test_the_correlation_peaks_at_the_lag_of_the_ears(later):
    sound = noise(32_000)
    both = torch.stack([sound, torch.roll(sound, later)])[None]
    found = dspast_features(spectrum(both), MEL)[0, CORRELATION, 2:-2]
    assert (found.argmax(-1) == 64 - later).all()
    assert found.abs().max() < 1 + 1e-5


def test_the_ratio_is_the_exponential_of_the_difference_in_db():
    sound = noise(6400)
    found = dspast_features(spectrum(torch.stack([2 * sound, sound])[None]), MEL)[0, RATIO]
    torch.testing.assert_close(found, torch.full_like(found, math.exp(10 * math.log10(2))), rtol=1e-3, atol=0)


def test_silence_correlates_at_lag_0_and_has_no_ratio():
    found = dspast_features(spectrum(torch.zeros(1, 2, 3200)), MEL)
    assert (found[:, :2] == -100).all()
    torch.testing.assert_close(found[:, CORRELATION], F.one_hot(torch.tensor(64), 128).float().expand(1, 11, 128))
    assert (found[:, RATIO] < 1e-26).all()
    torch.testing.assert_close(found[:, 4], MEL.sum(0).expand(1, 11, 128))
    assert (found[:, 5] == 0).all()


@pytest.mark.parametrize("ear", [0, 1])
def test_one_silent_ear_gives_finite_features_and_running_means(encoder, ear):
    """Its ratio is so large that its square does not fit into 32 bits."""
    wave = 30 * scene()
    wave[:, ear] = 0
    assert dspast_features(spectrum(wave), MEL).isfinite().all()
    assert encoder(wave).isfinite().all()
    encoder.train()(wave)
    assert all(buffer.isfinite().all() for buffer in encoder.buffers())


def test_three_summaries_then_one_token_per_patch_of_three_branches(encoder):
    tokens = encoder(scene())
    assert tokens.shape == (2, 3 + PATCHES, 3 * 4)
    assert (encoder.dim, encoder.count) == (12, 3 + PATCHES)
    assert [part.shape for part in encoder.heads(tokens)] == [(2, 7), (2, 21), (2, 360), (2, 180)]


def test_the_summaries_may_be_kept_from_the_q_former(encoder):
    patches = DSpAST(replace(CONFIG, summary_tokens=False)).eval()
    patches.load_state_dict(encoder.state_dict())
    wave = scene()
    tokens = patches.tokenize(wave, spectrum(wave))
    assert patches.count == tokens.shape[1] == PATCHES
    assert torch.equal(tokens, encoder(wave)[:, 3:])
    assert torch.equal(patches.hear(wave, spectrum(wave)).scores, encoder.hear(wave, spectrum(wave)).scores)


def test_each_head_reads_its_own_branch_and_all_three_summaries_of_it(encoder):
    tokens = encoder(scene())
    for branch, changed in ((0, ["distance"]), (1, ["azimuth", "elevation"]), (2, ["events"])):
        for summary in range(3):
            other = tokens.clone()
            other[:, summary, 4 * branch : 4 * branch + 4] += torch.randn(4)
            before, after = encoder.heads(tokens), encoder.heads(other)
            different = [n for n in before._fields if not torch.equal(getattr(before, n), getattr(after, n))]
            assert different == changed


def test_a_branch_is_its_own_stem_summaries_and_head_over_shared_blocks(encoder):
    wave = scene()
    before = encoder(wave).split(4, -1)
    with torch.no_grad():
        encoder.conv_downsample2[1].weight.mul_(-1)
    after = encoder(wave).split(4, -1)
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_the_attention_scales_each_feature_between_0_and_1(encoder):
    attention = encoder.conv_downsample1[0]
    x = noise(3, 6, 4, 5)
    weights = attention.weights(x)
    assert ((weights > 0) & (weights < 1)).all()
    torch.testing.assert_close(attention(x), x * weights.view(3, 6, 1, 1))


def test_a_scene_does_not_depend_on_its_batch(encoder):
    wave = scene(3)
    torch.testing.assert_close(encoder(wave)[1:2], encoder(wave[1:2]), rtol=1e-4, atol=1e-5)


def test_training_masks_each_branch_anew():
    torch.manual_seed(0)
    encoder = DSpAST(replace(CONFIG, frame_mask=50))
    x = torch.ones(2, 6, 128, 32)
    hidden = [(encoder.stem(task, x)[0, 0] == 0).all(-1).nonzero().flatten().tolist() for task in range(3)]
    assert len({tuple(frames) for frames in hidden}) == 3
    assert DSpAST(replace(CONFIG, patch_mask=0.5)).train()(scene()).shape == (2, 3 + 4 * 1, 12)
    encoder.eval()
    assert torch.equal(encoder(scene()), encoder(scene()))


def test_every_weight_learns(encoder):
    tokens = encoder.train()(scene())
    sum(part.square().mean() for part in encoder.heads(tokens)).backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("reads_question", [False, True])
@pytest.mark.parametrize("summary_tokens", [False, True])
def test_a_model_over_dspast_answers_and_is_the_same_when_loaded(reads_question, summary_tokens, tokenizer, tmp_path):
    config = ModelConfig(
        None,
        QFormerConfig(layers=2, queries=3, dim=16, heads=2, reads_question=reads_question),
        None,
        LlmConfig(24, 32, 2, 4),
        dspast=replace(CONFIG, summary_tokens=summary_tokens),
    )
    model = BAT(config, new_llm(config.llm, tokenizer)).eval()
    wave, prompts = scene(), collate_prompts([[3, 4, 5], [6]], 0)

    def heard(bat):
        with torch.no_grad():
            encoding = bat.encode(wave)
            assert encoding["dspast"].shape == (2, PATCHES + 3 * summary_tokens, 12)
            assert encoding["dspast"].numel() * 4 == 2 * bat.encoding_bytes
            return bat.audio_embeddings(encoding, prompts)

    write_config(tmp_path, config, {}, None)
    save_run(tmp_path, model, tokenizer, None)
    finish(tmp_path)
    again, _, found = load_run(tmp_path)
    assert found == config
    assert torch.equal(heard(again), heard(model))
    assert load_encoders(tmp_path)[0].keys() == {"dspast"}


def published_scale(scale, cosines, target):
    """The formula, written out."""
    total = sum(
        1 + sum(math.exp(scale * cosine) for number, cosine in enumerate(row) if number != true)
        for row, true in zip(cosines.tolist(), target.tolist(), strict=True)
    )
    angles = sorted(math.acos(row[true]) for row, true in zip(cosines.tolist(), target.tolist(), strict=True))
    median = angles[(len(angles) - 1) // 2]
    return math.log(total / len(cosines)) / math.cos(min(math.pi / 4, median))


@pytest.mark.parametrize("count", [1, 4, 5])
def test_the_scale_adapts_to_the_counted_scenes(count):
    head = AdaCos(4, 21)
    assert head.s.item() == pytest.approx(math.sqrt(2) * math.log(20))
    cosines, target = head(noise(count, 4)), torch.arange(count)
    expected = published_scale(head.s.item(), cosines, target)
    more = [torch.cat([part, part.roll(1, -1).flip(0)]) for part in (cosines, target)]
    head.adapt(*more, torch.arange(2 * count) < count)
    assert head.s.item() == pytest.approx(expected, rel=1e-4)


def test_the_scale_stays_where_no_scene_counts():
    head = AdaCos(4, 21)
    before = head.s.clone()
    head.adapt(head(noise(3, 4)), torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool))
    assert torch.equal(head.s, before)
