"""The compared systems side by side: parameters beside the published number, native size, shapes, receptive field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from deepmtdr.model.cost import count_parameters, trained_parameters
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.systems import GRADERS, SEGMENTERS, SUPER_RESOLVERS, SYSTEMS, PartNames, build_system, default_part_names

SUBNET_OF_TASK = {"super-resolution": "isr", "segmentation": "segmentation", "grading": "grading"}
"""The box of Fig. 6 that a task is done in."""


class SystemSpec(NamedTuple):
    """One system, or one box of a system that has several."""

    name: str
    task: str
    parameters: int
    published: float | None
    """Millions, where its makers say it."""
    sizes: tuple[int, ...]
    """Native sides of a grader's input, px; none: the frame as it comes."""
    before: str
    """What super-resolves for it; "" for a super-resolver."""


class PassShapes(NamedTuple):
    """The shapes of one box there and back, without the batch."""

    image: tuple[int, ...]
    answer: tuple[int, ...]
    gradient: tuple[int, ...]
    """With respect to the image."""
    reached: int
    """Tensors of parameters that the gradient reaches."""
    tensors: int
    """All that are trained, but for an adversary's."""


def list_systems() -> Iterator[SystemSpec]:
    """Every box of every system, in the order of `SYSTEMS`; on shapes alone, nothing is computed."""
    for name in SYSTEMS:
        with torch.device("meta"):
            model = build_system(name, PartNames(), ModelConfig())
        for task, box in SUBNET_OF_TASK.items():
            if getattr(default_part_names(name), box) == name:
                kind = {"isr": SUPER_RESOLVERS, "segmentation": SEGMENTERS, "grading": GRADERS}[box].get(name)
                part, published = getattr(model, box), getattr(kind, "published_parameters", None)
                sizes = getattr(part, "sizes", (part.size,) if getattr(part, "size", 0) else ())
                yield SystemSpec(name, task, count_parameters(part), published, sizes, getattr(kind, "isr", ""))


def trace_shapes(model: DeepMTDR, box: str, side: int = 256) -> PassShapes:
    """One pass through a box and back, for a frame of `side` px that is x4 of its LR image.

    What a grader says for its loss alone is passed back too.

    Args:
        model: whose part it is.
        box: `isr` (shown the LR image), `segmentation` or `grading` (shown the frame).
        side: of the frame, px.
    """
    part: nn.Module = getattr(model, box).train()
    image = torch.rand(2, 3, *[side // 4 if box == "isr" else side] * 2, requires_grad=True)
    more = {"isr": (4,), "segmentation": (), "grading": (torch.rand(2, 4, side, side),)}[box]
    said = part(image, *more)
    answer: Tensor = said[0] if box == "grading" else said
    total = torch.stack([each.sum() for each in (answer, *getattr(said, "extra", ()))]).sum()
    tensors = trained_parameters(part)
    back, *reached = torch.autograd.grad(total, [image, *tensors], allow_unused=True)
    image_shape, answer_shape, back_shape = (tuple(tensor.shape[1:]) for tensor in (image, answer, back))
    count = sum(gradient is not None for gradient in reached)
    return PassShapes(image_shape, answer_shape, back_shape, count, len(tensors))


def receptive_field(model: DeepMTDR, box: str, side: int = 512) -> int | None:
    """Side of the square of input pixels that one output pixel hangs on, px.

    It is found, not calculated: all weights are made positive, maxima means, and every non-linearity the identity; then
    the gradient of the middle output pixel is above 0 exactly where the network looks.

    Args:
        model: whose part it is; its weights are spoilt.
        box: `isr` (at x2, in px of the LR image) or `segmentation`.
        side: of the input, px.

    Returns:
        The side; None if it reaches over the input's border.
    """
    part: nn.Module = getattr(model, box).eval()
    _make_positive(part)
    image = torch.ones(1, 3, side, side, requires_grad=True)
    with _Linear():
        said = part(image, 2) if box == "isr" else part(image)
    middle = said.shape[-1] // 2
    (gradient,) = torch.autograd.grad(said[0, 0, middle, middle], image)
    seen = (gradient[0].abs().sum(dim=0) > 0).nonzero()
    low, high = int(seen.min()), int(seen.max())
    return None if low == 0 or high == side - 1 else high - low + 1


def _make_positive(part: nn.Module) -> None:
    """Each channel by weights of its own, so that no two channels are alike and cancel in a share of their sum."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_((0.5 + torch.rand(parameter.shape, generator=generator)) / parameter[0].numel())
            else:
                parameter.fill_(float(name.endswith("weight")))


class _Linear(TorchFunctionMode):
    """Inside, maxima are means and bounded or kinked functions the identity."""

    _SAME = (F.relu, torch.relu, F.leaky_relu, F.prelu, torch.sigmoid, torch.softmax, F.softmax, F.dropout, F.sigmoid)
    _SAME_METHODS = (Tensor.relu, Tensor.sigmoid, Tensor.softmax, Tensor.clamp)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self._SAME or func in self._SAME_METHODS:
            return args[0]
        if func is F.max_pool2d:
            options = {
                k: v for k, v in (kwargs or {}).items() if k in ("kernel_size", "stride", "padding", "ceil_mode")
            }
            return F.avg_pool2d(*args[:4], **options)
        return func(*args, **(kwargs or {}))
