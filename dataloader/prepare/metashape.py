"""Photogrammetry in Agisoft Metashape: align a project's photos, export cameras and mesh.

The calls and their parameters are those published with XScale-NVS (specs/hash_manifold 4.5).
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from common.errors import UserError

logger = logging.getLogger(__name__)

CAMERAS, MESH = "cams.xml", "1.obj"


def reconstruct(project: Path, out: Path) -> tuple[Path, Path]:
    """Align the photos of a Metashape project, and write `out/cams.xml` and `out/1.obj`.

    Returns both paths. Raises UserError when the Metashape module is absent, the project cannot be opened or
    has no photos, or Metashape gives up.
    """
    metashape = _metashape()
    if not project.is_file():
        raise UserError(f"{project} does not exist: save a project (.psz or .psx) with your photos added")
    cameras, mesh = out / CAMERAS, out / MESH
    try:
        out.mkdir(parents=True, exist_ok=True)
        document = metashape.Document()
        document.open(str(project))
        chunk = document.chunk
        if chunk is None or not chunk.cameras:
            raise UserError(f"{project} holds no photos: add them to the project first")
        _align(metashape, chunk, cameras)
        _build_mesh(metashape, chunk, mesh)
    except (RuntimeError, OSError) as error:
        raise UserError(f"Metashape stopped on {project}: {error}") from None
    return cameras, mesh


def _metashape() -> Any:
    try:
        return importlib.import_module("Metashape")
    except ImportError:
        raise UserError(
            "the Python module Metashape is absent: it comes with Agisoft Metashape Professional (commercial "
            "photogrammetry); install its wheel into this environment and activate a licence, or use "
            "scripts/scene.py prepare, which needs neither"
        ) from None


def _align(metashape: Any, chunk: Any, cameras: Path) -> None:
    logger.info("[1/4] matching photos")
    chunk.matchPhotos(
        downscale=0,
        generic_preselection=False,
        reference_preselection=True,
        reference_preselection_mode=metashape.ReferencePreselectionSource,
        filter_mask=False,
        mask_tiepoints=True,
        keypoint_limit=0,  # unlimited, like the tie points
        tiepoint_limit=0,
        keep_keypoints=True,
        guided_matching=False,
        reset_matches=False,
    )
    logger.info("[2/4] aligning cameras")
    chunk.alignCameras(min_image=2, adaptive_fitting=True, reset_alignment=False)
    chunk.exportCameras(
        str(cameras),
        format=metashape.CamerasFormatXML,
        save_points=False,
        use_initial_calibration=True,
    )


def _build_mesh(metashape: Any, chunk: Any, mesh: Path) -> None:
    logger.info("[3/4] searching depth")
    chunk.buildDepthMaps(
        downscale=1, filter_mode=metashape.MildFiltering, reuse_depth=False, max_neighbors=-1
    )
    logger.info("[4/4] building the mesh")
    chunk.buildModel(
        surface_type=metashape.Arbitrary,
        interpolation=metashape.EnabledInterpolation,
        face_count=metashape.HighFaceCount,
        face_count_custom=200000,  # inactive beside HighFaceCount
        source_data=metashape.DepthMapsData,
        vertex_colors=False,
        vertex_confidence=False,
        volumetric_masks=False,
        keep_depth=False,
        trimming_radius=10,
    )
    chunk.exportModel(
        str(mesh),
        texture_format=metashape.ImageFormatPNG,
        save_texture=True,
        save_uv=True,
        save_normals=True,
        save_colors=True,
        save_confidence=False,
        save_cameras=False,
        save_markers=False,
        save_comment=False,
    )
