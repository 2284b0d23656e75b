"""Sizes of the compared systems: parameters, native input size, tensor shapes, receptive field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from deepmtdr.model.cost import count_parameters, trained_parameters
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.systems import MULTI_TASK_SYSTEMS, SYSTEMS, PartNames, build_system, default_part_names

SUBNET_OF_TASK = {"super-resolution": "isr", "segmentation": "segmentation", "grading": "grading"}
"""The part of Fig. 6 that does a task."""


class SystemSpec(NamedTuple):
    """Size of one system, or of one part of a system that has several."""

    name: str
    task: str
    parameters: int
    published: float | None
    """Number of parameters that its authors published, in millions."""
    sizes: tuple[int, ...]
    """Native sides of a grader's input in px; empty: any size."""
    before: str
    """Name of the super-resolver in front of the system; "" for a super-resolver and for a multi-task system."""


class PassShapes(NamedTuple):
    """Shapes of one part's forward and backward pass, without the batch."""

    image: tuple[int, ...]
    answer: tuple[int, ...]
    gradient: tuple[int, ...]
    """Shape of the gradient with respect to the image."""
    reached: int
    """Number of trained parameter tensors that get a gradient."""
    tensors: int
    """Number of trained parameter tensors, without those of a discriminator."""


def list_systems() -> Iterator[SystemSpec]:
    """List the parts of every system, in the order of `SYSTEMS`; nothing is computed."""
    for name in SYSTEMS:
        with torch.device("meta"):
            model = build_system(name, PartNames(), ModelConfig())
        own = default_part_names(name)
        for task, subnet in SUBNET_OF_TASK.items():
            if vars(own)[subnet] != name:
                continue
            part = model.subnets[subnet]
            sizes = model.grading.native_sizes if subnet == "grading" else ()
            before = "" if subnet == "isr" or name in MULTI_TASK_SYSTEMS else own.isr
            yield SystemSpec(name, task, count_parameters(part), part.published_parameters, sizes, before)


def trace_shapes(model: DeepMTDR, subnet: str, side: int = 256) -> PassShapes:
    """Trace the shapes of one forward and backward pass, for a frame of `side` px and scale 4.

    The backward pass includes a grader's extra outputs, which its own loss uses.

    Args:
        model: the system.
        subnet: `isr` (its input is the LR image), `segmentation` or `grading` (its input is the frame).
        side: side of the frame, px.
    """
    part = model.subnets[subnet].train()
    image = torch.rand(2, 3, *[side // 4 if subnet == "isr" else side] * 2, requires_grad=True)
    if subnet == "grading":
        graded = model.grade(image, torch.rand(2, len(model.labels.lesions), side, side))
        answer, outputs = graded.logits, (graded.logits, *graded.extra)
    else:
        answer = part(image, 4) if subnet == "isr" else part(image)
        outputs = (answer,)
    total = torch.stack([output.sum() for output in outputs]).sum()
    tensors = trained_parameters(part)
    back, *reached = torch.autograd.grad(total, [image, *tensors], allow_unused=True)
    image_shape, answer_shape, back_shape = (tuple(tensor.shape[1:]) for tensor in (image, answer, back))
    count = sum(gradient is not None for gradient in reached)
    return PassShapes(image_shape, answer_shape, back_shape, count, len(tensors))


def receptive_field(model: DeepMTDR, subnet: str, side: int = 512) -> int | None:
    """Measure the side in px of the square of input pixels that influence one output pixel.

    All weights are made positive, maxima are replaced by means and every non-linearity by the identity. Then the
    gradient of the middle output pixel is above 0 exactly for the input pixels that influence it.

    Args:
        model: the system; its weights are overwritten.
        subnet: `isr` (at x2, in px of the LR image) or `segmentation`.
        side: side of the input, px.

    Returns:
        The side; None if the square reaches over the border of the input.
    """
    part = model.subnets[subnet].eval()
    _make_positive(part)
    image = torch.ones(1, 3, side, side, requires_grad=True)
    with _Linear():
        output = part(image, 2) if subnet == "isr" else part(image)
    middle = output.shape[-1] // 2
    (gradient,) = torch.autograd.grad(output[0, 0, middle, middle], image)
    reached = (gradient[0].abs().sum(dim=0) > 0).nonzero()
    low, high = int(reached.min()), int(reached.max())
    return None if low == 0 or high == side - 1 else high - low + 1


def _make_positive(part: nn.Module) -> None:
    """Give each channel different positive weights: equal channels would cancel where shares of a sum are computed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_((0.5 + torch.rand(parameter.shape, generator=generator)) / parameter[0].numel())
            else:
                parameter.fill_(float(name.endswith("weight")))


class _Linear(TorchFunctionMode):
    """Context manager in which maxima are means, and activation functions are the identity."""

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
