"""Radiographs drawn by the package itself, so that it runs anywhere: SYNTHETIC, not medicine.

A thorax is a field of attenuation: soft tissue, two lungs of air, ribs, clavicles, spine, heart and
diaphragm. Pneumonia adds focal consolidation (bacterial) or a diffuse interstitial pattern (viral)
in the lungs and keeps its mask. Anatomy varies by patient; pose, exposure, sharpness and noise by
image, widely enough that brightness, contrast, size and file bytes hardly tell the classes apart.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

from .decoding import Square, decode, in_parallel

MARKER = "phantom.json"
LOOKED_AT = 20  # images of each class that are looked at for the comment
COMMENT = b"SYNTHETIC: drawn by the phantom of cxr_utils, no radiograph"  # so copies are known
# As in the real set: 3,875 PNEUMONIA of 5,216 in train, 390 of 624 in test; 2,530 bacterial.
PNEUMONIA_SHARE = {"train": 3875 / 5216, "val": 0.5, "test": 390 / 624}
BACTERIAL_SHARE = {"train": 2530 / 3875, "val": 1.0, "test": 242 / 390}
MORE_IMAGES = {"normal": 0.12, "bacteria": 0.5, "virus": 0.4}  # chance of one more of a patient
MOST_IMAGES = 8
WIDEST = 1.35  # width over height
Field = np.ndarray  # of float32, (height, width)
Fields = tuple[Field, Field]


class Radiograph(NamedTuple):
    """One image to be drawn."""

    path: str  # below the data root, in the Kaggle layout
    kind: str  # normal, bacteria or virus
    patient: int  # unique over all kinds and splits
    image: int  # number within its patient, from 0


def is_drawn(folder: Path) -> bool:
    """Tell whether a folder in the Kaggle layout, or a copy of one, holds images of the phantom."""
    for label in ("NORMAL", "PNEUMONIA"):
        looked_at = sorted((folder / "train" / label).glob("[!.]*.jpeg"))[:LOOKED_AT]
        for file in filter(Path.is_file, looked_at):
            with file.open("rb") as content:
                if COMMENT in content.read(4096):
                    return True
    return (folder / MARKER).is_file()


def mask_of(root: Path, name: str) -> Path:
    """Return where the mask of an image of the phantom lies, or would lie."""
    return (root / "masks" / name).with_suffix(".png")


def masks(root: Path, names: Sequence[str], square: Square) -> np.ndarray:
    """Return where the pneumonia is in images of the phantom, made square as they were; bool."""
    return np.stack([decode(mask_of(root, name).read_bytes(), square) > 127 for name in names])


def draw_set(root: Path, images: int, size: int, seed: int, progress: bool = False) -> None:
    """Draw a whole SYNTHETIC data set into a new folder in the Kaggle layout, with its masks.

    It has `images` for training, a quarter as many for test and 16 in val, their mean height being
    `size` px. The same seed gives the same bytes on one machine with the locked versions.
    """
    plan = plan_set(images, seed)
    for folder in {Path(radiograph.path).parent for radiograph in plan}:
        for top in (root, root / "masks"):
            (top / folder).mkdir(parents=True, exist_ok=True)
    save = partial(_save, root, size, seed)
    list(in_parallel(save, plan, "drawing the SYNTHETIC phantom", progress))
    about = {"synthetic": True, "images": images, "size": size, "seed": seed}
    (root / MARKER).write_text(json.dumps(about))


def _save(root: Path, size: int, seed: int, radiograph: Radiograph) -> None:
    pixels, mask, quality = draw(radiograph, size, seed)
    Image.fromarray(pixels).save(root / radiograph.path, "JPEG", quality=quality, comment=COMMENT)
    if radiograph.kind != "normal":
        Image.fromarray(mask * np.uint8(255)).save(mask_of(root, radiograph.path))


def plan_set(images: int, seed: int) -> list[Radiograph]:
    """Return the images: class balance, subtypes and images a patient as in the real set."""
    rng = default_rng([seed, 0])
    plan: list[Radiograph] = []
    patients = Counter[str]()  # of each kind so far
    for split, total in (("train", images), ("val", 16), ("test", round(images / 4))):
        sick = round(total * PNEUMONIA_SHARE[split])
        bacterial = round(sick * BACTERIAL_SHARE[split])
        kinds = {"normal": total - sick, "bacteria": bacterial, "virus": sick - bacterial}
        for kind, wanted in kinds.items():
            folder = f"{split}/{'NORMAL' if kind == 'normal' else 'PNEUMONIA'}"
            done = 0
            while done < wanted:
                patients[kind] += 1
                number, patient = patients[kind], patients.total()
                several = min(int(rng.geometric(1 - MORE_IMAGES[kind])), MOST_IMAGES, wanted - done)
                for image in range(several):
                    name = f"person{number}_{kind}_{done + image + 1}"
                    if kind == "normal":
                        name = f"{'NORMAL2-' * (number % 2)}IM-{number:04d}-{image + 1:04d}"
                    plan.append(Radiograph(f"{folder}/{name}.jpeg", kind, patient, image))
                done += several
    return plan


def draw(radiograph: Radiograph, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw a SYNTHETIC image about `size` px high (uint8), its mask (bool) and its JPEG quality."""
    body = default_rng([seed, 1, radiograph.patient])
    view = default_rng([seed, 2, radiograph.patient, radiograph.image])
    height = round(size * view.uniform(0.9, 1.1))
    width = round(height * view.uniform(1.0, 1.3))
    x, y = _grid(height, width, view)
    field, lungs = _thorax(x, y, body, view)
    mask = np.zeros((height, width), bool)
    if radiograph.kind != "normal":
        add = {"bacteria": _consolidation, "virus": _interstitial}[radiograph.kind]
        shadow, mask = add(x, y, lungs, body, view)
        field += shadow
    return _expose(field, view), mask, int(view.integers(80, 96))


def _grid(height: int, width: int, view: Generator) -> Fields:
    """Coordinates with the thorax at about -1..1, turned, shifted and scaled by the pose."""
    reach = 1.1 * (width / height) / 1.15
    across = np.linspace(-reach, reach, width, dtype=np.float32)[None, :]
    down = np.linspace(-1.1, 1.1, height, dtype=np.float32)[:, None]
    angle = np.float32(np.radians(view.normal(0, 2.5)))
    zoom = np.float32(view.uniform(0.92, 1.08))
    shift_x, shift_y = view.normal(0, 0.04, 2).astype(np.float32)
    x = (across * np.cos(angle) - down * np.sin(angle)) * zoom + shift_x
    y = (across * np.sin(angle) + down * np.cos(angle)) * zoom + shift_y
    return x, y


def _edge(value: Field, softness: float) -> Field:
    """1 where `value` is well under 0, 0 where it is well over, smooth between."""
    return np.float32(0.5) - np.float32(0.5) * np.tanh(value * np.float32(0.5 / softness))


def _bump(value: Field, width: float) -> Field:
    return np.exp(-np.square(value * np.float32(1 / width)))


def _cloud(shape: tuple[int, int], cells: int, rng: Generator) -> Field:
    """Smooth random field of about unit spread with features of 1/cells of the height."""
    # As many numbers for every image, so that a patient's anatomy does not hang on the aspect.
    drawn = rng.standard_normal((cells + 1, round(cells * WIDEST) + 1), np.float32)
    coarse = drawn[:, : round(cells * shape[1] / shape[0]) + 1]
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def _thorax(x: Field, y: Field, body: Generator, view: Generator) -> Fields:
    """Attenuation of a healthy thorax, and the lungs (0..1)."""
    broad, breath = body.uniform(0.92, 1.08), view.uniform(-0.06, 0.06)
    trunk = _edge(np.abs(x) - (0.98 * broad + 0.1 * y), 0.03) * _edge(-1.02 - y, 0.03)
    lungs = np.zeros_like(x)
    for side in (-1, 1):
        centre, half = side * 0.44 * broad, (0.33 + body.uniform(-0.02, 0.02)) * broad
        across = (x - centre) / (half * (0.98 + 0.22 * y))
        along = (y + 0.1) / (0.78 + body.uniform(-0.04, 0.04))
        lung = _edge(np.abs(across) ** 2.4 + np.abs(along) ** 2.6 - 1, 0.07)
        dome = 0.48 + breath + 0.05 * side - 0.13 * _bump(x - centre, 0.36)
        lungs += lung * _edge(y - dome, 0.02)
    dense, air = 0.62 + body.uniform(-0.04, 0.04), 0.42 + body.uniform(-0.05, 0.05)
    field = trunk * np.float32(dense) - lungs * np.float32(air)
    return field + _inner_organs(x, y, lungs, body) + _bones(x, y, trunk, body), lungs


def _inner_organs(x: Field, y: Field, lungs: Field, body: Generator) -> Field:
    """Heart, hilar vessels and the soft shadows of a normal chest."""
    size = body.uniform(0.85, 1.15)
    heart = _edge(((x - 0.12) / (0.34 * size)) ** 2 + ((y - 0.2) / (0.32 * size)) ** 2 - 1, 0.1)
    hilum = _bump(np.abs(x) - 0.2, 0.16) * _bump(y + 0.08, 0.26)
    vessels = np.maximum(_cloud(x.shape, 14, body), 0) * (0.04 + 0.14 * hilum) * lungs
    shadows = _cloud(x.shape, 3, body) * np.float32(0.035)
    return heart * lungs * np.float32(0.34) + heart * np.float32(0.06) + vessels + shadows


def _bones(x: Field, y: Field, trunk: Field, body: Generator) -> Field:
    """Ribs, clavicles and spine."""
    out = np.abs(x)
    spacing, slope, dense = body.uniform(0.19, 0.23), body.uniform(0.3, 0.5), body.uniform(0.8, 1.2)
    phase = (y - slope * out + 0.35 * out**2 + body.uniform(0, 0.2)) / spacing
    ribs = _bump(phase - np.round(phase), 0.17) * _edge(0.12 - out, 0.03) * _edge(out - 0.9, 0.04)
    ribs *= _edge(np.abs(y + 0.12) - 0.8, 0.05)
    clavicles = _bump(y + 0.82 - 0.22 * out, 0.035) * _edge(0.1 - out, 0.02)
    clavicles = clavicles * _edge(out - 0.75, 0.03)
    vertebrae = 1 + 0.18 * np.sin(y * np.float32(2 * np.pi / 0.16) + body.uniform(0, 6))
    spine = _bump(x, 0.11) * vertebrae
    return trunk * (ribs * 0.1 + clavicles * 0.13 + spine * 0.15) * np.float32(dense)


def _consolidation(x: Field, y: Field, lungs: Field, body: Generator, view: Generator) -> Fields:
    """One or two ragged, dense patches, small and anywhere in either lung (bacterial)."""
    ragged = _cloud(x.shape, 9, view) * np.float32(0.3)
    shape = np.zeros_like(x)
    for _ in range(1 + (body.uniform() < 0.25)):
        side, along = body.choice((-1, 1)), body.uniform(-0.8, 0.55)
        across = body.uniform(-0.8, 0.8) * (1 - abs(along) ** 2.6) ** (1 / 2.4)
        centre_y = 0.78 * along - 0.1
        centre_x = side * (0.44 + across * 0.33 * (0.98 + 0.22 * centre_y))
        radius = np.float32(body.uniform(0.1, 0.17))
        distance = np.hypot(x - centre_x, (y - centre_y) * body.uniform(0.8, 1.2)) / radius
        shape = np.maximum(shape, _edge(distance + ragged - 1, 0.14))
    shape *= lungs
    strength = body.uniform(0.36, 0.55) * view.uniform(0.85, 1.15)
    return shape * np.float32(strength), shape > 0.5


def _interstitial(x: Field, y: Field, lungs: Field, body: Generator, view: Generator) -> Fields:
    """Fine lines and haze in both lungs, densest around the hila (viral)."""
    hila = _bump(np.abs(x) - 0.3, 0.3) * _bump(y - body.uniform(-0.2, 0.15), 0.5)
    where = lungs * (0.45 + 0.55 * hila)
    lines = _bump(_cloud(x.shape, 17, view), 0.35) + _bump(_cloud(x.shape, 11, body), 0.35)
    haze = np.float32(0.35) + np.float32(0.2) * _cloud(x.shape, 5, body)
    strength = body.uniform(0.09, 0.18) * view.uniform(0.85, 1.15)
    return where * (lines + haze) * np.float32(strength), where > 0.5


def _expose(field: Field, view: Generator) -> np.ndarray:
    """Film or detector: blur, noise, exposure and contrast, widely varied; uint8."""
    noise = view.standard_normal(field.shape, np.float32) * np.float32(view.uniform(0.008, 0.04))
    sides = field.shape[::-1]
    coarse = [max(16, round(side * view.uniform(0.6, 1.0))) for side in sides]
    grain = Image.fromarray(field + noise).resize(coarse, Image.Resampling.BILINEAR)
    field = np.asarray(grain.resize(sides, Image.Resampling.BICUBIC))
    gain, offset = np.float32(view.uniform(0.9, 1.4)), np.float32(view.uniform(-0.08, 0.14))
    exposed = np.clip(field * gain + offset, 0, 1) ** np.float32(view.uniform(0.7, 1.4))
    return (exposed * np.float32(view.uniform(215, 255))).astype(np.uint8)
