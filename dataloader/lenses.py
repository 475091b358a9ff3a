"""Lens distortion of photos (the polynomial model of OpenCV and COLMAP), and its removal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from geometry.cameras import Cameras

_NEWTON_STEPS = 20
_ZOOMS = (0.5, 4.0)  # range of focal lengths tried for the undistorted photo, relative to the photo's
_BORDER_SAMPLES = 64  # per side


@dataclass(frozen=True, eq=False)
class Lens:
    """How a photo was distorted (Brown 1966, as in OpenCV: x_d = x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y
    + p2 (r^2 + 2 x^2), likewise y).

    K: [3, 3] float64 intrinsics of the photo as taken. radial: (k1, k2, k3). tangential: (p1, p2).
    """

    K: NDArray[np.float64]
    radial: tuple[float, float, float]
    tangential: tuple[float, float]

    def distort(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ideal camera-plane points at depth 1 [N, 2] -> pixels of the photo [N, 2]."""
        return self._bend(points) @ self.K[:2, :2].T + self.K[:2, 2]

    def undistort(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels of the photo [N, 2] -> ideal camera-plane points at depth 1 [N, 2] (Newton's method)."""
        target = (pixels - self.K[:2, 2]) @ np.linalg.inv(self.K[:2, :2]).T
        points = target.copy()
        for _ in range(_NEWTON_STEPS):
            step = np.linalg.solve(self._jacobian(points), (target - self._bend(points))[..., None])
            points = points + step[..., 0]
        return points

    def _bend(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points.T
        p1, p2 = self.tangential
        square = x * x + y * y
        radial = self._radial(square)
        bent_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        bent_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return np.stack([bent_x, bent_y], axis=-1)

    def _radial(self, square: NDArray[np.float64]) -> NDArray[np.float64]:
        k1, k2, k3 = self.radial
        return 1 + square * (k1 + square * (k2 + square * k3))

    def _jacobian(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """[N, 2, 2] derivative of the bent point by the ideal one."""
        x, y = points.T
        (k1, k2, k3), (p1, p2) = self.radial, self.tangential
        square = x * x + y * y
        radial, slope = self._radial(square), k1 + square * (2 * k2 + square * 3 * k3)
        cross = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        xx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
        yy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
        return np.stack([np.stack([xx, cross], -1), np.stack([cross, yy], -1)], -2)

    def remap(self, image: NDArray[np.uint8], camera: Cameras) -> NDArray[np.uint8]:
        """Resample a photo [H, W, 3] as the pinhole `camera` (of the same size) sees it (bicubic)."""
        import cv2

        half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # OpenCV counts pixels from their centres
        (k1, k2, k3), (p1, p2) = self.radial, self.tangential
        x, y = cv2.initUndistortRectifyMap(
            self.K - half,
            np.array([k1, k2, p1, p2, k3]),
            np.eye(3),
            camera.K.numpy() - half,
            (camera.width, camera.height),
            cv2.CV_32FC1,
        )
        resampled = cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(resampled, dtype=np.uint8)

    def sees(self, camera: Cameras) -> bool:
        """Whether every pixel of the pinhole `camera` comes from inside the photo, where the lens is
        one-to-one.
        """
        points = _plane_points(_border(camera.height, camera.width), camera.K.numpy())
        pixels = self.distort(points)
        inside = (pixels >= 0).all() and (pixels <= (camera.width, camera.height)).all()
        square = np.linspace(0, float((points**2).sum(axis=1).max()), 256)
        k1, k2, k3 = self.radial
        rising = 1 + square * (3 * k1 + square * (5 * k2 + square * 7 * k3)) > 0  # d(r radial)/dr
        return bool(inside and rising.all())


def _plane_points(pixels: NDArray[np.float64], K: NDArray[np.float64]) -> NDArray[np.float64]:
    return (pixels - K[:2, 2]) @ np.linalg.inv(K[:2, :2]).T


def _border(height: int, width: int) -> NDArray[np.float64]:
    """[4 n, 2] pixel coordinates around the edge of an image."""
    along = np.linspace(0, 1, _BORDER_SAMPLES)
    zero, one = np.zeros_like(along), np.ones_like(along)
    sides = [(along, zero), (along, one), (zero, along), (one, along)]
    return np.concatenate([np.stack(side, axis=-1) for side in sides]) * (width, height)


def undistorted_camera(camera: Cameras, lens: Lens, source: str) -> Cameras:
    """The pinhole camera of a photo after its distortion is removed.

    Same size and principal point as `camera`; both focal lengths change by one factor, the smallest in [0.5,
    4] for which no pixel falls outside the photo. Raises UserError naming `source` when there is none.
    """
    low, high = _ZOOMS
    if not lens.sees(_zoomed(camera, high)):
        raise UserError(
            f"{source}: distortion radial {lens.radial}, tangential {lens.tangential} is too strong for a "
            "pinhole camera: check the calibration"
        )
    if lens.sees(_zoomed(camera, low)):
        return _zoomed(camera, low)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if lens.sees(_zoomed(camera, middle)) else (middle, high)
    return _zoomed(camera, high)


def _zoomed(camera: Cameras, factor: float) -> Cameras:
    scale = torch.ones(3, 3, dtype=camera.K.dtype)
    scale[:2, :2] = factor
    return replace(camera, K=camera.K * scale)
