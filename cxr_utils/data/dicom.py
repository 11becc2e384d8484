"""From a DICOM file to the grey picture that a radiologist would see; patients' data stay there.

The order is that of DICOM PS3.3 C.11 and PS3.4 N.2: modality rescale, VOI window, and MONOCHROME1
inverted, once.
"""

import io
import logging
import warnings
from typing import Any

import numpy as np
from PIL import Image

from . import decoding

SUFFIXES = (".dcm", ".dicom")
PREAMBLE = 132  # bytes up to and with the prefix
FRONTAL = ("", "AP", "PA")  # views that the models were trained on, or of which nothing is said
RADIOGRAPHS = ("", "CR", "DR", "DX", "RG", "RF", "OT", "SC")  # modalities, or nothing is said
NEEDED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
IMPLICIT = "1.2.840.10008.1.2"  # the transfer syntax where none is named
EXTRA = "pip install 'cxr-utils[dicom]'"


class Refused(ValueError):
    """Not one frontal picture that can be decoded; the reason, without a word of the patient."""


def is_dicom(content: bytes) -> bool:
    """Tell a DICOM file by the prefix after its preamble."""
    return content[128:PREAMBLE] == b"DICM"


def read(content: bytes) -> tuple[Image.Image, str]:
    """Return the film as 8-bit grey, bright where it is dense, and why no answer can be sure.

    Raises Refused.
    """
    try:
        import pydicom
    except ImportError:
        raise Refused(f"DICOM is read by pydicom, which is missing; {EXTRA}") from None
    # What it warns of may quote a patient's data.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        data = pydicom.dcmread(io.BytesIO(content), force=not is_dicom(content))
        concerns = _checked(data)
        grey = _grey(data, _pixels(data))
    except Refused:
        raise
    except Exception as error:  # of many kinds, by damaged files; what they say may be private
        raise Refused(f"not a readable DICOM file ({type(error).__name__})") from None
    if data.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return Image.fromarray(grey), ", ".join(concerns)


def _checked(data: Any) -> list[str]:
    """What makes an answer unsure; raises Refused where a file is not one frontal picture."""
    if "PixelData" not in data:
        locked = "EncryptedAttributesSequence" in data
        raise Refused("encrypted, without pixels in the clear" if locked else "no pixels in it")
    if missing := [name for name in NEEDED if data.get(name) in (None, "")]:
        raise Refused(f"its pixels are not described: {missing[0]} is missing")
    if (frames := int(data.get("NumberOfFrames") or 1)) > 1:
        raise Refused(f"{frames} frames: give one picture a file")
    if data.Rows * data.Columns > decoding.MOST_PIXELS:
        raise Refused(f"too large: {data.Columns} x {data.Rows} px")
    if data.BitsAllocated < 8:
        raise Refused(f"{data.BitsAllocated} bit a pixel: not a film")
    view = _said(data, "ViewPosition")
    codes = [str(code.get("CodeMeaning", "")) for code in data.get("ViewCodeSequence") or []]
    if view not in FRONTAL or any("lateral" in code.lower() for code in codes):
        raise Refused(f"not a frontal view ({view if 0 < len(view) < 4 else 'lateral or another'})")
    modality = _said(data, "Modality")
    concerns = [] if modality in RADIOGRAPHS else [f"modality {modality[:2]}, not a radiograph"]
    if _said(data, "PresentationIntentType") == "FOR PROCESSING":
        concerns.append("raw data of a detector, FOR PROCESSING")
    return concerns


def _said(data: Any, tag: str) -> str:
    """A code in capitals; empty where there is none."""
    return str(data.get(tag) or "").strip().upper()


def _pixels(data: Any) -> np.ndarray:
    """Stored values; of colours RGB. Raises Refused where nothing installed decodes them."""
    syntax = getattr(data.file_meta, "TransferSyntaxUID", None)
    if syntax is None:
        data.file_meta.TransferSyntaxUID = IMPLICIT
    try:
        return data.pixel_array
    except (NotImplementedError, RuntimeError, ValueError) as error:
        if syntax is not None and syntax.is_compressed and "missing" in str(error):
            said = f"compressed as {syntax.name}, which nothing that is installed decodes"
            raise Refused(f"{said}; {EXTRA}") from None
        raise Refused(f"its pixels cannot be decoded ({type(error).__name__})") from None


def _grey(data: Any, stored: np.ndarray) -> np.ndarray:
    """Uint8, (rows, columns), before any inversion."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    if data.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)
    if stored.ndim == 3:
        eight = stored >> max(8 * stored.itemsize - 8, 0) if stored.itemsize > 1 else stored
        return np.asarray(decoding.grey(Image.fromarray(eight.astype(np.uint8))))
    values = apply_modality_lut(stored, data)
    if "WindowWidth" in data or "VOILUTSequence" in data:
        values = np.asarray(apply_voi_lut(values, data), np.float64)
        black, white = _ends(data)
        return np.clip(np.rint((values - black) / (white - black) * 255), 0, 255).astype(np.uint8)
    values = values - min(values.min(), 0)
    return np.asarray(decoding.grey(Image.fromarray(values.astype(np.int32))))


def _ends(data: Any) -> tuple[float, float]:
    """What black and white are after the VOI transformation."""
    from pydicom.pixels import apply_windowing

    if "VOILUTSequence" in data:
        _, _, bits = data.VOILUTSequence[0].LUTDescriptor
        return 0.0, 2.0 ** int(bits) - 1
    black, white = apply_windowing(np.array([-1e9, 1e9]), data)
    return float(black), float(white) if white > black else float(black) + 1
