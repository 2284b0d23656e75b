"""Names of the systems of Tables I-V, and the networks that belong to them (Sec. V-B).

A system is DeepMT-DR, or a compared method (`deepmtdr.baselines`) that takes the place of one part of Fig. 6. The part
in front of it is the paper's choice: LR photographs are super-resolved by MDRN, or resized. `PartNames` selects others:
any super-resolver with any segmentation or grading network, trained apart or together (Finding 2).

Classes are named by "module:class" and imported when a network is built. Importing this module imports neither PyTorch
nor a compared method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet

if TYPE_CHECKING:
    from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts
    from deepmtdr.model.interfaces import EvidenceMethod, Grader, Segmenter, SuperResolver

DEEPMTDR = "DeepMT-DR"
EFFICIENTNET_FORM = "DeepMT-DR, EfficientNet-Lite0"
"""DeepMT-DR with EfficientNet-Lite0 in its segmentation and grading subnets (interpretation R33)."""
NONE = "none"
"""The name of a part that is left out."""

MULTI_TASK_SYSTEMS = {
    DEEPMTDR: "deepmtdr.model.deepmtdr:paper_parts",
    EFFICIENTNET_FORM: "deepmtdr.model.deepmtdr:efficientnet_parts",
    "Wang et al.": "deepmtdr.baselines.wang_et_al:build_parts",
}
"""Systems for all three tasks -> function of a `ModelConfig` and a `LabelSet` that makes all parts."""

SUPER_RESOLVERS = {
    "bicubic": "deepmtdr.baselines.bicubic:Bicubic",
    "SRCNN": "deepmtdr.baselines.srcnn:SRCNN",
    "Mahapatra et al.": "deepmtdr.baselines.mahapatra_et_al:MahapatraEtAl",
    "MDRN": "deepmtdr.baselines.mdrn:MDRN",
}
SEGMENTERS = {
    "U-Net": "deepmtdr.baselines.u_net:UNet",
    "DRU-Net": "deepmtdr.baselines.dru_net:DRUNet",
    "HGN": "deepmtdr.baselines.hgn:HGN",
    "CE-Net": "deepmtdr.baselines.ce_net:CENet",
    "Lin et al.": "deepmtdr.baselines.lin_et_al:AntiNoiseDetector",
}
GRADERS = {
    "ResNet-18": "deepmtdr.baselines.resnet18:ResNet18",
    "Inception-v3": "deepmtdr.baselines.inception_v3:InceptionV3",
    "DenseNet-121": "deepmtdr.baselines.densenet121:DenseNet121",
    "M-Net": "deepmtdr.baselines.m_net:MNet",
    "CKML": "deepmtdr.baselines.ckml:CKML",
    "VNXK": "deepmtdr.baselines.vnxk:VNXK",
    "MMCNN": "deepmtdr.baselines.mmcnn:MMCNN",
    "Adly et al.": "deepmtdr.baselines.adly_et_al:AdlyEtAl",
    "Lin et al.": "deepmtdr.baselines.lin_et_al:AttentionFusion",
    "VGG-16": "deepmtdr.baselines.vgg16:VGG16",
    "SqueezeNet": "deepmtdr.baselines.squeezenet:SqueezeNet",
    "VGG-16 + SPP": "deepmtdr.baselines.spp:VGG16SPP",
    "SqueezeNet + SPP": "deepmtdr.baselines.spp:SqueezeNetSPP",
    "ResNet-18 + SPP": "deepmtdr.baselines.spp:ResNet18SPP",
    "DenseNet-121 + SPP": "deepmtdr.baselines.spp:DenseNet121SPP",
    "SqueezeNet 1.1": "deepmtdr.baselines.squeezenet:SqueezeNet11",
    "EfficientNet-Lite0": "deepmtdr.baselines.efficientnet_lite0:EfficientNetLite0Classifier",
    "EfficientNet-Lite0, frozen": "deepmtdr.baselines.efficientnet_lite0:FrozenEfficientNetLite0",
}
"""Names of graders as in the paper (Tables I-V, Fig. 3) -> their classes. SqueezeNet 1.1 and EfficientNet-Lite0 are not
in the paper: networks whose ImageNet weights are available."""

GMSV = "GMSV"
EVIDENCE_METHODS = {
    GMSV: "",
    "without maps": "deepmtdr.baselines.without_maps:WithoutMaps",
    "guided backpropagation": "deepmtdr.baselines.guided_backpropagation:GuidedBackpropagation",
    "Grad-CAM": "deepmtdr.baselines.grad_cam:GradCAM",
    "SmoothGrad": "deepmtdr.baselines.smooth_grad:SmoothGrad",
}
"""GMSV is a part of the network itself and needs no class."""

USES_MDRN = ("Inception-v3", "M-Net", "MMCNN", "Lin et al.")
"""Systems with MDRN in front of them: their native size is larger than the LR photograph (Sec. V-B). Those of Fig. 3
(a) get the resized photograph."""

SYSTEMS = tuple(dict.fromkeys((*MULTI_TASK_SYSTEMS, *SUPER_RESOLVERS, *SEGMENTERS, *GRADERS)))
"""Names of all systems that `--set system=NAME` can train."""


@dataclass(frozen=True, kw_only=True)
class PartNames:
    """Names of the parts of a system; "": the part that belongs to the system."""

    isr: str = ""
    """A name of `SUPER_RESOLVERS`, or DeepMT-DR for its ISR subnet."""
    segmentation: str = ""
    """A name of `SEGMENTERS`, one of the forms of DeepMT-DR for its segmentation subnet, or none."""
    grading: str = ""
    """A name of `GRADERS`, one of the forms of DeepMT-DR for its grading subnet, or none."""
    evidence: str = ""
    """Name of the evidence method, a name of `EVIDENCE_METHODS`."""


def default_part_names(system: str) -> PartNames:
    """Return the parts of a system, with the super-resolver in front of it.

    Raises:
        KeyError: if the name is unknown.
    """
    if system in MULTI_TASK_SYSTEMS:
        return PartNames(isr=system, segmentation=system, grading=system)
    if system in SUPER_RESOLVERS:
        return PartNames(isr=system, segmentation=NONE, grading=NONE)
    if system not in SYSTEMS:
        raise KeyError(system)
    segmentation, grading = (system if system in methods else NONE for methods in (SEGMENTERS, GRADERS))
    return PartNames(
        isr="MDRN" if system in USES_MDRN else "bicubic",
        segmentation=segmentation,
        grading=grading,
    )


def find_unknown_names(system: str, names: PartNames) -> Iterator[str]:
    """Describe each unknown name in a recipe."""
    if system not in SYSTEMS:
        yield f"system = {system!r}, expected one of {', '.join(map(repr, SYSTEMS))}"
    known = {
        "isr": (names.isr, (DEEPMTDR, *SUPER_RESOLVERS)),
        "segmentation": (names.segmentation, (DEEPMTDR, EFFICIENTNET_FORM, NONE, *SEGMENTERS)),
        "grading": (names.grading, (DEEPMTDR, EFFICIENTNET_FORM, NONE, *GRADERS)),
        "evidence": (names.evidence, tuple(EVIDENCE_METHODS)),
    }
    for part, (name, expected) in known.items():
        if name and name not in expected:
            yield f"parts.{part} = {name!r}, expected one of {', '.join(expected)}"


def build_system(
    system: str, names: PartNames, config: ModelConfig, labels: LabelSet = DIABETIC_RETINOPATHY
) -> DeepMTDR:
    """Build the network of a recipe.

    Args:
        system: a name of `SYSTEMS`.
        names: parts that replace those of the system.
        config: size of the paper's subnets, where one of them is a part.
        labels: lesion types and grades of all parts.

    Raises:
        KeyError: if a name is unknown; `find_unknown_names` finds it earlier.
    """
    from deepmtdr.model.deepmtdr import DeepMTDR, Parts

    own = default_part_names(system)
    isr, segmentation = names.isr or own.isr, names.segmentation or own.segmentation
    grading = names.grading or own.grading
    whole: Parts | None = _load(MULTI_TASK_SYSTEMS[system])(config, labels) if system in MULTI_TASK_SYSTEMS else None
    parts = Parts(
        whole.isr if whole and not names.isr else _super_resolver(isr, config),
        whole.segmentation if whole and not names.segmentation else _segmenter(segmentation, config, labels),
        whole.grading if whole and not names.grading else _grader(grading, config, labels),
        whole.evidence if whole and not names.evidence else _evidence_method(names.evidence or GMSV),
        task_aware={isr, segmentation, grading} <= set(MULTI_TASK_SYSTEMS),
    )
    return DeepMTDR(config, parts, labels)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _super_resolver(name: str, config: ModelConfig) -> SuperResolver:
    if name == DEEPMTDR:
        from deepmtdr.model.isr import ISRSubnet

        return ISRSubnet(config.isr)
    return _load(SUPER_RESOLVERS[name])()


def _segmenter(name: str, config: ModelConfig, labels: LabelSet) -> Segmenter | None:
    if name == DEEPMTDR:
        from deepmtdr.model.segmentation import LesionSegmentationSubnet

        return LesionSegmentationSubnet(labels, config.segmentation)
    if name == EFFICIENTNET_FORM:
        from deepmtdr.model.efficientnet_segmentation import EfficientNetSegmentationSubnet

        return EfficientNetSegmentationSubnet(labels, config.efficientnet_segmentation)
    return None if name == NONE else _load(SEGMENTERS[name])(labels)


def _grader(name: str, config: ModelConfig, labels: LabelSet) -> Grader | None:
    if name == DEEPMTDR:
        from deepmtdr.model.grading import GradingSubnet

        return GradingSubnet(labels, config.grading)
    if name == EFFICIENTNET_FORM:
        from deepmtdr.model.efficientnet_grading import EfficientNetLite0Grader

        return EfficientNetLite0Grader(labels, config.efficientnet_grading)
    return None if name == NONE else _load(GRADERS[name])(labels)


def _evidence_method(name: str) -> EvidenceMethod | None:
    path = EVIDENCE_METHODS[name]
    return _load(path)() if path else None
