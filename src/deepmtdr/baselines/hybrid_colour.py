"""The hybrid colour space LGI of Vo and Verma (see `ckml` and `vnxk`), differentiable.

Published: "LGI". The paper's text is not public, and we found no source for the colour space of the I.

Assumed: L of CIE Lab (sRGB, D65), G of RGB, and the intensity I = (R + G + B) / 3 of HSI, not the I of YIQ. The
authors' other paper, "Discriminant Color Texture Descriptors for Diabetic Retinopathy Recognition", builds its hybrid
spaces (a*SI, bSI) from the S and I of HSI, and those and HSI scored best there. All three are scaled to [0, 1].
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of linear R, G, B in the luminance Y (sRGB, D65)."""
DARK = (6 / 29) ** 3
"""Below this luminance, as a share of white, L is a linear function of it."""


def lightness(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Compute L of CIE Lab over 100: 0 is black, 1 white; the gradient is finite everywhere."""
    bright = ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    linear = torch.where(rgb > 0.04045, bright, rgb / 12.92)
    luminance = (linear * rgb.new_tensor(LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
    root = luminance.clamp_min(DARK) ** (1 / 3)  # the clamp keeps the gradient of black finite
    return torch.where(luminance > DARK, 1.16 * root - 0.16, luminance * (29 / 3) ** 3 / 100)


def to_lgi(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Compute lightness, green and intensity.

    Args:
        rgb: RGB in [0, 1].

    Returns:
        L / 100, G and (R + G + B) / 3, each in [0, 1].
    """
    with torch.autocast(rgb.device.type, enabled=False):
        rgb = rgb.float()
        return torch.cat([lightness(rgb), rgb[:, 1:2], rgb.mean(dim=1, keepdim=True)], dim=1)
