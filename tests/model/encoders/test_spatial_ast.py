from dataclasses import replace

import pytest
import torch

from batcli.model.config import EncoderConfig
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.model.encoders.transformer import Block, drop_patches, mask_bands, positions

CONFIG = EncoderConfig(
    seconds=1.0, n_classes=7, n_mels=32, dim=16, depth=2, heads=2,
    drop_path=0.0, patch_mask=0.0, frame_mask=0, band_mask=0,
)  # fmt: skip
PATCHES = 8 * 2


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return SpatialAST(CONFIG).eval()


def scene(n=2, seed=1):
    return 0.1 * torch.randn(n, 2, CONFIG.samples, generator=torch.Generator().manual_seed(seed))


def test_three_summaries_then_one_token_per_patch(encoder):
    tokens = encoder(scene())
    assert tokens.shape == (2, 3 + PATCHES, 16)
    readings = encoder.heads(tokens)
    assert [part.shape for part in readings] == [(2, 7), (2, 21), (2, 360), (2, 180)]


def test_each_head_reads_its_own_summary(encoder):
    tokens = encoder(scene())
    for summary, changed in ((0, ["distance"]), (1, ["azimuth", "elevation"]), (2, ["events"])):
        other = tokens.clone()
        other[:, summary] += torch.randn(16)
        before, after = encoder.heads(tokens), encoder.heads(other)
        assert [name for name in before._fields if not torch.equal(getattr(before, name), getattr(after, name))] == (
            changed
        )


def test_a_scene_does_not_depend_on_its_batch(encoder):
    wave = scene(3)
    torch.testing.assert_close(encoder(wave)[1:2], encoder(wave[1:2]), rtol=1e-4, atol=1e-5)


def test_the_ears_are_told_apart(encoder):
    wave = scene()
    assert not torch.allclose(encoder(wave), encoder(wave.flip(1)), atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 2, 31_999), (2, 1, 32_000), (2, 32_000)])
def test_another_length_is_an_error_and_not_a_stretched_time(encoder, shape):
    with pytest.raises(ValueError, match=r"takes \(B, 2, 32000\)"):
        encoder(torch.zeros(shape))


def test_positions_are_fixed_and_differ_for_every_patch():
    table = positions(8, 2, 16)[0]
    assert table.shape == (1 + PATCHES, 16)
    assert (table[0] == 0).all()
    assert len({tuple(row.tolist()) for row in table[1:]}) == PATCHES
    assert "pos_embed" not in dict(SpatialAST(CONFIG).named_parameters())


def test_training_drops_whole_times_and_bands_of_patches():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(4), indexing="ij")
    x = torch.stack([rows, columns], dim=-1).reshape(1, 32, 2).expand(50, -1, -1).float()
    torch.manual_seed(0)
    kept = drop_patches(x, (8, 4), 0.25)
    assert kept.shape == (50, 6 * 3, 2)
    for sample in kept:
        times, bands = (sample[:, axis].unique() for axis in (0, 1))
        expected = torch.cartesian_prod(times, bands)
        assert torch.equal(sample, expected)  # in order, and nothing else
    assert len({tuple(sample.flatten().tolist()) for sample in kept}) > 10  # drawn for each sample


def test_training_zeroes_one_stretch_of_at_most_the_given_length():
    """The same in a whole batch, and another in each."""
    torch.manual_seed(0)
    batches = [mask_bands(torch.ones(3, 1, 20, 3), 2, 8) for _ in range(400)]
    assert all((batch == batch[:1]).all() for batch in batches)
    out = torch.stack([batch[0] for batch in batches])
    assert (out == out[..., :1]).all()  # all bands of a frame alike
    hidden = 20 - out[..., 0].sum((1, 2))
    assert hidden.min() == 0
    assert hidden.max() == 8
    edges = (out[:, 0, 1:, 0] != out[:, 0, :-1, 0]).sum(1)
    assert edges.max() <= 2
    assert (out[:, 0, :, 0].mean(0) < 1).all()  # every frame is hidden now and then


def test_weights_start_as_in_the_published_class():
    """Heads near zero, matrices of the blocks at 0.02, patches as a linear map of 256 values (Xavier)."""
    torch.manual_seed(0)
    config = replace(CONFIG, dim=128, n_classes=355)
    encoder = SpatialAST(config)
    for head in (encoder.head, encoder.distance_head, encoder.azimuth_head, encoder.elevation_head):
        assert head.weight.std().item() == pytest.approx(2e-5, rel=0.1)
    assert encoder.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert encoder.cls_tokens.std().item() == pytest.approx(0.02, rel=0.2)
    bound = (6 / (256 + 128)) ** 0.5
    assert encoder.patch_embed.proj.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
    assert all((head.bias == 0).all() for head in (encoder.head, encoder.blocks[1].mlp.fc1))


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation():
    torch.manual_seed(0)
    block = Block(8, 2, 2.0, drop=0.5)
    x = torch.randn(1, 5, 8)
    assert torch.equal(block.eval()._drop_path(x), x)
    mean = block.train()._drop_path(x.expand(4000, -1, -1)).mean(0)
    torch.testing.assert_close(mean, x[0], atol=0.1, rtol=0.1)


def test_training_masks_and_evaluation_does_not():
    torch.manual_seed(0)
    encoder = SpatialAST(replace(CONFIG, patch_mask=0.5, frame_mask=50, band_mask=10, drop_path=0.3))
    assert encoder.train()(scene()).shape == (2, 3 + 4 * 1, 16)
    encoder.eval()
    assert torch.equal(encoder(scene()), encoder(scene()))


def test_every_weight_learns(encoder):
    tokens = encoder.train()(scene())
    sum(part.square().mean() for part in encoder.heads(tokens)).backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()] == []
