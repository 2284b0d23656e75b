"""Random changes to a photograph: crops and rotations of image and masks, and another camera for the image only.

The LR image is made from the result.
"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.datasets.frames import LESIONS_ONLY, Frame, MaskChannels
from deepmtdr.model.preprocessing import image_to_tensor, in_field, local_mean_at, reduce_to_cells
from deepmtdr.recipe import Augmentation

REDUCED_SIDE = 256
"""The local means of a frame and its field of view are computed on every nth pixel of a frame larger than this, px."""
INSIDE_SHARE = 0.8
"""A crop that is not centred near a lesion is placed so that at least this share of it is inside the field of view, or
as much as possible: a black crop teaches nothing.
"""


class Crop(NamedTuple):
    """A square cut out of an HR frame."""

    image: Float[Tensor, "3 s s"]
    """RGB in [0, 1]."""
    masks: Float[Tensor, "n s s"]
    """Masks as coverage in [0, 1], in the channels of `Frame.masks`; zeros where nothing was annotated."""
    positions: Float[Tensor, "2 s s"]
    """x and y of each pixel in the frame, from -1 to 1; cut, resized and turned like the image."""

    def stack(self) -> Float[Tensor, "c s s"]:
        """Put all channels into one tensor, so that they can be turned together."""
        return torch.cat(self)

    @staticmethod
    def unstack(channels: Float[Tensor, "c s s"]) -> Crop:
        """Take the tensor of `stack` apart."""
        return Crop(channels[:3], channels[3:-2], channels[-2:])


def random_crop(
    frame: Frame,
    side: int,
    zoom: float,
    rng: np.random.Generator,
    lesion_share: float = 0.7,
    channels: MaskChannels = LESIONS_ONLY,
) -> Crop:
    """Cut a square out of the HR frame and its masks, and resize it to `side` px.

    With probability `lesion_share` the crop is centred near a lesion pixel. The lesion type is drawn among the types in
    the photograph. Other crops are anywhere inside the field of view.

    Args:
        frame: a photograph of scale 1.
        side: side of the result, px.
        zoom: the side of the crop in the frame is `side` times a factor in [1/zoom, zoom].
        rng: random generator.
        lesion_share: how often the crop is centred near a lesion.
        channels: channels of the masks besides the lesion types.
    """
    pixels, coverage = frame.pixels, frame.masks(channels)
    annotated = len(frame.labels.lesions) + len(channels.unions)
    size = pixels.shape[0]
    own = min(round(side * zoom ** rng.uniform(-1, 1)), size)
    centre = _inside_the_field(pixels, own, rng) if own < size else np.full(2, size / 2)
    if coverage is not None and rng.random() < lesion_share:
        centre = _near_a_lesion(coverage[:annotated], own, rng, centre)
    y, x = (int(np.clip(c - own / 2, 0, size - own)) for c in centre)
    image = image_to_tensor(pixels[y : y + own, x : x + own])
    masks = torch.zeros(annotated + channels.ignored, own, own)
    if coverage is not None:
        masks = torch.from_numpy(coverage[:, y : y + own, x : x + own].copy()).float() / 255
    crop = Crop(image, masks, _positions(y, x, own, size))
    if own == side:
        return crop
    return Crop.unstack(F.interpolate(crop.stack()[None], (side, side), mode="bilinear", antialias=True)[0])


def _positions(y: int, x: int, own: int, size: int) -> Float[Tensor, "2 s s"]:
    """Compute x and y of the pixels of a window of the frame, from -1 to 1."""
    rows, columns = ((2 * torch.arange(start, start + own) + 1) / size - 1 for start in (y, x))
    return torch.stack([columns.expand(own, own), rows[:, None].expand(own, own)])


def _inside_the_field(pixels: UInt8[np.ndarray, "s s 3"], own: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the centre of a crop of which at least `INSIDE_SHARE`, or as much as possible, is in the field of view."""
    size = pixels.shape[0]
    cells = reduce_to_cells(in_field(reduced_frame(pixels)))
    across = max(1, round(own * cells.shape[-1] / size))
    share = F.avg_pool2d(cells, across, stride=1)[0, 0].numpy()
    rows, columns = np.nonzero(share >= min(INSIDE_SHARE, float(share.max())))
    pick = rng.integers(len(rows))
    cell = size / cells.shape[-1]
    return cell * (np.array([rows[pick], columns[pick]]) + rng.uniform(-0.5, 0.5, 2)) + cell * across / 2


def reduced_frame(pixels: UInt8[np.ndarray, "s s 3"]) -> Float[Tensor, "1 3 r r"]:
    """Take every nth pixel of a frame, so that about `REDUCED_SIDE` remain in each row: RGB in [0, 1]."""
    step = max(1, pixels.shape[0] // REDUCED_SIDE)
    return image_to_tensor(pixels[step // 2 :: step, step // 2 :: step])[None]


def local_mean_of_crop(frame: Frame, positions: Float[Tensor, "2 s s"], tone: Tone) -> Float[Tensor, "3 s s"]:
    """Compute the local means that a crop has in its frame after a change of tone (interpretation R30).

    Args:
        frame: the photograph that the crop was cut from.
        positions: of the pixels of the crop, after its flips and turns.
        tone: the same as that of the crop.
    """
    return local_mean_at(tone(reduced_frame(frame.pixels)), positions[None])[0]


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


def rotate(images: Float[Tensor, "c h w"], degrees: float, side: int, zoom: float = 1.0) -> Float[Tensor, "c s s"]:
    """Rotate images about their centre, bilinear, and cut out the middle; 0 outside the input.

    Args:
        images: channels; with a side of `rotation_margin` times `side` no corner of the result is outside.
        degrees: angle, counter-clockwise.
        side: side of the result, px.
        zoom: factor by which the content is enlarged.
    """
    angle = np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)) / zoom, float(np.sin(angle)) / zoom
    places = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    height, width = images.shape[-2:]
    grid = torch.stack([(cos * x - sin * y) * 2 / width, (sin * x + cos * y) * 2 / height], dim=-1)
    return F.grid_sample(images[None], grid[None], mode="bilinear", align_corners=False)[0]


def rotation_margin(degrees: float) -> float:
    """Return the factor by which a square must be wider, so that a square rotated inside it has no empty corner."""
    angle = np.deg2rad(degrees)
    return float(abs(np.cos(angle)) + abs(np.sin(angle)))


class Tone(NamedTuple):
    """A camera's tone curve, gain and colour cast."""

    gamma: float
    factors: Float[Tensor, "3 1 1"]
    """Gain of each channel."""

    def __call__(self, image: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
        """Change RGB in [0, 1]; the result is clamped to [0, 1], and black stays black."""
        return (image**self.gamma * self.factors).clamp(0, 1)


def draw_tone(rng: np.random.Generator, augmentation: Augmentation) -> Tone:
    """Draw a tone from the ranges of `gain` and `gamma`."""
    gain = augmentation.gain
    common, own = rng.normal(0, 0.7 * gain), rng.normal(0, 0.7 * gain, 3)
    factors = torch.from_numpy(np.exp(common + own)).float()[:, None, None]
    return Tone(float(np.exp(rng.normal(0, augmentation.gamma))), factors)


def simulate_camera(
    image: Float[Tensor, "3 h w"], rng: np.random.Generator, augmentation: Augmentation, tone: Tone | None = None
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
    """Simulate another camera (interpretation R24): its ideal image, and the degraded one that it would record.

    Args:
        image: RGB in [0, 1].
        rng: random generator.
        augmentation: ranges of gain, gamma, blur, noise, JPEG quality and vignetting; how often the last four occur.
        tone: gain and gamma; None: drawn first.

    Returns:
        The image with another gain, colour cast and tone curve, and the same blurred, noisy and compressed; both in
        [0, 1]. Black pixels stay black, but for noise within the field of view.
    """
    inside = (image.amax(dim=0, keepdim=True) > 8 / 255).float()
    blur, noise, jpeg = augmentation.blur, augmentation.noise, augmentation.jpeg
    ideal = (tone or draw_tone(rng, augmentation))(image)
    if augmentation.degraded < 1 and rng.random() >= augmentation.degraded:
        return ideal, ideal
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
