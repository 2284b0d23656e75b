"""Random changes to a photograph: crops and rotations of image and masks, and another camera for the image only.

The LR image is made from the result.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.datasets.frames import Frame
from deepmtdr.model.preprocessing import image_to_tensor
from deepmtdr.recipe import Augmentation


def random_crop(
    frame: Frame, side: int, zoom: float, rng: np.random.Generator, lesion_share: float = 0.7
) -> tuple[Float[Tensor, "3 s s"], Float[Tensor, "l s s"]]:
    """Cut a square out of the HR frame and its masks, and resize it to `side` px.

    With probability `lesion_share` the crop is centred near a lesion pixel. The lesion type is drawn among the types in
    the photograph.

    Args:
        frame: a photograph of scale 1.
        side: side of the result, px.
        zoom: the side of the crop in the frame is `side` times a factor in [1/zoom, zoom].
        rng: random generator.
        lesion_share: how often the crop is centred near a lesion.

    Returns:
        Image in [0, 1] and lesion masks as coverage in [0, 1] (zeros where nothing was annotated).
    """
    pixels, coverage = frame.pixels, frame.lesion_masks
    size = pixels.shape[0]
    own = min(round(side * zoom ** rng.uniform(-1, 1)), size)
    centre = rng.uniform(0.1 * size, 0.9 * size, 2)
    if coverage is not None and rng.random() < lesion_share:
        centre = _near_a_lesion(coverage, own, rng, centre)
    y, x = (int(np.clip(c - own / 2, 0, size - own)) for c in centre)
    image = image_to_tensor(pixels[y : y + own, x : x + own])
    masks = torch.zeros(len(frame.labels.lesions), own, own)
    if coverage is not None:
        masks = torch.from_numpy(coverage[:, y : y + own, x : x + own].copy()).float() / 255
    if own == side:
        return image, masks
    both = F.interpolate(torch.cat([image, masks])[None], (side, side), mode="bilinear", antialias=True)[0]
    return both[:3], both[3:]


def _near_a_lesion(masks: np.ndarray, own: int, rng: np.random.Generator, otherwise: np.ndarray) -> np.ndarray:
    coarse = masks[:, ::4, ::4]
    for channel in rng.permutation(len(coarse)):
        rows, columns = np.nonzero(coarse[channel])
        if len(rows):
            pick = rng.integers(len(rows))
            return 4 * np.array([rows[pick], columns[pick]]) + rng.uniform(-own / 3, own / 3, 2)
    return otherwise


def random_flip_rotate(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Apply one of the eight flips and quarter turns to all channels of a "... h w" tensor alike."""
    images = torch.rot90(images, int(rng.integers(4)), (-2, -1))
    return images.flip(-1) if rng.random() < 0.5 else images


def rotate(images: Float[Tensor, "c h w"], degrees: float, side: int) -> Float[Tensor, "c s s"]:
    """Rotate images about their centre, bilinear, and cut out the middle; black outside the input.

    Args:
        images: channels; with a side of `rotation_margin` times `side` no corner of the result is black.
        degrees: angle, counter-clockwise.
        side: side of the result, px.
    """
    angle = np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    places = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    height, width = images.shape[-2:]
    grid = torch.stack([(cos * x - sin * y) * 2 / width, (sin * x + cos * y) * 2 / height], dim=-1)
    return F.grid_sample(images[None], grid[None], mode="bilinear", align_corners=False)[0]


def rotation_margin(degrees: float) -> float:
    """Return the factor by which a square must be wider, so that a square rotated inside it has no empty corner."""
    angle = np.deg2rad(degrees)
    return float(abs(np.cos(angle)) + abs(np.sin(angle)))


def simulate_camera(
    image: Float[Tensor, "3 h w"], rng: np.random.Generator, augmentation: Augmentation
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
    """Simulate another camera (interpretation R24): its ideal image, and the degraded one that it would record.

    Args:
        image: RGB in [0, 1].
        rng: random generator.
        augmentation: ranges of gain, gamma, blur, noise, JPEG quality and vignetting.

    Returns:
        The image with another gain, colour cast and tone curve, and the same blurred, noisy and compressed; both in
        [0, 1]. Black pixels stay black, but for noise within the field of view.
    """
    inside = (image.amax(dim=0, keepdim=True) > 8 / 255).float()
    gain, blur, noise, jpeg = augmentation.gain, augmentation.blur, augmentation.noise, augmentation.jpeg
    common, own = rng.normal(0, 0.7 * gain), rng.normal(0, 0.7 * gain, 3)
    factors = torch.from_numpy(np.exp(common + own)).float()[:, None, None]
    ideal = (image ** float(np.exp(rng.normal(0, augmentation.gamma))) * factors).clamp(0, 1)
    degraded = ideal
    if augmentation.vignetting:
        degraded = degraded * vignette_mask(image.shape[-2:], rng.uniform(0, augmentation.vignetting))
    if blur and rng.random() < 0.5:
        degraded = gaussian_blur(degraded, rng.uniform(0.3, max(blur, 0.3)))
    if noise:
        grain = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        degraded = degraded + inside * grain * rng.uniform(0, noise)
    degraded = degraded.clamp(0, 1)
    if jpeg < 95 and rng.random() < 0.5:
        degraded = jpeg_compress(degraded, int(rng.integers(jpeg, 96)))
    return ideal, degraded


def vignette_mask(shape: tuple[int, int] | torch.Size, loss: float) -> Float[Tensor, "h w"]:
    """Compute the share of the light at each pixel: 1 in the middle, 1 - loss in the corners."""
    y, x = (torch.linspace(-1, 1, size) for size in shape)
    return 1 - loss * (y[:, None] ** 2 + x**2) / 2


def jpeg_compress(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    """Compress as JPEG of that quality and decompress."""
    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as again:
        return image_to_tensor(np.asarray(again))


def gaussian_blur(image: Float[Tensor, "c h w"], sigma: float) -> Float[Tensor, "c h w"]:
    """Blur with a Gaussian of `sigma` px; borders are reflected."""
    reach = int(np.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    padded = F.pad(image[:, None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[:, :, None, :]), kernel[:, :, :, None])[:, 0]
