"""SRCNN and bicubic interpolation: start, size and learning of SRCNN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from deepmtdr.baselines.bicubic import Bicubic
from deepmtdr.baselines.srcnn import SRCNN
from deepmtdr.model.isr import bicubic
from deepmtdr.terms import SCALES


@pytest.mark.parametrize("scale", SCALES)
def test_untrained_srcnn_equals_bicubic(scale: int) -> None:
    lr = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        assert torch.equal(SRCNN()(lr, scale), Bicubic()(lr, scale))


def test_bicubic_equals_pillow() -> None:
    pixels = np.random.default_rng(0).integers(60, 190, (16, 16, 3), dtype=np.uint8)
    pillows = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC), float) / 255
    ours = Bicubic()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - pillows)[8:-8, 8:-8].max() < 1.5 / 255  # Pillow rounds between its passes


def test_parameter_count_on_luminance_is_the_published_one() -> None:
    published = 9 * 9 * 64 + 64 * 32 + 5 * 5 * 32
    assert published == 8_032
    on_rgb = 3 * 9 * 9 * 64 + 64 * 32 + 3 * 5 * 5 * 32 + (64 + 32 + 3)
    assert sum(p.numel() for p in SRCNN().parameters()) == on_rgb == 20_099


def test_a_few_training_steps_are_better_than_bicubic() -> None:
    torch.manual_seed(0)
    net, hr = SRCNN(), (torch.rand(2, 3, 1, 64) > 0.5).float().repeat(1, 1, 64, 1)
    lr = bicubic(hr, 1 / 2)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    before = net.loss(net(lr, 2), hr).item()
    for _ in range(40):
        optimiser.zero_grad()
        net.loss(net(lr, 2), hr).backward()
        optimiser.step()
    assert net.loss(net(lr, 2), hr).item() < 0.8 * before
