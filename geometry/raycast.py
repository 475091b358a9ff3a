"""Which triangle each pixel sees: ray casting on the CPU (Embree through Open3D), rasterising on CUDA
(nvdiffrast).

Both casters offer `cast(cameras [N], cull_backfaces)` and return, at the pixel centres, face [N, H, W] int64
(-1: nothing), uv [N, H, W, 2] (perspective-correct weights of the triangle's second and third corner) and
z-depth [N, H, W] (0: nothing). Cameras are float64.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from geometry.cameras import Cameras

Hits = tuple[Tensor, Tensor, Tensor]  # face, uv, depth
_SCENE_COST = 0.4  # rays whose hits could be listed in the time of putting one triangle into a scene
_GENERIC_DIRECTION = (0.5377, 0.6213, 0.5698)  # no wall of a house is likely to contain it


def no_hits(cameras: Cameras, device: torch.device) -> Hits:
    """What `cast` returns where there is nothing to see."""
    shape = (*cameras.shape, cameras.height, cameras.width)
    face = torch.full(shape, -1, dtype=torch.int64, device=device)
    return face, torch.zeros(*shape, 2, device=device), torch.zeros(shape, device=device)


def camera_rays(cameras: Cameras) -> Tensor:
    """Rays [N, H, W, 6] float32 (origin, direction) through the pixel centres; t along them is z-depth."""
    to_world = cameras.c2w[:, :3, :3] @ torch.linalg.inv(cameras.K)  # directions are linear in x and y
    x = torch.arange(cameras.width, dtype=torch.float64) + 0.5
    y = torch.arange(cameras.height, dtype=torch.float64) + 0.5
    columns = x[:, None] * to_world[:, None, :, 0]  # [N, W, 3]
    rows = y[:, None] * to_world[:, None, :, 1] + to_world[:, None, :, 2]  # [N, H, 3]
    origins = cameras.center[:, None].expand_as(rows)
    columns = torch.cat([torch.zeros_like(columns), columns], dim=-1).float()
    return torch.cat([origins, rows], dim=-1).float()[:, :, None] + columns[:, None]


def pixel_rays(cameras: Cameras, view: Tensor, pixels: Tensor) -> Tensor:
    """Rays [..., 6] float32 of cameras [V] through pixels [..., 2] (x, y): pixel i by camera view[i].

    view: [...] int64, broadcast. At pixel centres they are those of `camera_rays`, bit for bit.
    """
    to_world = (cameras.c2w[:, :3, :3] @ torch.linalg.inv(cameras.K)).unbind(-1)
    across, down, forward = (axis[view] for axis in to_world)  # [..., 3]
    x, y = pixels.double().split(1, dim=-1)
    directions = (y * down + forward).float() + (x * across).float()
    return torch.cat([cameras.center[view].float().expand_as(directions), directions], dim=-1)


def face_planes(vertices: Tensor, faces: Tensor) -> Tensor:
    """[F, 4] planes (n, n . a); n points to the side that sees a face counter-clockwise."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    return torch.cat([normal, torch.linalg.vecdot(normal, a)[:, None]], dim=1)


def front_faces(planes: Tensor, center: Tensor) -> Tensor:
    """[F] bool: which faces turn their counter-clockwise side to a camera at `center` [3]."""
    return planes[:, :3] @ center > planes[:, 3]


def clip_matrix(cameras: Cameras, near: Tensor | float, far: Tensor | float) -> Tensor:
    """World -> clip space [..., 4, 4], clip = M @ (x, y, z, 1), of the full intrinsics.

    With (X, Y, Z) in camera space: x = 2 (fx X + skew Y + cx Z) / W - Z, y = 2 (fy Y + cy Z) / H - Z, w = Z,
    and z / w runs from -1 at `near` to 1 at `far` (numbers or [...]). y grows downwards, so the rasteriser's
    first row (ndc -1) is the image's top row (specs/hash_manifold 3).
    """
    near, far = (torch.as_tensor(value).to(cameras.K).expand(cameras.shape) for value in (near, far))
    size = torch.tensor([cameras.width, cameras.height]).to(cameras.K)
    projection = cameras.K.new_zeros(*cameras.shape, 4, 4)
    projection[..., :2, :3] = 2 * cameras.K[..., :2, :] / size[:, None]
    projection[..., :2, 2] -= 1
    projection[..., 2, 2] = (far + near) / (far - near)
    projection[..., 2, 3] = -2 * far * near / (far - near)
    projection[..., 3, 2] = 1
    return projection @ cameras.w2c


class EmbreeScene:
    """Some triangles of a mesh in a bounding-volume hierarchy (Open3D, Embree).

    vertices: [V, 3] float32. faces: [F, 3] int64. groups: indices [G] of the faces to hold, up to two; empty
    ones are left out. Open3D lists only one of several hits of a ray at the same distance within a group.
    """

    def __init__(self, vertices: Tensor, faces: Tensor, *groups: Tensor) -> None:
        o3d = _open3d()
        # as many threads as torch has: loader processes have one, and must not take the trainer's cores
        self._threads = torch.get_num_threads()
        self._tensor = o3d.core.Tensor
        self.raw = o3d.t.geometry.RaycastingScene(nthreads=self._threads)
        groups = tuple(group for group in groups if len(group))
        for group in groups:
            triangles = self._tensor(faces[group].numpy().astype("uint32"))
            self.raw.add_triangles(self._tensor(vertices.numpy()), triangles)
        # triangle t of group g is face order[t + g * start]; a miss has t = g = -1 and reads the padding
        self._start = len(groups[0]) if groups else 0
        self._order = torch.cat([*groups, torch.full((self._start + 1,), -1)])
        if groups:
            # builds the hierarchy
            self.raw.cast_rays(self._tensor(torch.ones(1, 6).numpy()), nthreads=self._threads)

    def _faces(self, hits: Any) -> Tensor:
        """Indices of the triangles hit, -1 for a miss."""
        triangle, group = (
            torch.from_numpy(hits[key].numpy().view("int32")) for key in ("primitive_ids", "geometry_ids")
        )
        return self._order[torch.add(triangle, group, alpha=self._start)]

    def first_hits(self, rays: Tensor) -> Hits:
        """Face [...], uv [..., 2] and t [...] (infinite: nothing) along rays [..., 6]."""
        hits = self.raw.cast_rays(self._tensor(rays.numpy()), nthreads=self._threads)
        t, uv = (torch.from_numpy(hits[key].numpy()) for key in ("t_hit", "primitive_uvs"))
        return self._faces(hits), uv, t

    def first_hits_among(self, rays: Tensor, kept: Tensor) -> Hits:
        """As `first_hits` of rays [R, 6], R > 0 (Open3D crashes on none), seeing only faces with kept [F]."""
        hits = self.raw.list_intersections(self._tensor(rays.numpy()), nthreads=self._threads)
        ray, face = torch.from_numpy(hits["ray_ids"].numpy().astype("int64")), self._faces(hits)
        seen = kept[face]
        ray, face = ray[seen], face[seen]
        t, uv = (torch.from_numpy(hits[key].numpy())[seen] for key in ("t_hit", "primitive_uvs"))
        first_t = torch.full((len(rays),), torch.inf).scatter_reduce_(0, ray, t, "amin")
        first = t == first_t[ray]
        first_face, first_uv = torch.full((len(rays),), -1), torch.zeros(len(rays), 2)
        first_face[ray[first]], first_uv[ray[first]] = face[first], uv[first]
        return first_face, first_uv, first_t


class EmbreeCaster:
    """First hits by ray casting; one bounding-volume hierarchy serves all cameras.

    Back faces are culled for just those rays whose first hit is one: by listing all their hits, or, where
    they are many, by casting them into a scene of the camera's front faces. Casting on from behind the hit
    would lose front faces that lie within rounding of it (two-sided sheets). For their sake, too, triangles
    that face opposite ways are put into two groups.

    vertices: [V, 3] float64 around the origin. faces: [F, 3] int64.
    """

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        self._vertices, self._faces = vertices.cpu().float().contiguous(), faces.cpu()
        self._planes = face_planes(vertices.cpu(), self._faces)
        one_way = self._planes[:, :3] @ torch.tensor(_GENERIC_DIRECTION, dtype=torch.float64) > 0
        groups = (group.nonzero()[:, 0] for group in (one_way, ~one_way))
        self.scene = EmbreeScene(self._vertices, self._faces, *groups)

    def cast(self, cameras: Cameras, cull_backfaces: bool) -> Hits:
        """See the module."""
        if not len(self._faces):
            return no_hits(cameras, torch.device("cpu"))
        cameras = cameras.to("cpu")
        rays = camera_rays(cameras)
        face, uv, t = self.scene.first_hits(rays)
        if cull_backfaces:
            # sub-samples share their camera centre, and with it the front faces
            centers, counts = torch.unique_consecutive(cameras.center, dim=0, return_counts=True)
            parts = zip(*(maps.split(counts.tolist()) for maps in (rays, face, uv, t)), strict=True)
            for center, (some_rays, *hits) in zip(centers, parts, strict=True):
                self._cull(center, some_rays, *hits)
        return face, uv, t.masked_fill_(face < 0, 0.0)

    def cast_rays(self, rays: Tensor) -> Hits:
        """Face [...], uv [..., 2] and t [...] (0: nothing) of the first hits along rays [..., 6]."""
        if not len(self._faces) or not rays.numel():
            shape = rays.shape[:-1]
            return torch.full(shape, -1), torch.zeros(*shape, 2), torch.zeros(shape)
        face, uv, t = self.scene.first_hits(rays)
        return face, uv, t.masked_fill_(face < 0, 0.0)

    def _cull(self, center: Tensor, rays: Tensor, face: Tensor, uv: Tensor, t: Tensor) -> None:
        """Replace hits [n, H, W] on back faces, in place, by the first front hits of their rays."""
        front = front_faces(self._planes, center)
        if front.all():
            return
        back = ((~front)[face.clamp(min=0)] & (face >= 0)).nonzero(as_tuple=True)
        count = len(back[0])
        if count > _SCENE_COST * front.sum():
            scene = EmbreeScene(self._vertices, self._faces, front.nonzero()[:, 0])
            face[back], uv[back], t[back] = scene.first_hits(rays[back])
        elif count:
            face[back], uv[back], t[back] = self.scene.first_hits_among(rays[back], front)


def _open3d() -> Any:
    import open3d

    return open3d


class NvdiffrastCaster:
    """Rasterising on CUDA. Pixels within 1/16 pixel of an edge may differ from exact ray casting.

    vertices: [V, 3] float64 around the origin. faces: [F, 3] int64. Raises UserError when nvdiffrast cannot
    be imported or the mesh is not on a CUDA device.
    """

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        self._dr = _load_nvdiffrast(vertices.device)
        self._context: Any = self._dr.RasterizeCudaContext(device=vertices.device)
        self._vertices, self._faces = vertices, faces

    @cached_property
    def _planes(self) -> Tensor:
        return face_planes(self._vertices, self._faces)

    def cast(self, cameras: Cameras, cull_backfaces: bool) -> Hits:
        """See the module."""
        cameras = cameras.to(self._vertices.device)
        maps = [self._cast_one(cameras[i], cull_backfaces) for i in range(len(cameras))]
        face, uv, depth = (torch.stack(part) for part in zip(*maps, strict=True))
        return face, uv, depth

    def _cast_one(self, camera: Cameras, cull_backfaces: bool) -> Hits:
        kept = torch.arange(len(self._faces), device=self._faces.device)
        if cull_backfaces:
            kept = kept[front_faces(self._planes, camera.center)]
        planes = self._clip_planes(camera)
        if not len(kept) or planes is None:
            return no_hits(camera, self._vertices.device)
        points = torch.nn.functional.pad(self._vertices, (0, 1), value=1.0)
        clip = (points @ clip_matrix(camera, *planes).T).float().contiguous()  # [V, 4]
        triangles, size = self._faces[kept].int().contiguous(), [camera.height, camera.width]
        hits = self._dr.rasterize(self._context, clip[None], triangles, resolution=size)[0][0]
        ids = _triangle_ids(hits[..., 3])  # [H, W]; 0: nothing
        face = torch.where(ids > 0, kept[(ids - 1).clamp(min=0)], -1)
        first, second = hits[..., 0], hits[..., 1]  # weights of the first and second corner
        weights = torch.stack([first, second, 1 - first - second], dim=-1)
        z = clip[:, 3][self._faces[face.clamp(min=0)]]  # [H, W, 3]; clip.w is z-depth
        return face, weights[..., 1:], torch.where(face < 0, 0.0, (z * weights).sum(-1))

    def _clip_planes(self, camera: Cameras) -> tuple[float, float] | None:
        """Near and far plane around what lies before the camera; None when nothing does.

        The near plane is at least 1e-5 of the far one, for the sake of the depth buffer.
        """
        w2c = camera.w2c
        z = self._vertices @ w2c[2, :3] + w2c[2, 3]
        nearest, farthest = z.min().item(), z.max().item()
        return None if farthest <= 0 else (max(0.999 * nearest, 1e-5 * farthest), 1.001 * farthest)


def _load_nvdiffrast(device: torch.device) -> Any:
    """The module, or UserError when it cannot serve a mesh on this device."""
    try:
        import nvdiffrast.torch as dr
    except ImportError:
        raise UserError(
            "the nvdiffrast backend needs nvdiffrast, which cannot be imported: install it or use embree"
        ) from None
    if device.type != "cuda":
        raise UserError(f"nvdiffrast needs the mesh on a CUDA device, it is on {device}: use embree")
    return dr


def _triangle_ids(values: Tensor) -> Tensor:
    """nvdiffrast's float triangle ids -> int64; above 2^24, bit patterns counted from that of 2^22."""
    bits = values.contiguous().view(torch.int32).long() - 0x4A800000
    return torch.where(values <= 2**24, values.long(), bits)
