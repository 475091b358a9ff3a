"""Mesh files: what each spelling of a mesh means, round trips, and what broken files are told."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
import trimesh

from common.errors import UserError
from geometry import obj_files
from geometry.mesh_files import read_mesh, write_mesh
from geometry.meshes import Mesh

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def read_text(tmp_path: Path, text: str, name: str = "mesh.obj") -> Mesh:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_mesh(path)


def error_of(path: Path) -> str:
    """The one line a broken file is answered with; it must name the file."""
    with pytest.raises(UserError) as caught:
        read_mesh(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def random_mesh(vertices: int = 40, faces: int = 60, dtype: torch.dtype = torch.float64) -> Mesh:
    generator = torch.Generator().manual_seed(3)
    return Mesh(
        torch.randn(vertices, 3, generator=generator, dtype=dtype),
        torch.randint(vertices, (faces, 3), generator=generator),
        colors=torch.randint(256, (vertices, 3), generator=generator).float() / 255,
        uv=torch.rand(vertices, 2, generator=generator),
    )


def grid_mesh(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A rough n x n height field: vertices [n * n, 3], faces [2 (n - 1)^2, 3]."""
    y, x = np.mgrid[:n, :n]
    vertices = np.stack([x.ravel(), y.ravel(), np.random.default_rng(0).random(n * n)], axis=1)
    index = np.arange(n * n).reshape(n, n)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    lower, upper = np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)
    return vertices, np.concatenate([lower, upper])


def write_grid(path: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = grid_mesh(n)
    with path.open("w") as file:
        np.savetxt(file, vertices, fmt="v %.6f %.6f %.6f")
        np.savetxt(file, faces + 1, fmt="f %d %d %d")
    return vertices, faces


def test_obj_fans_polygons_in_place(tmp_path: Path) -> None:
    mesh = read_text(tmp_path, SQUARE + "v 2 2 0\nf 1 2 3\nf 1 2 3 4\nf 5 4 3 2 1\nf 3 4 1\n")
    assert mesh.faces.tolist() == [
        [0, 1, 2], [0, 1, 2], [0, 2, 3], [4, 3, 2], [4, 2, 1], [4, 1, 0], [2, 3, 0],
    ]  # fmt: skip
    assert mesh.vertices.dtype == torch.float64
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 2, 0]]


@pytest.mark.parametrize(
    "face", ["f 1 2 3 4", "f 1//7 2//7 3//7 4//7", "f -4 -3 -2 -1", "\tf  1   2 3\t4  ", "f 1 2 \\\n3 4"]
)
def test_obj_face_spellings(tmp_path: Path, face: str) -> None:
    mesh = read_text(tmp_path, SQUARE + "vn 0 0 1\n" + face + "\n")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.uv is None
    assert mesh.colors is None


@pytest.mark.parametrize("face", ["f 1/4 2/3 3/2 4/1", "f 1/-1/1 2/-2/1 3/-3/1 4/-4/1"])
def test_obj_uv_per_vertex(tmp_path: Path, face: str) -> None:
    mesh = read_text(tmp_path, SQUARE + "vt 0 1\nvt 1 1 0\nvt 1 0\nvt 0.25 0\nvn 0 0 1\n" + face + "\n")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.uv is not None
    assert mesh.uv.tolist() == [[0.25, 0], [1, 0], [1, 1], [0, 1]]


def test_obj_uv_seam_repeats_vertices_behind_the_files_own(tmp_path: Path) -> None:
    colored = SQUARE.replace("0\nv", "0 0 0 0\nv").replace("v 0 1 0\n", "v 0 1 0 1 0 0\n")
    faces = "f 1/1 2/2 3/3\nf 3/5 4/2 1/4\nf 3/3 4/2 1/1\n"
    mesh = read_text(tmp_path, colored + "vt 0 0\nvt 1 0\nvt 1 1\nvt 0.5 0.5\nvt 0.25 0\n" + faces)
    assert mesh.faces.tolist() == [[0, 1, 2], [4, 3, 5], [2, 3, 0]]
    assert mesh.vertices[4:].tolist() == [[1, 1, 0], [0, 0, 0]]  # vertices 3 and 1 again, by first use
    assert mesh.uv is not None
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [1, 1], [1, 0], [0.25, 0], [0.5, 0.5]]
    assert mesh.colors is not None
    assert mesh.colors.tolist() == [[0, 0, 0]] * 3 + [[1, 0, 0]] + [[0, 0, 0]] * 2


def test_obj_uv_of_some_corners_only_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mesh = read_text(tmp_path, SQUARE + "vt 0 0\nf 1/1 2/1 3/1\nf 1 3 4\n")
    assert mesh.uv is None
    assert len(mesh.faces) == 2
    assert "dropped" in caplog.text


def test_obj_colors_comments_crlf_and_byte_order_mark(tmp_path: Path) -> None:
    text = (
        "\ufeff# made by hand\r\nmtllib a.mtl\r\no thing # 1\r\n\r\n"
        "v 0 0 0 1 0 0.5 # red\r\nv 1 0 0 0 1 0\r\n  v 1e0 1.0 -0 0 0 1\r\n"
        "g group\r\nusemtl v\r\ns off\r\nf 1 2 3\r\nl 1 2\r\np 1"
    )
    mesh = read_text(tmp_path, text)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.colors is not None
    assert mesh.colors.tolist() == [[1, 0, 0.5], [0, 1, 0], [0, 0, 1]]


def test_obj_colors_of_255(tmp_path: Path) -> None:
    mesh = read_text(tmp_path, "v 0 0 0 255 0 51\nv 1 0 0 0 1 0\nv 1 1 0 0 0 0\nf 1 2 3\n")
    assert mesh.colors is not None
    torch.testing.assert_close(mesh.colors[0], torch.tensor([1.0, 0.0, 0.2]))


def test_obj_weight_and_partial_colors_are_ignored(tmp_path: Path) -> None:
    mesh = read_text(tmp_path, "v 0 0 0 1.0\nv 1 0 0 0.5 0.5 0.5\nv 1 1 0\nf 1 2 3\n")
    assert mesh.colors is None
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_obj_unused_and_repeated_vertices_stay(tmp_path: Path) -> None:
    mesh = read_text(tmp_path, "v 9 9 9\n" + SQUARE + SQUARE + "f 6 7 8\n")
    assert len(mesh.vertices) == 9
    assert mesh.faces.tolist() == [[5, 6, 7]]


@pytest.mark.parametrize("block", [16, 64, 1000])
def test_obj_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    lines = []
    for i in range(40):  # faces between vertices, counting back
        lines += [f"v {i} 0 0.5", f"v {i} 1 0", f"v {i} 0 1", f"vt {i} 0", "f -1/-1 -2/-1 \\", "-3/-1"]
    whole = read_text(tmp_path, "\n".join(lines))
    monkeypatch.setattr(obj_files, "_BLOCK_BYTES", block)
    pieces = read_text(tmp_path, "\n".join(lines))
    assert whole.faces.tolist() == [[3 * i + 2, 3 * i + 1, 3 * i] for i in range(40)]
    for name in ("vertices", "faces", "uv"):
        assert torch.equal(getattr(whole, name), getattr(pieces, name))
    (tmp_path / "mesh.obj").write_text("\n".join([*lines, "v 1 2 x"]))
    assert "line 241" in error_of(tmp_path / "mesh.obj")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SQUARE + "f 1 2 5\n", "line 5: a face index lies beyond the 4 vertices"),
        (SQUARE + "f 1 2 0\n", "line 5: a face index points at nothing"),
        (SQUARE + "f 1 2 -5\n", "line 5: a face index points at nothing"),
        (SQUARE + "f 1/1 2/1 3/1\n", "line 5: a face index lies beyond"),
        (SQUARE + "f 1 2\n", "line 5: a face needs 3 corners"),
        (SQUARE + "f 1 2 3.5\n", "line 5: '3.5' is not a number"),
        (SQUARE + "f 1 2/ 3\n", "malformed"),
        (SQUARE, "no faces"),
        (SQUARE + "v 0 0", "line 5: a vertex has 3 coordinates"),
        (SQUARE + "v 0 nan 0\nf 1 2 3\n", "line 5: the vertex is not finite"),
        (SQUARE + "v 0 inf 0\nf 1 2 3\n", "line 5: the vertex is not finite"),
        (SQUARE + "v 0 zero 0\nf 1 2 3\n", "line 5: 'zero' is not a number"),
        (SQUARE + "v 0 1.2.3 0\nf 1 2 3\n", "line 5: '1.2.3' is not a number"),
        (SQUARE + "vt 0\nf 1 2 3\n", "line 5: texture coordinates are two numbers"),
        ("", "no vertices"),
        ("\x00\x01\x02 nothing like a mesh", "no vertices"),
        ("f 1 2 3\n", "no vertices"),
    ],
)
def test_broken_obj(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mesh.obj"
    path.write_bytes(text.encode())
    assert says in error_of(path)


def test_missing_file_and_unknown_ending(tmp_path: Path) -> None:
    for name in ("none.obj", "none.ply", "none.glb"):
        assert "does not exist" in error_of(tmp_path / name)
    (tmp_path / "mesh.xyz123").write_text("nothing")
    assert "not a readable mesh" in error_of(tmp_path / "mesh.xyz123")
    (tmp_path / "folder.obj").mkdir()
    error_of(tmp_path / "folder.obj")


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    mesh = random_mesh(dtype=dtype)
    mesh.faces[0] = torch.tensor([0, 1, 2])
    write_mesh(mesh, tmp_path / f"deep/mesh{suffix}")
    back = read_mesh(tmp_path / f"deep/mesh{suffix}")
    assert torch.equal(back.vertices.to(dtype), mesh.vertices)
    assert torch.equal(back.faces, mesh.faces)
    assert back.colors is not None
    assert torch.equal((back.colors * 255).round(), (mesh.colors * 255).round())
    assert back.uv is not None
    used = mesh.faces.unique()  # an OBJ ties uv to face corners
    assert torch.equal(back.uv[used], mesh.uv[used])
    bare = Mesh(mesh.vertices, mesh.faces)
    write_mesh(bare, tmp_path / f"mesh{suffix}")
    assert read_mesh(tmp_path / f"mesh{suffix}").colors is None
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_large_coordinates_keep_their_millimetres(tmp_path: Path) -> None:
    vertices = torch.tensor([[4.1e5, 5.2e6, 0], [4.1e5 + 1e-3, 5.2e6, 0], [4.1e5, 5.2e6 + 1e-3, 0]]).double()
    vertices = vertices + torch.tensor([0.1234, 0.4321, 0], dtype=torch.float64)
    for suffix in (".obj", ".ply"):
        write_mesh(Mesh(vertices, torch.tensor([[0, 1, 2]])), tmp_path / f"m{suffix}")
        assert torch.equal(read_mesh(tmp_path / f"m{suffix}").vertices, vertices)


def test_ply_is_what_others_read(tmp_path: Path) -> None:
    mesh = random_mesh(dtype=torch.float32)
    write_mesh(mesh, tmp_path / "m.ply")
    other = trimesh.load_mesh(str(tmp_path / "m.ply"), process=False)
    np.testing.assert_array_equal(other.faces, mesh.faces.numpy())
    np.testing.assert_array_equal(other.vertices, mesh.vertices.numpy())
    data = plyfile.PlyData.read(str(tmp_path / "m.ply"))
    assert data["vertex"].data["red"].dtype == np.uint8
    assert (data["vertex"].data["alpha"] == 255).all()
    assert data["vertex"].data["x"].dtype == np.dtype("<f4")


def ply(faces: list[list[int]], form: str, color: str = "") -> plyfile.PlyData:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32)
    names = [(axis, "f4") for axis in "xyz"] + [(c, color) for c in ("red", "green", "blue") if color]
    vertex = np.zeros(4, dtype=names)
    for i, axis in enumerate("xyz"):
        vertex[axis] = corners[:, i]
    if color:
        vertex["red"] = 1 if color.startswith("f") else 255
        vertex["green"] = 0.2 if color.startswith("f") else 51
    face = np.empty(len(faces), dtype=[("vertex_index" if color else "vertex_indices", object)])
    face[face.dtype.names[0]] = [np.array(f, dtype=np.int32) for f in faces]
    elements = [plyfile.PlyElement.describe(vertex, "vertex")]
    elements += [plyfile.PlyElement.describe(face, "face", val_types={face.dtype.names[0]: "i4"})]
    return plyfile.PlyData(elements, text=form == "ascii", byte_order=">" if form == "big" else "<")


@pytest.mark.parametrize("form", ["ascii", "little", "big"])
@pytest.mark.parametrize("color", ["", "u1", "f4"])
def test_ply_forms(tmp_path: Path, form: str, color: str) -> None:
    ply([[0, 1, 2], [0, 1, 2, 3], [3, 2, 1]], form, color).write(str(tmp_path / "m.ply"))
    mesh = read_mesh(tmp_path / "m.ply")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 3], [3, 2, 1]]
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    if color:
        assert mesh.colors is not None
        torch.testing.assert_close(mesh.colors, torch.tensor([1, 0.2, 0]).expand(4, 3))
    else:
        assert mesh.colors is None


def test_broken_ply(tmp_path: Path) -> None:
    path = tmp_path / "m.ply"
    write_mesh(random_mesh(), path)
    whole = path.read_bytes()
    for length in (0, 3, 100, 400, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "not a readable PLY file" in error_of(path)
    for faces, says in (
        ([[0, 1, 4]], "beyond the 4"),
        ([[0, 1, -1]], "beyond"),
        ([[0, 1]], "fewer"),
        ([], "no faces"),
    ):
        ply(faces, "little").write(str(path))
        assert says in error_of(path)
    write_mesh(
        Mesh(torch.tensor([[0.0, 0, 0], [0, 1, torch.nan], [1, 0, 0]]), torch.tensor([[0, 1, 2]])), path
    )
    assert "vertex 1 is not finite" in error_of(path)


@pytest.mark.parametrize("kind", ["obj", "binary", "ascii"])
@pytest.mark.filterwarnings("error", "ignore:loadtxt")
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("mesh.obj" if kind == "obj" else "mesh.ply")
    write_mesh(random_mesh(12, 9), path)
    if kind == "ascii":
        data = plyfile.PlyData.read(str(path), mmap=False)
        data.text = True
        data.write(str(path))
    whole, random = path.read_bytes(), np.random.default_rng(5)
    outcomes = set()
    for _ in range(120):
        damaged = bytearray(whole)
        for at in random.integers(len(whole), size=random.integers(1, 4)):
            damaged[at] = random.choice(bytearray(b"0123456789-+.eE/ \n#\\vfnai\xff"))
        if random.random() < 0.3:
            start = random.integers(len(whole))
            del damaged[start : start + random.integers(1, 40)]
        path.write_bytes(damaged)
        try:
            mesh = read_mesh(path)
            assert mesh.faces.min() >= 0
            assert mesh.faces.max() < len(mesh.vertices)
            assert torch.isfinite(mesh.vertices).all()
            outcomes.add("read")
        except UserError as error:
            outcomes.add("refused in one line" if "\n" not in str(error) else str(error))
    assert outcomes == {"read", "refused in one line"}


def test_other_formats_through_trimesh(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    box.visual.vertex_colors = np.array([[255, 51, 0, 255]] * 8, dtype=np.uint8)
    for suffix in (".glb", ".off", ".stl"):
        box.export(str(tmp_path / f"box{suffix}"))
        mesh = read_mesh(tmp_path / f"box{suffix}")
        corners = mesh.vertices[mesh.faces].reshape(-1, 9)
        np.testing.assert_allclose(corners.numpy(), box.triangles.reshape(-1, 9), atol=1e-6)
    (tmp_path / "cut.glb").write_bytes((tmp_path / "box.glb").read_bytes()[:300])
    error_of(tmp_path / "cut.glb")


def test_write_refuses_other_endings_and_bad_places(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.ply or \.obj"):
        write_mesh(random_mesh(), tmp_path / "mesh.stl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_mesh(random_mesh(), tmp_path / "file" / "mesh.ply")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_200k_triangles_in_2_seconds(tmp_path: Path) -> None:
    check_speed(tmp_path, n=317, seconds=2)


@pytest.mark.slow
def test_a_million_triangles_in_10_seconds(tmp_path: Path) -> None:
    check_speed(tmp_path, n=708, seconds=10)


def check_speed(tmp_path: Path, n: int, seconds: float) -> None:
    vertices, faces = write_grid(tmp_path / "grid.obj", n)
    start = time.process_time()  # not wall time: other programs may be running
    mesh = read_mesh(tmp_path / "grid.obj")
    taken = time.process_time() - start
    np.testing.assert_array_equal(mesh.faces.numpy(), faces)
    np.testing.assert_allclose(mesh.vertices.numpy(), vertices, atol=1e-6)
    assert taken < seconds


def test_official_meshes(parity_data: Path, tmp_path: Path) -> None:
    mesh = read_mesh(parity_data / "megascenes/hatfield/mesh.ply")
    assert (len(mesh.vertices), len(mesh.faces)) == (36892, 67227)
    write_mesh(mesh, tmp_path / "mesh.ply")
    official = (parity_data / "megascenes/hatfield/mesh.ply").read_bytes()
    comment = b"comment https://github.com/mikedh/trimesh\n"
    assert (tmp_path / "mesh.ply").read_bytes() == official.replace(comment, b"")
    fox = read_mesh(parity_data / "scene_a/1.obj")
    other = trimesh.load_mesh(str(parity_data / "scene_a/1.obj"), process=False, maintain_order=True)
    np.testing.assert_array_equal(fox.faces.numpy(), other.faces)
    np.testing.assert_array_equal(fox.vertices.numpy(), other.vertices)
