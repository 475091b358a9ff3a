"""Which pixels of a rig's camera move, and which static ones the source cameras do not see at that moment.

What the scores of `engine.rig_metrics` are taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dataloader.images import fit_size
from geometry.cameras import Cameras
from geometry.selection import rank_views
from geometry.stereo.plane_sweep import SweepOptions, sweep
from geometry.views import Views
from geometry.visibility import land, visible

# How much farther than what a camera sees a point may be and still count as seen, relative to its depth:
# where depth is known, and where it is estimated.
KNOWN_TOLERANCE, ESTIMATED_TOLERANCE = 0.02, 0.1

_SWEEP_SIDE = 320  # long side in pixels at which the depth of plates is estimated; larger maps are enlarged
_SWEEP = SweepOptions(planes=64, chunk=16)
_NEIGHBOURS = 4  # cameras that each plate is compared with
_NEAR_MARGIN, _FAR_MARGIN = 0.9, 2.0  # beyond the cameras' bounds (specs/mask_volume 3.2)

BY_DEPTH = f"visibility by the depth maps, {KNOWN_TOLERANCE:g} of the depth tolerated"
BY_PLATES = (
    "visibility by depth estimated from the background plates of all cameras (plane sweep), "
    f"{ESTIMATED_TOLERANCE:g} of it tolerated; a source's matte hides what is behind it"
)


@dataclass
class Regions:
    """Sets of pixels of N targets, [N, 1, H, W] bool each; None where they cannot be told.

    dynamic: where something moves. unseen: static, and seen by no source camera at that moment. recoverable:
    of these, the ones that are on the background plate of a source: hidden by nothing but what moves.
    """

    dynamic: Tensor | None = None
    unseen: Tensor | None = None
    recoverable: Tensor | None = None

    @property
    def static(self) -> Tensor | None:
        """Where nothing moves."""
        return None if self.dynamic is None else ~self.dynamic


@dataclass
class RegionFinder:
    """Finds the regions of a clip's targets.

    load_plates: gives the views of all the clip's cameras at some moment, on the targets' device, whose
    backgrounds and bounds are used where depth is not known. None: there is no estimating. basis: how
    visibility was told, for reports. missing: score -> why it cannot be had. depths: of plates by camera
    name, as `estimate_depth` gives them; to be shared by all who look at the clip.
    """

    load_plates: Callable[[], Views] | None = None
    basis: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    depths: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def plates(self) -> Views | None:
        """The clip's cameras with their plates, read when first asked for."""
        return None if self.load_plates is None else self.load_plates()

    def find(self, source: Views, target: Views) -> Regions:
        """The regions of targets [N], given the sources [V] of the same moment."""
        if target.foreground is None:
            reason = "the clip has no mattes of its target cameras: make them with scripts/rig.py mattes"
            names = ("psnr_dynamic", "psnr_static", "psnr_disoccluded", "psnr_recoverable")
            self.missing |= dict.fromkeys((*names, "flicker", "flicker_true"), reason)
            return Regions()
        dynamic = target.foreground > 0.5
        if source.depth is not None and target.depth is not None:
            self.basis = BY_DEPTH
            found = [self._by_depth(source, target[i], dynamic[i, 0]) for i in range(len(target))]
        else:
            reason = self._cannot_estimate(source)
            if reason:
                self.missing |= dict.fromkeys(("psnr_disoccluded", "psnr_recoverable"), reason)
                return Regions(dynamic)
            self.basis = BY_PLATES
            found = [self._by_plates(source, target[i], dynamic[i, 0]) for i in range(len(target))]
        unseen = torch.stack([mask for mask, _ in found])[:, None]
        recoverable = [mask for _, mask in found if mask is not None]
        if len(recoverable) < len(found):
            return Regions(dynamic, unseen)
        return Regions(dynamic, unseen, torch.stack(recoverable)[:, None])

    def _by_depth(self, source: Views, target: Views, dynamic: Tensor) -> tuple[Tensor, Tensor | None]:
        """Masks [H, W] of a single target from its depth and the sources'.

        A point that a source's matte covers counts as on its plate, for what the plate shows there is not
        known; elsewhere it is there when the source sees it.
        """
        assert source.depth is not None
        assert target.depth is not None
        depth = target.depth[0]
        landing = land(depth, target.cameras, source.cameras)
        seen = visible(landing, source.depth[:, 0], KNOWN_TOLERANCE)
        unseen = ~dynamic & (depth > 0) & ~seen.any(0)
        if source.foreground is None:
            self.missing["psnr_recoverable"] = "the clip has no mattes of its source cameras"
            return unseen, None
        covered = landing.inside & (landing.sample(source.foreground[:, 0]) > 0.5)
        return unseen, unseen & covered.any(0)

    def _by_plates(self, source: Views, target: Views, dynamic: Tensor) -> tuple[Tensor, Tensor]:
        """Masks [H, W] of a single target from the static scene's depth and the sources' mattes."""
        assert source.foreground is not None
        depths = torch.stack([self._depth(name) for name in (*target.names, *source.names)])
        size = (target.cameras.height, target.cameras.width)
        depths = interpolate(depths[:, None], size=size, mode="nearest-exact")[:, 0]
        landing = land(depths[0], target.cameras, source.cameras)
        on_plate = visible(landing, depths[1:], ESTIMATED_TOLERANCE)
        seen = on_plate & (landing.sample(source.foreground[:, 0]) <= 0.5)
        unseen = ~dynamic & ~seen.any(0)
        return unseen, unseen & on_plate.any(0)

    def _cannot_estimate(self, source: Views) -> str:
        """Why the depth of plates cannot be estimated or used; empty where it can."""
        plates = self.plates
        if plates is None or plates.background is None:
            return (
                "neither depth maps nor background plates of all cameras: make plates with scripts/rig.py "
                "background"
            )
        if plates.bounds is None:
            return "no depth maps, and no near and far bounds between which to estimate depth"
        if source.foreground is None:
            return "no depth maps, and no mattes of the source cameras that say what hides their plates"
        return ""

    def _depth(self, name: str) -> Tensor:
        """The static scene's depth [H, W] seen by a camera, estimated when first asked for."""
        if name not in self.depths:
            assert self.plates is not None
            self.depths[name] = estimate_depth(self.plates, self.plates.names.index(name))
        return self.depths[name]


def estimate_depth(views: Views, index: int) -> Tensor:
    """z-depth [h, w] float32 of a rig's static scene in camera `index`, from the plates of views [C].

    A plane sweep against the nearest cameras over the bounds of all. The map is at most 320 pixels wide or
    high: that bounds time and memory, and says enough about what is seen from where.
    """
    assert views.background is not None
    assert views.bounds is not None
    full = (views.cameras.height, views.cameras.width)
    size = fit_size(*full, _SWEEP_SIDE)
    cameras, plates = views.cameras.resize(*size), views.background
    if size != full:
        plates = interpolate(plates, size=size, mode="bilinear", antialias=True)
    near = _NEAR_MARGIN * float(views.bounds[:, 0].min())
    far = _FAR_MARGIN * float(views.bounds[:, 1].max())
    reference = _single(plates, cameras, index)
    others = [_single(plates, cameras, i) for i in _nearest(cameras, index)]
    return sweep(reference, others, near, far, _SWEEP)


def _single(plates: Tensor, cameras: Cameras, index: int) -> Views:
    return Views(plates[index], cameras[index])


def _nearest(cameras: Cameras, index: int) -> list[int]:
    """The cameras nearest to one of them, without itself."""
    order = rank_views(cameras, cameras[index : index + 1])[0].tolist()
    return [i for i in order if i != index][:_NEIGHBOURS]
