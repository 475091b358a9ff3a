"""Agisoft Metashape's camera XML (specs/hash_manifold 4.4).

It holds one pinhole calibration per sensor (principal point relative to the image centre) and a
camera-to-chunk pose (OpenCV axes) per camera. Distortion is not read: the photos must have been exported
undistorted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.formats.shared import checked_camera, read_text
from geometry.cameras import Cameras

logger = logging.getLogger(__name__)

_BENT = ("k1", "k2", "k3", "k4", "p1", "p2", "p3", "p4", "b1", "b2")  # what no undistorted photo has


@dataclass
class MetashapeCamera:
    """A posed photo of the XML.

    label: its name there. camera: float64, of the sensor's size, in the chunk's frame or the world's.
    """

    label: str
    camera: Cameras


@dataclass(frozen=True)
class _Similarity:
    """x -> scale * rotation x + translation."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    scale: float

    @property
    def is_identity(self) -> bool:
        same = np.allclose(self.rotation, np.eye(3)) and np.allclose(self.translation, 0)
        return bool(same and np.isclose(self.scale, 1))

    def move(self, pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """A camera-to-chunk pose [4, 4] as a camera-to-world pose."""
        moved = np.eye(4)
        moved[:3, :3] = self.rotation @ pose[:3, :3]
        moved[:3, 3] = self.scale * self.rotation @ pose[:3, 3] + self.translation
        return moved


def read_cameras(path: Path, apply_transform: bool = False) -> list[MetashapeCamera]:
    """The posed cameras of an XML's first chunk, those in groups too, in the file's order.

    apply_transform: move them by the transform of their chunk (or component) from the chunk's frame into the
    world's. Cameras without pose, distortion terms, a transform that is left out and further chunks are named
    in the log. Raises UserError for a file that is malformed, no frame camera, or has two cameras of a label.
    """
    try:
        document = ElementTree.fromstring(read_text(path).encode())
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not valid XML ({error}): export the cameras again") from None
    chunks = [document] if document.tag == "chunk" else document.findall("chunk")
    if not chunks:
        raise UserError(f"{path} holds no <chunk>: export the cameras as Metashape XML")
    if len(chunks) > 1:
        logger.warning("%s holds %d chunks, of which the first is read", path, len(chunks))
    return _read_chunk(chunks[0], path, apply_transform)


def _read_chunk(chunk: Element, path: Path, apply_transform: bool) -> list[MetashapeCamera]:
    sensors = {sensor.get("id"): sensor for sensor in chunk.iterfind("sensors/sensor")}
    transforms = _transforms(chunk, path)
    elements = chunk.findall("cameras//camera")
    with_pose = [element for element in elements if element.find("transform") is not None]
    without = [element.get("label", "") for element in elements if element.find("transform") is None]
    cameras, used = [], {}
    for element in with_pose:
        source, sensor_id = f"{path}: camera {element.get('label')}", element.get("sensor_id")
        if sensor_id not in sensors:
            raise UserError(f"{source} has the unknown sensor {sensor_id}: export the cameras again")
        used[sensor_id] = sensors[sensor_id]
        K, size = _calibration(sensors[sensor_id], path)
        c2w = _numbers(element.findtext("transform"), 16, source).reshape(4, 4)
        if apply_transform:
            c2w = transforms.get(element.get("component_id"), transforms[None]).move(c2w)
        cameras.append(MetashapeCamera(element.get("label", ""), checked_camera(K, c2w, size, source)))
    _check_labels(cameras, path)
    name_some("%s: %d cameras have no pose and are left out: %s", path, without)
    _report_distortion(used.values(), path)
    if not apply_transform:
        _report_transforms(transforms.values(), path)
    return cameras


def name_some(message: str, path: Path, names: Sequence[str]) -> None:
    """Warn about things in a file by their number and the first five names; say nothing of none."""
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        logger.warning(message, path, len(names), shown)


def _report_distortion(sensors: Iterable[Element], path: Path) -> None:
    for sensor in sensors:
        terms = [
            f"{name} {value}" for name in _BENT if float(value := sensor.findtext(f"calibration/{name}") or 0)
        ]
        if terms:
            logger.warning(
                "%s: distortion of sensor %s is not removed (%s): its photos must be exported undistorted",
                path,
                sensor.get("label") or sensor.get("id"),
                ", ".join(terms),
            )


def _report_transforms(transforms: Iterable[_Similarity], path: Path) -> None:
    scales = [f"{transform.scale:.6g}" for transform in transforms if not transform.is_identity]
    if scales:
        logger.warning(
            "%s: the chunk's transform (scale %s) is not applied: export the mesh in local coordinates, or "
            "use --apply_transform",
            path,
            ", ".join(scales),
        )


def _check_labels(cameras: Sequence[MetashapeCamera], path: Path) -> None:
    seen: set[str] = set()
    for camera in cameras:
        if camera.label in seen:
            raise UserError(f"{path}: two cameras are labelled {camera.label!r}: rename one of the photos")
        seen.add(camera.label)


def _numbers(text: str | None, count: int, source: str) -> NDArray[np.float64]:
    """Exactly `count` finite numbers of an element's text."""
    try:
        numbers = np.array([float(word) for word in (text or "").split()])
    except ValueError as error:
        raise UserError(f"{source}: {error}: export the cameras again") from None
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UserError(f"{source} needs {count} finite numbers, not {text!r}: export the cameras again")
    return numbers


def _calibration(sensor: Element, path: Path) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """K [3, 3] of the sensor's photos, and their (height, width)."""
    source = f"{path}: sensor {sensor.get('label') or sensor.get('id')}"
    resolution, calibration = sensor.find("resolution"), sensor.find("calibration")
    if resolution is None or calibration is None:
        raise UserError(f"{source} has no resolution or no calibration: align its photos, then export again")
    kinds = {sensor.get("type", "frame"), calibration.get("type", "frame")}
    if kinds != {"frame"}:
        raise UserError(f"{source} is of type {'/'.join(sorted(kinds))}: only frame cameras can be used")

    def term(name: str, default: float | None = None) -> float:
        text = calibration.findtext(name)
        if text is None and default is not None:
            return default
        return float(_numbers(text, 1, f"{source}: <{name}>")[0])

    width, height = (
        int(_numbers(resolution.get(side), 1, f"{source}: {side}")[0]) for side in ("width", "height")
    )
    old = calibration.find("f") is None  # before Metashape 1.2: fx and fy
    fx, fy = (term("fx"), term("fy")) if old and calibration.find("fx") is not None else (term("f"),) * 2
    cx, cy = width / 2 + term("cx", 0.0), height / 2 + term("cy", 0.0)  # Metashape omits what is 0
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (height, width)


def _transforms(chunk: Element, path: Path) -> dict[str | None, _Similarity]:
    """The transform of each component by its id, and under None that of the chunk."""
    found: dict[str | None, _Similarity] = {None: _transform(chunk.find("transform"), path)}
    for component in chunk.iterfind("components/component"):
        element = component.find("transform")
        if element is not None and len(element):
            found[component.get("id")] = _transform(element, path)
    return found


def _transform(element: Element | None, path: Path) -> _Similarity:
    def numbers(name: str, default: str, count: int) -> NDArray[np.float64]:
        text = None if element is None else element.findtext(name)
        return _numbers(default if text is None else text, count, f"{path}: the chunk's {name}")

    rotation = numbers("rotation", "1 0 0 0 1 0 0 0 1", 9).reshape(3, 3)
    return _Similarity(rotation, numbers("translation", "0 0 0", 3), float(numbers("scale", "1", 1)[0]))
