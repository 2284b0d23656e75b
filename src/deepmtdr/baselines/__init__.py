"""The compared systems of Tables I-V: one file per method, all trained and scored by the code of DeepMT-DR (Sec. V-B).

A method takes one box of Fig. 6. What stands in front of it is the paper's choice (LR photographs are super-resolved by
MDRN, or resized) and can be another one by `PartNames`: any ISR before any segmentation or grading network, trained
apart or together (Finding 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from deepmtdr.baselines.bicubic import Bicubic
from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.baselines.slots import Grader, Segmenter, SuperResolver
from deepmtdr.baselines.srcnn import SRCNN
from deepmtdr.baselines.u_net import UNet
from deepmtdr.model.deepmtdr import DeepMTDR, Evidence, ModelConfig, Parts
from deepmtdr.model.grading import GradingSubnet
from deepmtdr.model.isr import ISRSubnet
from deepmtdr.model.segmentation import LesionSegmentationSubnet

__all__ = [
    "EVIDENCE",
    "GRADERS",
    "OURS",
    "SEGMENTERS",
    "SUPER_RESOLVERS",
    "SYSTEMS",
    "PartNames",
    "build",
    "unknown_names",
]

Part = TypeVar("Part", bound=nn.Module)

OURS = "DeepMT-DR"
NONE = "none"
"""The name of a part that is to be left out."""

SUPER_RESOLVERS: dict[str, type[SuperResolver]] = {"bicubic": Bicubic, "SRCNN": SRCNN}
SEGMENTERS: dict[str, type[Segmenter]] = {"U-Net": UNet}
GRADERS: dict[str, type[Grader]] = {"ResNet-18": ResNet18}
EVIDENCE: dict[str, Evidence | None] = {"GMSV": None}
"""By the paper's names (Tables I-V)."""

SYSTEMS: dict[str, type[nn.Module]] = {OURS: DeepMTDR, **SUPER_RESOLVERS, **SEGMENTERS, **GRADERS}
"""Everything that can be trained by `--set system=NAME`."""


@dataclass(frozen=True, kw_only=True)
class PartNames:
    """Parts by name; "" keeps the system's own."""

    isr: str = ""
    """A name of `SUPER_RESOLVERS`, or DeepMT-DR for its ISR subnet."""
    segmentation: str = ""
    """A name of `SEGMENTERS`, DeepMT-DR for its segmentation subnet, or none."""
    grading: str = ""
    """A name of `GRADERS`, DeepMT-DR for its grading subnet, or none."""
    evidence: str = ""
    """A name of `EVIDENCE`."""


def build(system: str, names: PartNames, config: ModelConfig) -> DeepMTDR:
    """The network of a recipe.

    Args:
        system: a name of `SYSTEMS`.
        names: parts that take the place of the system's own.
        config: size of the paper's subnets, where one of them is a part.

    Raises:
        KeyError: if a name is unknown; `unknown_names` says so beforehand.
    """
    own = _own_names(system)
    isr, segmentation, grading = (
        getattr(names, slot) or getattr(own, slot) for slot in ("isr", "segmentation", "grading")
    )
    return DeepMTDR(
        config,
        Parts(
            ISRSubnet(config.isr) if isr == OURS else SUPER_RESOLVERS[isr](),
            LesionSegmentationSubnet(config.segmentation) if segmentation == OURS else _made(SEGMENTERS, segmentation),
            GradingSubnet(config.grading) if grading == OURS else _made(GRADERS, grading),
            EVIDENCE[names.evidence or "GMSV"],
            task_aware=(isr, segmentation, grading) == (OURS, OURS, OURS),
        ),
    )


def _own_names(system: str) -> PartNames:
    """The parts of a system by itself: its own box, and what stands in front of it."""
    if system == OURS:
        return PartNames(isr=OURS, segmentation=OURS, grading=OURS)
    if system in SUPER_RESOLVERS:
        return PartNames(isr=system, segmentation=NONE, grading=NONE)
    if system in SEGMENTERS:
        return PartNames(isr=SEGMENTERS[system].isr, segmentation=system, grading=NONE)
    return PartNames(isr=GRADERS[system].isr, segmentation=NONE, grading=system)


def _made(kinds: Mapping[str, type[Part]], name: str) -> Part | None:
    return None if name == NONE else kinds[name]()


def unknown_names(system: str, names: PartNames) -> Iterator[str]:
    """What is wrong with the names in a recipe."""
    if system not in SYSTEMS:
        yield f"system = {system!r}, expected one of {', '.join(SYSTEMS)}"
    known = {
        "isr": (OURS, *SUPER_RESOLVERS),
        "segmentation": (OURS, NONE, *SEGMENTERS),
        "grading": (OURS, NONE, *GRADERS),
        "evidence": tuple(EVIDENCE),
    }
    for slot, expected in known.items():
        name = getattr(names, slot)
        if name and name not in expected:
            yield f"parts.{slot} = {name!r}, expected one of {', '.join(expected)}"
