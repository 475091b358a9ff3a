"""What a camera sees of the points that are there, and what is left to paint (specs/scene_lifting 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.depth_edges import dilate_isotropic, erode, fill_from_known
from geometry.points import ndc_radius, splat
from geometry.views import Rendering
from geometry.warp import fill_nearest
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.state import LiftedScene

# Pixels: points as they are seen, half a pixel's diagonal, so that a grid of points one pixel apart hits all
# pixels and none hides what is beside it; and discs that close the gaps where points lie farther apart.
_FINE, _COARSE = 0.5**0.5, 2.5
_RELATIVE_FINE, _RELATIVE_COARSE = 2.0, 0.01  # the original's, in units of half the image's short side
_SHRINK = 2  # pixels taken off the closed surface, whose discs reach beyond its last points
_RIM = 2.0  # pixels of the surface's rim that are made anew together with the hole


@dataclass
class Seen:
    """A scene from one camera.

    image: [3, H, W] in [0, 1], black where nothing is known. known: [H, W] bool, the surface with its gaps
    closed. depth: [H, W] z-depth, 0 where unknown. sparse: [H, W], the depth that is certain, for the
    network: inside the surface and away from its rim; 0 elsewhere.
    """

    image: Tensor
    known: Tensor
    depth: Tensor
    sparse: Tensor

    @property
    def hole(self) -> Tensor:
        """[H, W] bool, what to paint and to lift anew: the unknown pixels and the rim around them."""
        return dilate_isotropic(~self.known, _RIM)

    @property
    def coverage(self) -> float:
        """The share of the image that is known, in [0, 1]."""
        return float(self.known.float().mean())


def look(scene: LiftedScene, camera: Cameras, config: GenerationConfig) -> Seen:
    """What a single camera sees of a scene's points.

    Two passes of the nearest points: small ones for colour and depth, and large discs for the surface, which
    is known where these still cover after two pixels were taken off its rim. config.rendering: in 'pixels',
    0.71 and 2.5 of them whatever the image's size (a turn by 25 degrees parts neighbouring points by up to
    1.5 pixels at any resolution); gaps of the surface take the nearest colour and the farther depth around
    them, and what lies off the surface is unknown. 'relative' is the original's: the sizes shrink with the
    image, so that no gap is closed in images below about 250 pixels; gaps and the points off the surface are
    filled from all other pixels, empty ones included.
    """
    relative = config.rendering == "relative"
    fine_radius = ndc_radius(_RELATIVE_FINE / max(camera.height, camera.width), camera) if relative else _FINE
    coarse_radius = ndc_radius(_RELATIVE_COARSE, camera) if relative else _COARSE
    fine = splat(scene.points, scene.colors, camera, fine_radius)
    coarse = splat(scene.points, None, camera, coarse_radius)
    hit, known = _opaque(fine), erode(_opaque(coarse), _SHRINK)
    assert fine.depth is not None
    image, depth = fine.image, fine.depth[0]
    if relative:
        kept = ~(hit ^ known)
        image = fill_from_known(image.permute(1, 2, 0), kept).permute(2, 0, 1)
        depth = fill_from_known(depth, kept)
    else:
        image = torch.where(known, fill_nearest(image, hit), 0.0)
        depth = torch.where(known, fill_from_known(depth, hit), 0.0)
    certain = erode(depth > 0, "cross") & known
    return Seen(image, known, depth, torch.where(certain, depth, 0.0))


def _opaque(rendering: Rendering) -> Tensor:
    assert rendering.opacity is not None
    return rendering.opacity[0] > 0
