"""From a DICOM file to the grey picture that a radiologist would see, without patients' data.

The order is that of DICOM PS3.3 C.11 and PS3.4 N.2: modality rescale, VOI window, and MONOCHROME1
inverted, once.
"""

import io
import logging
import re
import warnings
from typing import Any

import numpy as np
from PIL import Image

from . import decoding

SUFFIXES = (".dcm", ".dicom")
PREAMBLE = 132  # bytes up to and with the prefix
FRONTAL = ("", "AP", "PA")  # views, or nothing is said of them
LATERAL = re.compile(r"\blateral", re.IGNORECASE)  # in the meaning of a view's code
RADIOGRAPHS = ("", "CR", "DR", "DX", "RG", "RF", "OT", "SC")  # modalities, or nothing is said
OPTIONAL = ("WindowCenter", "WindowWidth", "VOILUTSequence", "VOILUTFunction", "RescaleSlope",
            "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue", "HighBit")  # fmt: skip
NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation")
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
        _tidy(data)
        concerns = _checked(data)
        grey = _grey(data, _pixels(data))
    except Refused:
        raise
    except Exception as error:  # of many kinds, by damaged files; what they say may be private
        raise Refused(f"not a readable DICOM file ({type(error).__name__})") from None
    if data.PhotometricInterpretation == "MONOCHROME1" and data.get("SamplesPerPixel", 1) == 1:
        grey = 255 - grey
    return Image.fromarray(grey), ", ".join(concerns)


def _tidy(data: Any) -> None:
    """Take away what is there but empty, and a window that is none: as if they were missing."""
    for name in OPTIONAL:
        if name in data and data[name].value in (None, "", [], b""):
            del data[name]
    width = data.get("WindowWidth", 1)
    first = width if isinstance(width, float | int) else width[0]
    if "WindowCenter" not in data or not first > 0:
        data.pop("WindowWidth", None)


def _checked(data: Any) -> list[str]:
    """What makes an answer unsure; raises Refused where a file is not one frontal picture."""
    if "PixelData" not in data:
        locked = "EncryptedAttributesSequence" in data
        raise Refused("its pixel data is encrypted" if locked else "no pixel data")
    if missing := [name for name in NEEDED if data.get(name) in (None, "")]:
        raise Refused(f"its pixels are not described: {missing[0]} is missing")
    if (frames := int(data.get("NumberOfFrames") or 1)) > 1:
        raise Refused(f"{frames} frames; one image per file is needed")
    if data.Rows * data.Columns > decoding.MOST_PIXELS:
        raise Refused(f"too large: {data.Columns} x {data.Rows} px")
    if data.get("HighBit", data.BitsStored - 1) != data.BitsStored - 1:
        raise Refused(
            "HighBit is not BitsStored - 1, which is retired from DICOM and not supported"
        )
    if data.BitsAllocated < 8:
        raise Refused(f"{data.BitsAllocated} bit per pixel: not a radiograph")
    view = _said(data, "ViewPosition").partition(" ")[0]
    codes = [str(code.get("CodeMeaning", "")) for code in data.get("ViewCodeSequence") or []]
    if view not in FRONTAL or any(LATERAL.search(code) for code in codes):
        raise Refused("not a frontal (AP or PA) view")
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
            said = f"compressed as {syntax.name}, for which no decoder is installed"
            raise Refused(f"{said}; {EXTRA}") from None
        raise Refused(f"its pixels cannot be decoded ({type(error).__name__})") from None


def _grey(data: Any, stored: np.ndarray) -> np.ndarray:
    """Uint8, (rows, columns), before any inversion."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    if data.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)
        stored = stored >> 8 if stored.max() > 255 else stored
    elif stored.ndim == 3:
        stored = stored >> max(data.BitsStored - 8, 0)
    if stored.ndim == 3:
        return np.asarray(decoding.grey(Image.fromarray(stored.astype(np.uint8))))
    values = apply_modality_lut(stored, data)
    if padded := "PixelPaddingValue" in data:
        outside = stored == data.PixelPaddingValue
        if padded := not outside.all():
            inverted = data.PhotometricInterpretation == "MONOCHROME1"
            dark = values[~outside].max() if inverted else values[~outside].min()
            values = np.where(outside, dark, values)
    if any(name in data for name in ("WindowWidth", "VOILUTSequence")):
        return _windowed(data, values)
    if stored.dtype in (np.uint8, np.uint16) and (values is stored or padded):
        return np.asarray(decoding.grey(Image.fromarray(values.astype(np.int32))))  # as of a PNG
    return _scaled(values, values.min(), values.max())


def _windowed(data: Any, values: np.ndarray) -> np.ndarray:
    """Through the VOI table or window of a film."""
    from pydicom.pixels import apply_voi, apply_windowing

    if "VOILUTSequence" in data:
        count, _, bits = data.VOILUTSequence[0].LUTDescriptor
        if bits == 8 and (count == 0 or count > 256):  # pydicom takes its entries modulo 256
            raise Refused(
                "its VOI LUT (8-bit, over 256 entries) is not supported; save the film as PNG"
            )
        return _scaled(apply_voi(values, data), 0, 2 ** int(bits) - 1)
    black, white = apply_windowing(np.array([-1e12, 1e12]), data)
    return _scaled(apply_windowing(values, data), black, white)


def _scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Grey values, uint8, of which these two are 0 and 255."""
    black, span = float(black), float(white) - float(black)
    grey = (np.asarray(values, np.float64) - black) / (span or 1) * 255
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
