"""Paired augmentation: geometry for image and masks alike, a camera for the image alone; LR is derived after."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.datasets.frames import Frame
from deepmtdr.terms import Lesion


def to_tensor(pixels: np.ndarray) -> Float[Tensor, "3 h w"]:
    """8-bit pixels, h w 3, as RGB in [0, 1]."""
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")).float() / 255


def random_crop(
    frame: Frame, side: int, zoom: float, rng: np.random.Generator, lesion_share: float = 0.7
) -> tuple[Float[Tensor, "3 s s"], Float[Tensor, "4 s s"]]:
    """A square crop of the HR frame with its masks, brought to `side` px.

    With probability `lesion_share` it is centred near a lesion pixel of a type drawn at random among those present.

    Args:
        frame: a photograph that fills the HR frame (scale 1).
        side: of the result, px.
        zoom: the crop's own side is `side` times a factor in [1/zoom, zoom].
        rng: source of every choice.
        lesion_share: how often a lesion is sought.

    Returns:
        Image in [0, 1] and coverage in [0, 1] (zeros where nothing was annotated).
    """
    pixels, coverage = frame.pixels, frame.lesion_masks
    size = pixels.shape[0]
    own = min(round(side * zoom ** rng.uniform(-1, 1)), size)
    centre = rng.uniform(0.1 * size, 0.9 * size, 2)
    if coverage is not None and rng.random() < lesion_share:
        centre = _near_a_lesion(coverage, own, rng, centre)
    y, x = (int(np.clip(c - own / 2, 0, size - own)) for c in centre)
    image = to_tensor(pixels[y : y + own, x : x + own])
    masks = torch.zeros(len(Lesion), own, own)
    if coverage is not None:
        masks = torch.from_numpy(coverage[:, y : y + own, x : x + own].copy()).float() / 255
    if own == side:
        return image, masks
    both = F.interpolate(torch.cat([image, masks])[None], (side, side), mode="bilinear", antialias=True)[0]
    return both[:3], both[3:]


def _near_a_lesion(masks: np.ndarray, own: int, rng: np.random.Generator, otherwise: np.ndarray) -> np.ndarray:
    coarse = masks[:, ::4, ::4]
    for lesion in rng.permutation(len(Lesion)):
        rows, columns = np.nonzero(coarse[lesion])
        if len(rows):
            pick = rng.integers(len(rows))
            return 4 * np.array([rows[pick], columns[pick]]) + rng.uniform(-own / 3, own / 3, 2)
    return otherwise


def random_flip_rotate(images: Tensor, rng: np.random.Generator) -> Tensor:
    """One of the eight flips and quarter turns, the same for all channels of a ... h w tensor."""
    images = torch.rot90(images, int(rng.integers(4)), (-2, -1))
    return images.flip(-1) if rng.random() < 0.5 else images


def rotate(images: Float[Tensor, "c h w"], degrees: float, side: int) -> Float[Tensor, "c s s"]:
    """The middle of some channels, turned by an angle, bilinear; black where nothing is.

    Args:
        images: large enough (`rotation_margin`) that no corner is black.
        degrees: counter-clockwise.
        side: of the result, px.
    """
    angle = np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    places = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    height, width = images.shape[-2:]
    grid = torch.stack([(cos * x - sin * y) * 2 / width, (sin * x + cos * y) * 2 / height], dim=-1)
    return F.grid_sample(images[None], grid[None], mode="bilinear", align_corners=False)[0]


def rotation_margin(degrees: float) -> float:
    """How many times as wide a square has to be for one within it to be turned by so much."""
    angle = np.deg2rad(degrees)
    return float(abs(np.cos(angle)) + abs(np.sin(angle)))


def simulate_camera(
    image: Float[Tensor, "3 h w"],
    rng: np.random.Generator,
    *,
    gain: float,
    gamma: float,
    blur: float,
    noise: float,
    jpeg: int,
    vignetting: float = 0.0,
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
    """Another camera before the same retina: what it would show without loss, and what it takes (reading R24).

    Args:
        image: RGB in [0, 1].
        rng: source of every choice.
        gain: standard deviation of the log gain, half of it common to the channels and half their own.
        gamma: standard deviation of the log gamma.
        blur: largest standard deviation of a Gaussian blur, px.
        noise: largest standard deviation of Gaussian noise.
        jpeg: lowest JPEG quality; 100 compresses nothing.
        vignetting: largest loss of light at the corners, as a share; it falls with the square of the distance.

    Returns:
        The image under the camera's gain, cast and tone curve, and the same blurred, grainy and compressed; both in
        [0, 1], and what was black stays black but for the noise within the field of view.
    """
    inside = (image.amax(dim=0, keepdim=True) > 8 / 255).float()
    common, own = rng.normal(0, 0.7 * gain), rng.normal(0, 0.7 * gain, 3)
    factors = torch.from_numpy(np.exp(common + own)).float()[:, None, None]
    shown = (image ** float(np.exp(rng.normal(0, gamma))) * factors).clamp(0, 1)
    taken = shown
    if vignetting:
        taken = taken * vignette_mask(image.shape[-2:], rng.uniform(0, vignetting))
    if blur and rng.random() < 0.5:
        taken = gaussian_blur(taken, rng.uniform(0.3, max(blur, 0.3)))
    if noise:
        grain = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        taken = taken + inside * grain * rng.uniform(0, noise)
    taken = taken.clamp(0, 1)
    return shown, jpeg_compress(taken, int(rng.integers(jpeg, 96))) if jpeg < 95 and rng.random() < 0.5 else taken


def vignette_mask(shape: tuple[int, int] | torch.Size, loss: float) -> Float[Tensor, "h w"]:
    """Share of the light that reaches each pixel: 1 in the middle, 1 - loss in the corners."""
    y, x = (torch.linspace(-1, 1, size) for size in shape)
    return 1 - loss * (y[:, None] ** 2 + x**2) / 2


def jpeg_compress(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    """To JPEG of that quality and back."""
    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as again:
        return to_tensor(np.asarray(again))


def gaussian_blur(image: Float[Tensor, "c h w"], sigma: float) -> Float[Tensor, "c h w"]:
    """Gaussian blur of standard deviation `sigma` px, borders reflected."""
    reach = int(np.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    padded = F.pad(image[:, None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[:, :, None, :]), kernel[:, :, :, None])[:, 0]
