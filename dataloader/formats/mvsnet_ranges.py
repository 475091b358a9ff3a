"""Depth ranges and view pairs of MVSNet scenes, from the points that the photos observe (specs/hash_manifold
4.6, after MVSNet's colmap2mvsnet.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dataloader.scene import Record, SparsePoints
from geometry.cameras import Cameras

QUANTILES = (0.01, 0.99)  # of the sorted depths: near and far
BEST = 10  # partners listed for a view in pair.txt
DepthLine = tuple[float, float, float, float]  # near, interval, count, far


def observed_rows(points: SparsePoints, name: str) -> NDArray[np.int64]:
    """The rows of the points that a photo observes, a row as often as it is observed."""
    return points.tracks.get(name, (np.empty(0, np.int64), None))[0]


def depth_line(
    points: SparsePoints, name: str, camera: Cameras, max_d: float = 0, interval_scale: float = 1
) -> DepthLine | None:
    """Depth planes for a photo: near, interval, count (not rounded), far, in world units.

    near and far: the depths at index int(0.01 n) and int(0.99 n) of the n sorted ones. count: max_d, or for 0
    as many planes, evenly spaced in inverse depth, as move the principal point's surroundings by a pixel at
    `near`. interval = (far - near) / (count - 1) / interval_scale. None where fewer than two depths make a
    range.
    """
    rows = observed_rows(points, name)
    depth = camera.project(torch.from_numpy(points.xyz[rows]))[1].numpy()
    depth = np.sort(depth[depth > 0])
    if not len(depth):
        return None
    near, far = (float(depth[int(len(depth) * quantile)]) for quantile in QUANTILES)
    count = max_d or _plane_count(camera, near, far)
    if count <= 1:
        return None
    return near, (far - near) / (count - 1) / interval_scale, count, far


def _plane_count(camera: Cameras, near: float, far: float) -> float:
    """(1/near - 1/far) over the step of inverse depth that a pixel's width at depth `near` makes."""
    pixel = np.linalg.inv(camera.K.numpy())[:, 0]  # from a pixel to its right neighbour, at depth 1
    step = near * float(np.linalg.norm(pixel))
    return (1 / near - 1 / far) / (1 / near - 1 / (near + step))


def pair_scores(
    records: Sequence[Record],
    points: SparsePoints,
    theta0: float = 5.0,
    sigma1: float = 1.0,
    sigma2: float = 10.0,
) -> NDArray[np.float64]:
    """[N, N] how well two photos suit for matching, 0 on the diagonal.

    The sum over shared points of exp(-(theta - theta0)^2 / (2 sigma^2)), theta the angle in degrees between
    the two lines of sight, sigma = sigma1 up to theta0 and sigma2 beyond. A point that the earlier photo
    observes several times counts as often.
    """
    tracks = [observed_rows(points, record.name) for record in records]
    centers = np.stack([record.camera.center.numpy() for record in records])
    once = [np.unique(rows) for rows in tracks]
    row, view = np.concatenate(once), np.repeat(np.arange(len(records)), [len(rows) for rows in once])
    scores = np.zeros((len(records), len(records)))
    for i, rows in enumerate(tracks):
        times = np.bincount(rows, minlength=len(points.xyz))
        shared = (view > i) & (times[row] > 0)
        xyz, other = points.xyz[row[shared]], view[shared]
        theta = _angle(centers[i] - xyz, centers[other] - xyz)
        sigma = np.where(theta <= theta0, sigma1, sigma2)
        weight = times[row[shared]] * np.exp(-((theta - theta0) ** 2) / (2 * sigma**2))
        scores[i] = np.bincount(other, weight, minlength=len(records))
    return scores + scores.T


def _angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees between vectors [P, 3]; 0 where one has no length."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(1), lengths, out=np.ones_like(lengths), where=lengths > 0)
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


def format_pairs(scores: NDArray[np.float64]) -> str:
    """The text of pair.txt: for each photo its number, then its best partners `count number score ...`.

    Photos count from 0 in the order of their names. Up to ten partners, best first; those that share no
    point, and the photo itself, are left out.
    """
    lines = [str(len(scores))]
    for i, row in enumerate(scores):
        best = [k for k in np.argsort(-row, kind="stable")[:BEST] if row[k] > 0]
        lines += [str(i), " ".join([str(len(best)), *(f"{k} {row[k]:.6f}" for k in best)])]
    return "\n".join(lines) + "\n"
