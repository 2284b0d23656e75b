"""DICOM: from a photograph of a camera to DICOM objects, a PDF and FHIR.

Run it from a clone: `.venv/bin/python examples/dicom.py`. Each `# %%` begins a cell that Jupyter, VS Code and PyCharm
can run on its own. It needs the extra `clinic`: `pip install 'deepmtdr[clinic]'`.
"""

# %% Grade a DICOM photograph and write the results, as `deepmtdr dicom` does.
import json
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pydicom

from deepmtdr import ScreeningEngine
from deepmtdr.dicom.results import write_results

PHOTOGRAPH = Path(__file__).parent / "dicom" / "drawing_2.dcm"  # a drawing; replace it by a photograph of your camera
OUT = Path(mkdtemp(prefix="deepmtdr-dicom-"))

engine = ScreeningEngine.load()
report = write_results(engine, PHOTOGRAPH, OUT)
print(f"grade {report.grade}: {report.grade_name}, P(referable) = {report.p_referable:.2f}")
print("files:", sorted(path.name for path in OUT.iterdir()))

# %% The segmentation: one segment per lesion type, in the geometry of the super-resolved image.
segmentation = pydicom.dcmread(OUT / "lesions.dcm")
for segment in segmentation.SegmentSequence:
    code = segment.SegmentedPropertyTypeCodeSequence[0]
    print(f"segment {segment.SegmentNumber}: {segment.SegmentLabel} ({code.CodingSchemeDesignator} {code.CodeValue})")
print("pixels:", np.unique(segmentation.pixel_array))


# %% The structured report, as text.
def print_content(items: pydicom.Sequence, indent: str = "") -> None:
    """Print concept names and values of a structured report."""
    for item in items:
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        value = item.get("TextValue") or ""
        if "ConceptCodeSequence" in item:
            value = item.ConceptCodeSequence[0].CodeMeaning
        if "MeasuredValueSequence" in item:
            value = item.MeasuredValueSequence[0].NumericValue
        if value:
            print(f"{indent}{name}: {value}")
        print_content(item.get("ContentSequence", pydicom.Sequence()), indent + "  ")


print_content(pydicom.dcmread(OUT / "report.dcm").ContentSequence)

# %% FHIR: a bundle of resources, ready to be sent as a transaction.
bundle = json.loads((OUT / "fhir.json").read_text())
print("FHIR resources:", [entry["resource"]["resourceType"] for entry in bundle["entry"]])
