"""One picture that shows whether a scene's cameras are right: frusta, projected points, epipolar lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.files import replacing
from dataloader.camera_checks import ViewPair, pair_distances, reprojection_errors, summary, telling_pair
from dataloader.images import fit_size, resize_image
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras
from geometry.epipolar import epipolar_lines, fundamental_matrix

_TRAIN, _TEST, _INK, _FAINT = "#2b6cb0", "#dd6b20", "#2d3748", "#cbd5e0"
_MAX_POINTS = 6000  # drawn in the overviews
_MAX_SIDE = 900  # pixels of a drawn photo
_MATCHES = 9  # points with epipolar lines
_WIDTH, _TALLEST = 16.0, 5.4  # inches: the picture, and a photo in it
_TITLE, _OVERVIEW, _CAPTION, _SCALE = 0.45, 6.2, 0.75, 0.55  # inches: rows of the picture
_PHOTOS = 3
_TURN, _TILT = 30.0, 28.0  # degrees: where the scene is seen from


def draw_check(scene: Scene, path: Path) -> None:
    """Write one PNG: cameras and points in space and from above, sparse points projected into three photos,
    and epipolar lines between two.

    Raises UserError when a photo cannot be read or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pair = telling_pair(scene)
    shown = _shown_photos(scene, pair)
    columns = len(shown) + (2 if pair else 0)
    photo_height = min(_WIDTH / columns / _aspect(scene, shown), _TALLEST)
    height = _TITLE + _OVERVIEW + _CAPTION + photo_height + _SCALE
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.15 / height, scene.name, va="top", fontsize=16, color=_INK)
    top = figure.add_gridspec(
        1, 1, left=0.012, right=0.99, top=1 - _TITLE / height, bottom=1 - (_TITLE + _OVERVIEW) / height
    )
    _draw_overviews(figure, top[0], scene)
    cells = figure.add_gridspec(
        1,
        columns,
        left=0.012,
        right=0.988,
        top=(photo_height + _SCALE) / height,
        bottom=_SCALE / height,
        wspace=0.03,
    )
    errors = reprojection_errors(scene)
    for i, index in enumerate(shown):
        _draw_points(figure, figure.add_subplot(cells[i]), scene, index, errors)
    if pair is not None:
        axes = [figure.add_subplot(cells[len(shown) + i]) for i in (0, 1)]
        _draw_epipolar(axes, scene, pair)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _shown_photos(scene: Scene, pair: ViewPair | None) -> list[int]:
    """Up to three photos spread over the scene, others than the pair where there are enough."""
    taken = {pair.first, pair.second} if pair else set()
    free = [i for i in range(len(scene)) if i not in taken] or list(range(len(scene)))
    return sorted({free[round(at)] for at in np.linspace(0, len(free) - 1, _PHOTOS)})


def _aspect(scene: Scene, indices: list[int]) -> float:
    """Smallest width / height of the photos."""
    cameras = [scene.records[i].camera for i in indices]
    return min(camera.width / camera.height for camera in cameras)


# ---- overviews -------------------------------------------------------------------------------------------


def _draw_overviews(figure: Any, cell: Any, scene: Scene) -> None:
    """The scene in space, from above, and its numbers."""
    space, above, table = cell.subgridspec(1, 3, width_ratios=[1.1, 1.15, 0.6], wspace=0.07)
    frame = _upright_frame(scene)
    centers = np.stack([record.camera.center.numpy() for record in scene.records]) @ frame.T
    points, colors = _drawn_points(scene, frame)
    size = _frustum_size(scene, centers)
    frusta = [_frustum(record.camera, size) @ frame.T for record in scene.records]
    test = set(scene.splits.get("test", []))
    tints = [_TEST if i in test else _TRAIN for i in range(len(scene))]
    _draw_space(figure.add_subplot(space), frusta, tints, points, colors)
    _draw_above(figure.add_subplot(above), scene, frusta, tints, points, colors)
    _draw_table(figure.add_subplot(table), scene, any(tint == _TEST for tint in tints))


def _upright_frame(scene: Scene) -> NDArray[np.float64]:
    """[3, 3] world axes to drawing axes: z up (the cameras' mean up), y their mean viewing direction."""
    poses = torch.stack([record.camera.c2w for record in scene.records]).numpy()
    up = -poses[:, :3, 1].mean(axis=0)
    up = up / max(float(np.linalg.norm(up)), 1e-9)
    ahead = poses[:, :3, 2].mean(axis=0)
    ahead = ahead - up * (ahead @ up)
    if np.linalg.norm(ahead) < 1e-3:  # cameras all round
        ahead = poses[0, :3, 2] - up * (poses[0, :3, 2] @ up)
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    return np.stack([np.cross(ahead, up), ahead, up])


def _drawn_points(
    scene: Scene, frame: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sparse points (else the mesh's vertices) in drawing axes, without outliers, and colours in [0, 1]."""
    if scene.points is not None and len(scene.points.xyz):
        points, colors = scene.points.xyz, scene.points.rgb / 255.0
    elif scene.has_mesh:
        mesh = scene.mesh()
        points = mesh.vertices.double().numpy()
        colors = np.full(points.shape, 0.62) if mesh.colors is None else mesh.colors.double().numpy()
    else:
        return np.empty((0, 3)), np.empty((0, 3))
    points = points @ frame.T
    low, high = np.percentile(points, (1, 99), axis=0)
    margin = 0.25 * (high - low) + 1e-9
    kept = np.flatnonzero(((points > low - margin) & (points < high + margin)).all(axis=1))
    kept = np.random.default_rng(0).permutation(kept)[:_MAX_POINTS]
    return points[kept], colors[kept]


def _frustum_size(scene: Scene, centers: NDArray[np.float64]) -> float:
    """Depth of the drawn frusta in world units: small beside the scene, large enough to be seen."""
    spread = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max(initial=0))
    nears = [record.bounds[0] for record in scene.records if record.bounds]
    return 0.12 * max(spread, 0.15 * float(np.median(nears)) if nears else 0.0) or 0.1


def _frustum(camera: Cameras, depth: float) -> NDArray[np.float64]:
    """[5, 3] world points: the centre and the image corners at `depth`, from the top left clockwise."""
    w, h = float(camera.width), float(camera.height)
    corners = torch.tensor([[0, 0], [w, 0], [w, h], [0, h]], dtype=torch.float64)
    origins, directions = camera.rays(corners, unit=False)
    return torch.cat([camera.center[None], origins + depth * directions]).numpy()


def _draw_space(
    axes: Any,
    frusta: list[NDArray[np.float64]],
    tints: list[str],
    points: NDArray[np.float64],
    colors: NDArray[np.float64],
) -> None:
    """A parallel projection from behind the cameras, from the right and above."""
    turn, tilt = np.radians(_TURN), np.radians(_TILT)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    view = about_x @ about_z  # rows: right, ahead, up
    turned = points @ view.T
    order = np.argsort(-turned[:, 1])  # far to near
    axes.scatter(turned[order, 0], turned[order, 2], c=colors[order], s=2, linewidths=0, rasterized=True)
    for frustum, tint in zip(frusta, tints, strict=True):
        x, _, z = (frustum @ view.T).T
        axes.fill(x[1:], z[1:], facecolor=tint, alpha=0.12, linewidth=0)
        for edge in ([0, 1], [0, 2], [0, 3], [0, 4], [1, 2, 3, 4, 1]):
            axes.plot(x[edge], z[edge], color=tint, linewidth=0.9)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()
    axes.set_title("in space, from behind and above", fontsize=10, color=_INK)


def _draw_above(
    axes: Any,
    scene: Scene,
    frusta: list[NDArray[np.float64]],
    tints: list[str],
    points: NDArray[np.float64],
    colors: NDArray[np.float64],
) -> None:
    axes.scatter(points[:, 0], points[:, 1], c=colors, s=1.5, linewidths=0, rasterized=True)
    for frustum, tint in zip(frusta, tints, strict=True):
        left, right = (frustum[1] + frustum[4]) / 2, (frustum[2] + frustum[3]) / 2
        wedge = np.stack([frustum[0], left, right])[:, :2]
        axes.fill(*wedge.T, facecolor=tint, alpha=0.35, edgecolor=tint, linewidth=0.8)
    step = max(1, len(scene) // 8)
    for i in range(0, len(scene), step):
        axes.annotate(
            scene.names[i], frusta[i][0, :2], fontsize=7, color=_INK, ha="center", xytext=(0, -9),
            textcoords="offset points",
        )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=0, colors="#718096")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("from above (world units, cameras' mean direction upwards)", fontsize=10, color=_INK)


def _draw_table(axes: Any, scene: Scene, has_test: bool) -> None:
    axes.set_axis_off()
    y = 0.97
    for name, value in summary(scene):
        axes.text(0, y, name, fontsize=9, color="#718096", va="top", transform=axes.transAxes)
        for line in _wrapped(value):
            y -= 0.036
            axes.text(0, y, line, fontsize=9.5, color=_INK, va="top", transform=axes.transAxes)
        y -= 0.052
    keys = [("training views", _TRAIN), ("test views", _TEST)] if has_test else [("views", _TRAIN)]
    for name, tint in keys:
        axes.text(0, y, f"■ {name}", fontsize=9.5, color=tint, va="top", transform=axes.transAxes)
        y -= 0.045


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 46) or [""]


# ---- photos ----------------------------------------------------------------------------------------------


def _draw_photo(axes: Any, record: Record, title: str) -> None:
    """A photo in its own pixel coordinates, whatever size it is drawn at."""
    camera = record.camera
    image = resize_image(record.load(), fit_size(camera.height, camera.width, _MAX_SIDE))
    axes.imshow(image, extent=(0, camera.width, camera.height, 0))
    axes.set_xlim(0, camera.width)
    axes.set_ylim(camera.height, 0)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, color=_INK, pad=4)


def _draw_points(
    figure: Any, axes: Any, scene: Scene, index: int, errors: dict[str, NDArray[np.float64]]
) -> None:
    """A photo with the sparse points it observes (or all in its frame), coloured by depth."""
    record = scene.records[index]
    pixels, depth, observed = _visible(scene, record)
    if len(pixels) == 0:
        _draw_photo(axes, record, f"{record.name}\nno sparse points")
        return
    said = "occlusion unknown"
    if observed:
        said = f"median reprojection error {np.median(errors[record.name]):.2f} px"
    _draw_photo(axes, record, f"{record.name}: {len(pixels)} sparse points\n{said}")
    near, far = np.percentile(depth, (2, 98))
    drawn = axes.scatter(*pixels.T, c=depth, s=4, cmap="turbo", vmin=near, vmax=far, linewidths=0)
    bar = figure.colorbar(drawn, cax=axes.inset_axes((0, -0.03, 1, 0.015)), orientation="horizontal")
    bar.ax.tick_params(labelsize=7, length=0, colors="#718096")
    bar.outline.set_visible(False)
    bar.set_label("depth, world units", fontsize=7, color="#718096", labelpad=1)


def _visible(scene: Scene, record: Record) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Projected points [P, 2] in a photo, their depth [P], and whether the photo is known to observe them."""
    if scene.points is None:
        return np.empty((0, 2)), np.empty(0), False
    rows = scene.points.tracks.get(record.name, (np.empty(0, np.int64), None))[0]
    observed = len(rows) > 0
    xyz = scene.points.xyz[rows] if observed else scene.points.xyz
    pixels, depth = (values.numpy() for values in record.camera.project(torch.from_numpy(xyz)))
    size = (record.camera.width, record.camera.height)
    inside = (depth > 0) & (pixels >= 0).all(axis=1) & (pixels <= size).all(axis=1)
    return pixels[inside], depth[inside], observed


def _draw_epipolar(axes: list[Any], scene: Scene, pair: ViewPair) -> None:
    """Points of one photo, and in the other the lines they must lie on, with the observed matches."""
    import matplotlib

    first, second = scene.records[pair.first], scene.records[pair.second]
    rows = _spread(pair.pixels[0], _MATCHES)
    sources = pair.pixels[0][rows] if len(rows) else _corners(first)
    matches = pair.pixels[1][rows]
    tints = matplotlib.colormaps["tab10"](np.arange(len(sources)) % 10)
    _draw_photo(
        axes[0],
        first,
        f"{first.name}\npoints that both photos show" if len(rows) else f"{first.name}\ncorners",
    )
    said = "they should cross what the points show"
    if len(rows):
        said = f"median distance of {len(pair.rows)} matches {np.median(pair_distances(scene, pair)):.2f} px"
    _draw_photo(axes[1], second, f"{second.name}: the points' epipolar lines\n{said}")
    lines = epipolar_lines(fundamental_matrix(first.camera, second.camera), torch.from_numpy(sources))
    for (a, b, c), tint in zip(lines.tolist(), tints, strict=True):
        x, y = _clipped(a, b, c, second.camera)
        axes[1].plot(x, y, color=tint, linewidth=1.1)
    for spot, ax in ((sources, axes[0]), (matches, axes[1])):
        ax.scatter(*spot.T, c=tints[: len(spot)], s=34, edgecolors="white", linewidths=0.9, zorder=3)


def _clipped(a: float, b: float, c: float, camera: Cameras) -> tuple[list[float], list[float]]:
    """Two points of the line a x + b y + c = 0, on opposite sides of the image (drawn clipped to it)."""
    w, h = camera.width, camera.height
    if abs(b) > abs(a):
        return [0, w], [-c / b, -(c + a * w) / b]
    return [-c / a, -(c + b * h) / a], [0, h]


def _spread(pixels: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Rows of up to `count` pixels [P, 2] that lie far from each other (farthest-point sampling)."""
    if len(pixels) == 0:
        return np.empty(0, np.int64)
    chosen = [int(np.linalg.norm(pixels - pixels.mean(axis=0), axis=1).argmax())]
    distance = np.linalg.norm(pixels - pixels[chosen[0]], axis=1)
    while len(chosen) < min(count, len(pixels)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(pixels - pixels[chosen[-1]], axis=1))
    return np.array(chosen)


def _corners(record: Record) -> NDArray[np.float64]:
    """[N, 2] pixels of strong corners, for photos that share no known points."""
    import cv2

    grey = cv2.cvtColor(record.load(), cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, _MATCHES, 0.05, max(record.camera.width, record.camera.height) / 8)
    return np.empty((0, 2)) if found is None else found.reshape(-1, 2).astype(np.float64) + 0.5
