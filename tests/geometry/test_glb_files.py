"""Meshes for viewers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from geometry.glb_files import write_glb
from geometry.meshes import Mesh


@pytest.fixture
def mesh() -> Mesh:
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, 6]])
    colors = torch.rand(7, 3, generator=generator)
    colors[0], colors[1] = 0.0, 1.0
    return Mesh(vertices, faces, colors=colors)


def test_another_reader_finds_the_same_mesh_upright(mesh: Mesh, tmp_path: Path) -> None:
    import trimesh

    write_glb(mesh, tmp_path / "scene.glb")
    (read,) = trimesh.load(tmp_path / "scene.glb", process=False).geometry.values()
    flipped = mesh.vertices.numpy() * [1, -1, -1]
    assert np.allclose(read.vertices, flipped, atol=1e-6)
    assert np.array_equal(read.faces, mesh.faces.numpy())


def parts(content: bytes) -> tuple[dict, bytes]:
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack("<I4s", content[12:20])
    assert kind == b"JSON"
    body = 20 + size
    body_size, body_kind = struct.unpack("<I4s", content[body : body + 8])
    assert body_kind == b"BIN\0"
    assert body + 8 + body_size == len(content)
    assert size % 4 == body_size % 4 == 0
    return json.loads(content[20:body]), content[body + 8 :]


def test_colors_are_linear_and_come_back_to_the_eye_as_they_were(mesh: Mesh, tmp_path: Path) -> None:
    write_glb(mesh, tmp_path / "scene.glb")
    meta, body = parts((tmp_path / "scene.glb").read_bytes())
    view = meta["bufferViews"][1]
    stored = np.frombuffer(body, "<u2", 4 * 7, view["byteOffset"]).reshape(7, 4)
    linear = stored[:, :3] / 65535
    shown = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert mesh.colors is not None
    assert np.abs(shown - mesh.colors.numpy()).max() < 0.5 / 255
    assert (stored[:, 3] == 65535).all()
    assert meta["materials"][0]["doubleSided"]
    assert "KHR_materials_unlit" in meta["materials"][0]["extensions"]
    bounds = meta["accessors"][0]
    positions = np.frombuffer(body, "<f4", 21, 0).reshape(7, 3)
    assert np.allclose(bounds["min"], positions.min(0))
    assert np.allclose(bounds["max"], positions.max(0))


def test_what_cannot_be_written(mesh: Mesh, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="colours"):
        write_glb(Mesh(mesh.vertices, mesh.faces), tmp_path / "scene.glb")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_glb(mesh, tmp_path / "file" / "scene.glb")
