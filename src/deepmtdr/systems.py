"""The compared systems of Tables I-V: one file per method, all trained and scored by the code of DeepMT-DR (Sec. V-B).

A method takes one box of Fig. 6. What stands in front of it is the paper's choice (LR photographs are super-resolved by
MDRN, or resized) and can be another one by `PartNames`: any ISR before any segmentation or grading network, trained
apart or together (Finding 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from deepmtdr.baselines import wang_et_al
from deepmtdr.baselines.adly_et_al import AdlyEtAl
from deepmtdr.baselines.bicubic import Bicubic
from deepmtdr.baselines.ce_net import CENet
from deepmtdr.baselines.ckml import CKML
from deepmtdr.baselines.densenet121 import DenseNet121
from deepmtdr.baselines.dru_net import DRUNet
from deepmtdr.baselines.grad_cam import grad_cam
from deepmtdr.baselines.guided_backpropagation import GuidedBackpropagation
from deepmtdr.baselines.hgn import HGN
from deepmtdr.baselines.inception_v3 import InceptionV3
from deepmtdr.baselines.lin_et_al import AntiNoiseDetector, AttentionFusion
from deepmtdr.baselines.m_net import MNet
from deepmtdr.baselines.mahapatra_et_al import MahapatraEtAl
from deepmtdr.baselines.mdrn import MDRN
from deepmtdr.baselines.mmcnn import MMCNN
from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.baselines.smooth_grad import SmoothGrad
from deepmtdr.baselines.spp import VGG16SPP, DenseNet121SPP, ResNet18SPP, SqueezeNetSPP
from deepmtdr.baselines.squeezenet import SqueezeNet
from deepmtdr.baselines.srcnn import SRCNN
from deepmtdr.baselines.u_net import UNet
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.baselines.vnxk import VNXK
from deepmtdr.baselines.without_maps import WithoutMaps
from deepmtdr.model.deepmtdr import DeepMTDR, EvidenceMethod, ModelConfig, Parts, paper_parts
from deepmtdr.model.grading import GradingSubnet
from deepmtdr.model.interfaces import Grader, Segmenter, SuperResolver
from deepmtdr.model.isr import ISRSubnet
from deepmtdr.model.segmentation import LesionSegmentationSubnet

__all__ = [
    "DEEPMTDR",
    "EVIDENCE_METHODS",
    "GRADERS",
    "MULTI_TASK_SYSTEMS",
    "SEGMENTERS",
    "SUPER_RESOLVERS",
    "SYSTEMS",
    "PartNames",
    "build_system",
    "default_part_names",
    "find_unknown_names",
]

Part = TypeVar("Part", bound=nn.Module)

DEEPMTDR = "DeepMT-DR"
NONE = "none"
"""The name of a part that is to be left out."""

MULTI_TASK_SYSTEMS: dict[str, Callable[[ModelConfig], Parts]] = {
    DEEPMTDR: paper_parts,
    "Wang et al.": wang_et_al.build_parts,
}
"""Systems of all three tasks."""

SUPER_RESOLVERS: dict[str, type[SuperResolver]] = {
    "bicubic": Bicubic,
    "SRCNN": SRCNN,
    "Mahapatra et al.": MahapatraEtAl,
    "MDRN": MDRN,
}
SEGMENTERS: dict[str, type[Segmenter]] = {
    "U-Net": UNet,
    "DRU-Net": DRUNet,
    "HGN": HGN,
    "CE-Net": CENet,
    "Lin et al.": AntiNoiseDetector,
}
GRADERS: dict[str, type[Grader]] = {
    "ResNet-18": ResNet18,
    "Inception-v3": InceptionV3,
    "DenseNet-121": DenseNet121,
    "M-Net": MNet,
    "CKML": CKML,
    "VNXK": VNXK,
    "MMCNN": MMCNN,
    "Adly et al.": AdlyEtAl,
    "Lin et al.": AttentionFusion,
    "VGG-16": VGG16,
    "SqueezeNet": SqueezeNet,
    "VGG-16 + SPP": VGG16SPP,
    "SqueezeNet + SPP": SqueezeNetSPP,
    "ResNet-18 + SPP": ResNet18SPP,
    "DenseNet-121 + SPP": DenseNet121SPP,
}
EVIDENCE_METHODS: dict[str, EvidenceMethod | None] = {
    "GMSV": None,
    "without maps": WithoutMaps(),
    "guided backpropagation": GuidedBackpropagation(),
    "Grad-CAM": grad_cam,
    "SmoothGrad": SmoothGrad(),
}
"""By the paper's names (Tables I-V, Fig. 3)."""

SYSTEMS: dict[str, type[nn.Module]] = {
    **dict.fromkeys(MULTI_TASK_SYSTEMS, DeepMTDR),
    **SUPER_RESOLVERS,
    **SEGMENTERS,
    **GRADERS,
}
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
    """A name of `EVIDENCE_METHODS`."""


def build_system(system: str, names: PartNames, config: ModelConfig) -> DeepMTDR:
    """The network of a recipe.

    Args:
        system: a name of `SYSTEMS`.
        names: parts that take the place of the system's own.
        config: size of the paper's subnets, where one of them is a part.

    Raises:
        KeyError: if a name is unknown; `find_unknown_names` says so beforehand.
    """
    whole = MULTI_TASK_SYSTEMS[system](config) if system in MULTI_TASK_SYSTEMS else None
    own, wanted = default_part_names(system), vars(names)
    isr, segmentation, grading = (wanted[slot] or getattr(own, slot) for slot in ("isr", "segmentation", "grading"))
    parts = Parts(
        whole.isr if whole and not names.isr else ISRSubnet(config.isr) if isr == DEEPMTDR else SUPER_RESOLVERS[isr](),
        whole.segmentation if whole and not names.segmentation else _segmenter(segmentation, config),
        whole.grading if whole and not names.grading else _grader(grading, config),
        EVIDENCE_METHODS[names.evidence] if names.evidence else whole.evidence if whole else None,
        task_aware={isr, segmentation, grading} <= set(MULTI_TASK_SYSTEMS),
    )
    return DeepMTDR(config, parts)


def _segmenter(name: str, config: ModelConfig) -> nn.Module | None:
    return LesionSegmentationSubnet(config.segmentation) if name == DEEPMTDR else _made(SEGMENTERS, name)


def _grader(name: str, config: ModelConfig) -> nn.Module | None:
    return GradingSubnet(config.grading) if name == DEEPMTDR else _made(GRADERS, name)


def default_part_names(system: str) -> PartNames:
    """The parts of a system by itself: its own boxes, and what stands in front of them."""
    if system in MULTI_TASK_SYSTEMS:
        return PartNames(isr=system, segmentation=system, grading=system)
    if system in SUPER_RESOLVERS:
        return PartNames(isr=system, segmentation=NONE, grading=NONE)
    kind: type[Segmenter | Grader] = SEGMENTERS.get(system) or GRADERS[system]
    segmentation, grading = (system if system in kinds else NONE for kinds in (SEGMENTERS, GRADERS))
    return PartNames(isr=kind.isr, segmentation=segmentation, grading=grading)


def _made(kinds: Mapping[str, type[Part]], name: str) -> Part | None:
    return None if name == NONE else kinds[name]()


def find_unknown_names(system: str, names: PartNames) -> Iterator[str]:
    """What is wrong with the names in a recipe."""
    if system not in SYSTEMS:
        yield f"system = {system!r}, expected one of {', '.join(SYSTEMS)}"
    known = {
        "isr": (DEEPMTDR, *SUPER_RESOLVERS),
        "segmentation": (DEEPMTDR, NONE, *SEGMENTERS),
        "grading": (DEEPMTDR, NONE, *GRADERS),
        "evidence": tuple(EVIDENCE_METHODS),
    }
    for slot, expected in known.items():
        name = getattr(names, slot)
        if name and name not in expected:
            yield f"parts.{slot} = {name!r}, expected one of {', '.join(expected)}"
