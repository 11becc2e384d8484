"""DICOM as radiology writes it: read as the film that it holds, or refused with the reason."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_utils.data import dicom

pydicom = pytest.importorskip("pydicom", reason="no pydicom: it comes with the extra 'dicom'")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

PATIENT = "Doe^Secret"


@pytest.fixture(scope="module")
def film():
    """A grey picture with every value from 0 to 255; SYNTHETIC."""
    rows = np.arange(96)[:, None] + np.zeros((1, 96), int)
    return (255 * (rows + rows.T) / 190).round().astype(np.uint8)


def _dataset(pixels, bits=8, photometric="MONOCHROME2", syntax=ExplicitVRLittleEndian, **tags):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.PatientName, data.PatientID = PATIENT, "12345"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    data.PhotometricInterpretation = photometric
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * pixels.itemsize, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def _written(data):
    file = io.BytesIO()
    little = data.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
    pydicom.dcmwrite(file, data, enforce_file_format=True, little_endian=little, implicit_vr=False)
    return file.getvalue()


def _read(data):
    image, concern = dicom.read(_written(data))
    return np.asarray(image), concern


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_grey_of_every_depth_is_the_film(film, photometric, bits, syntax):
    stored = (255 - film) if photometric == "MONOCHROME1" else film
    deep = stored if bits == 8 else stored.astype(np.uint16) << (bits - 8)
    if photometric == "MONOCHROME1":  # such films come with a look-up table, which inverts no more
        tags = {"PresentationLUTShape": "INVERSE"}
    else:
        tags = {"PresentationLUTShape": "IDENTITY"}
    if syntax == RLELossless:
        data = _dataset(deep, bits, photometric, **tags)
        data.compress(RLELossless)
    else:
        data = _dataset(deep, bits, photometric, syntax, **tags)
    assert np.array_equal(_read(data)[0], film)


def test_signed_and_rescaled_values(film):
    stored = film.astype(np.int16) - 128
    assert np.array_equal(_read(_dataset(stored, 16))[0], film)
    rescaled = _dataset(stored, 16, RescaleSlope=2, RescaleIntercept=256, WindowCenter=255.5)
    rescaled.WindowWidth = 511  # of values from 0 to 510
    assert np.abs(_read(rescaled)[0].astype(int) - film).max() <= 1


def test_deep_signed_and_oddly_scaled_values(film):
    """What has neither window nor plain grey values is spread from its least to its largest."""
    wide = film.astype(np.int16) * 200 - 25_500
    assert np.array_equal(_read(_dataset(wide, 16))[0], film)
    assert np.array_equal(_read(_dataset((film.astype(int) - 128).astype(np.int8), 8))[0], film)
    for slope, intercept in (("0.001", "0"), ("1000000", "0"), ("1", "10000"), ("-1", "4095")):
        deep = film.astype(np.uint16) << 4
        deep = 4080 - deep if slope == "-1" else deep
        read = _read(_dataset(deep, 12, RescaleSlope=slope, RescaleIntercept=intercept))[0]
        assert np.abs(read.astype(int) - film).max() <= 1
    negative = {"RescaleSlope": "-1", "RescaleIntercept": "4095"}
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    read = _read(_dataset(4095 - (film.astype(np.uint16) << 4), 12, **negative, **window))[0]
    assert np.abs(read.astype(int) - film).max() <= 1


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_whatever_its_value(film, photometric):
    stored = film if photometric == "MONOCHROME2" else 255 - film
    deep = stored.astype(np.uint16) << 4
    deep[:, :10] = 65535
    data = _dataset(deep, 16, photometric)
    data.add_new("PixelPaddingValue", "US", 65535)
    read = _read(data)[0]
    assert (
        read[:, :10].max() <= 20
        and np.corrcoef(read[:, 10:].ravel(), film[:, 10:].ravel())[0, 1] > 0.999
    )


def test_empty_elements_are_as_missing(film):
    for tag, kind in (("WindowCenter", "DS"), ("WindowWidth", "DS"), ("RescaleSlope", "DS"),
                      ("RescaleIntercept", "DS"), ("VOILUTFunction", "CS")):  # fmt: skip
        data = _dataset(film)
        data.add_new(tag, kind, "")
        assert np.array_equal(_read(data)[0], film)
    assert np.array_equal(_read(_dataset(film, VOILUTSequence=[]))[0], film)
    assert np.array_equal(_read(_dataset(film, WindowWidth=100))[0], film)
    assert np.array_equal(_read(_dataset(film, WindowWidth=0, WindowCenter=9))[0], film)


def test_a_window_is_applied_before_the_inversion(film):
    tags = {"WindowCenter": 128, "WindowWidth": 64}
    one = _read(_dataset(film, photometric="MONOCHROME2", **tags))[0]
    assert one[film < 90].max() == 0 and one[film > 165].min() == 255
    two = _read(_dataset(film, photometric="MONOCHROME1", **tags))[0]
    assert np.array_equal(two, 255 - one)


def test_a_voi_table(film):
    data, table = _dataset(film), Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(256, dtype=np.uint16) ** 2).tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    data.VOILUTSequence = [table]
    expected = np.rint(film.astype(float) ** 2 / 65535 * 255)
    assert np.abs(_read(data)[0] - expected).max() <= 1


def test_colours_are_made_grey(film):
    rgb = np.repeat(film[..., None], 3, axis=2)
    assert np.array_equal(_read(_dataset(rgb, photometric="RGB"))[0], film)
    deep = _dataset(rgb.astype(np.uint16) * 257, 16, "RGB")
    assert np.array_equal(_read(deep)[0], film)
    assert np.array_equal(_read(_dataset(rgb.astype(np.uint16) << 4, 12, "RGB"))[0], film)
    ybr = np.stack([film, np.full_like(film, 128), np.full_like(film, 128)], axis=-1)
    assert np.abs(_read(_dataset(ybr, photometric="YBR_FULL"))[0].astype(int) - film).max() <= 1
    palette = _dataset(255 - film, photometric="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        inverse = (np.arange(255, -1, -1, dtype=np.uint16) * 257).tobytes()
        setattr(palette, f"{colour}PaletteColorLookupTableData", inverse)
        palette[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
    assert np.array_equal(_read(palette)[0], film)


@pytest.mark.parametrize(
    ("syntax", "form"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "J2K")]
)
def test_jpeg(film, syntax, form):
    file = io.BytesIO()
    options = (
        {"format": "JPEG2000", "no_jp2": True}
        if form == "J2K"
        else {"format": "JPEG", "quality": 95}
    )
    Image.fromarray(film).save(file, **options)
    data = _dataset(film, syntax=syntax)
    data.PixelData = pydicom.encaps.encapsulate([file.getvalue()])
    data["PixelData"].is_undefined_length = True
    assert np.abs(_read(data)[0].astype(int) - film).max() <= (0 if form == "J2K" else 4)


def test_missing_tags_are_no_error_and_doubts_are_said(film):
    assert _read(_dataset(film))[1] == ""
    raw = _read(_dataset(film, PresentationIntentType="FOR PROCESSING"))[1]
    assert "FOR PROCESSING" in raw
    assert "modality MR" in _read(_dataset(film, Modality="MR"))[1]
    for view in ("PA", "AP", "PA ERECT"):
        assert _read(_dataset(film, Modality="DX", ViewPosition=view))[1] == ""
    both = _dataset(film, ViewPosition="PA")
    _lateral_by_code(both, "Bilateral breasts removed")
    assert np.array_equal(_read(both)[0], film)


def _lateral_by_code(data, meaning="Lateral projection"):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "399067008", "SCT"
    code.CodeMeaning = meaning
    data.ViewCodeSequence = [code]


REFUSED = {
    "2 frames": lambda data: setattr(data, "NumberOfFrames", 2),
    "not a frontal (AP or PA) view": lambda data: setattr(data, "ViewPosition", "LL"),
    "not a frontal (AP or PA) view ": _lateral_by_code,
    "no pixel data": lambda data: delattr(data, "PixelData"),
    "pixel data is encrypted": lambda data: (
        delattr(data, "PixelData"),
        setattr(data, "EncryptedAttributesSequence", [Dataset()]),
    ),
    "Rows is missing": lambda data: delattr(data, "Rows"),
    "too large: 65000 x 65000 px": lambda data: (
        setattr(data, "Rows", 65000),
        setattr(data, "Columns", 65000),
    ),
    "HighBit": lambda data: setattr(data, "HighBit", 15),
    "its pixels cannot be decoded": lambda data: setattr(data, "PixelData", data.PixelData[:100]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_with_the_reason(film, reason):
    data = _dataset(film)
    REFUSED[reason](data)
    with pytest.raises(dicom.Refused, match=reason.strip().replace("(", r"\(").replace(")", r"\)")):
        _read(data)


def test_a_compression_that_nothing_reads_names_the_extra(film, monkeypatch):
    data = _dataset(film, syntax=JPEGLSLossless)
    data.PixelData = pydicom.encaps.encapsulate([bytes(200)])
    data["PixelData"].is_undefined_length = True
    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(dicom.Refused, match=r"compressed as JPEG-LS Lossless.*cxr-utils\[dicom\]"):
        _read(data)


@pytest.mark.parametrize("cut", [0, 50, 140, 400, 900])
def test_a_damaged_file_is_refused(film, cut):
    with pytest.raises(dicom.Refused):
        dicom.read(_written(_dataset(film))[:cut])


def test_every_file_that_pydicom_ships_is_read_or_refused(capfd):
    files = [file for file in Path(pydicom.__file__).parent.glob("data/test_files/**/*")
             if file.is_file() and dicom.is_dicom(file.read_bytes()[:200])]  # fmt: skip
    read, refused = 0, []
    for file in files:
        try:
            assert np.asarray(dicom.read(file.read_bytes())[0]).dtype == np.uint8
            read += 1
        except dicom.Refused as error:
            refused.append(str(error))
    assert read >= 60 and len(refused) >= 20 and all(refused)
    said = " ".join(refused) + "".join(capfd.readouterr())
    assert "CompressedSamples" not in said and "Citizen" not in said  # their patients' names


def test_nothing_of_the_patient_is_said(film, capfd, caplog):
    """Not even where its name stands in a field that a refusal or a library quotes."""
    broken = {"PhotometricInterpretation": PATIENT, "ViewPosition": PATIENT, "WindowWidth": PATIENT}
    for tag, value in broken.items():
        data = _dataset(film, **{"WindowCenter": 1})
        data.add_new(tag, "CS", value)
        content = _written(data)
        capfd.readouterr()
        with pytest.raises(dicom.Refused) as refused:
            dicom.read(content)
        said = str(refused.value) + "".join(capfd.readouterr()) + caplog.text
        assert "Secret" not in said.title()
