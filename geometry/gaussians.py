"""3D Gaussians (Kerbl et al. 2023): their parameters, where they come from, and how they turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from geometry.spherical_harmonics import evaluate_sh, rgb_to_dc, rotate_sh

REST = 15  # coefficients of bands 1 to 3
_SMALLEST = 1e-7  # mean squared distance to the neighbours that a Gaussian's size is taken from


@dataclass
class Gaussians:
    """G anisotropic Gaussians with view-dependent colour.

    means: [G, 3] world. log_scales: [G, 3], logarithms of the standard deviations along the own axes, world
    units. quaternions: [G, 4] (w, x, y, z), of any length. opacity_logits: [G, 1]. sh_dc: [G, 1, 3] and
    sh_rest: [G, K, 3], spherical-harmonics coefficients of degree 0 and 1 to 3 (K = 15); colour = 0.5 + their
    sum.
    """

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor
    sh_dc: Tensor
    sh_rest: Tensor

    def __len__(self) -> int:
        return len(self.means)

    def map(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """The Gaussians whose tensors are those that `function` makes of these, one by one."""
        return Gaussians(*(function(getattr(self, item.name)) for item in fields(self)))

    def colors(self, origin: Tensor) -> Tensor:
        """Their colours [G, 3], not negative, seen from a point [3] of the world."""
        return (0.5 + evaluate_sh(self.sh_dc, self.sh_rest, self.means - origin)).clamp(min=0)

    def covariances(self) -> Tensor:
        """[G, 3, 3] in world axes, squared world units."""
        axes = quaternions_to_matrices(self.quaternions) * self.log_scales.exp()[:, None, :]
        return axes @ axes.transpose(-1, -2)


def quaternions_to_matrices(quaternions: Tensor) -> Tensor:
    """Rotations [..., 3, 3] of quaternions [..., 4] (w, x, y, z) of any length but 0."""
    unit = torch.nn.functional.normalize(quaternions, dim=-1)
    w, x, y, z = unit.unbind(-1)
    s = 2 / (unit * unit).sum(-1)  # 2 but for rounding, which it makes up for
    rows = [
        torch.stack([1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)], dim=-1),
        torch.stack([s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)], dim=-1),
        torch.stack([s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """The unit quaternion [4] (w, x, y, z), w >= 0, of a rotation [3, 3].

    It is the eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack 2000), which works for
    every angle.
    """
    m = rotation.double()
    skew = torch.stack([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    matrix = m.new_zeros(4, 4)
    matrix[0, 0] = m.trace()
    matrix[0, 1:] = matrix[1:, 0] = skew
    matrix[1:, 1:] = m + m.T - m.trace() * torch.eye(3, dtype=m.dtype, device=m.device)
    quaternion = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    return (quaternion if quaternion[0] >= 0 else -quaternion).to(rotation.dtype)


def multiply_quaternions(first: Tensor, second: Tensor) -> Tensor:
    """Products [..., 4] of quaternions (w, x, y, z): the rotation `second`, then `first`."""
    w, v = first[..., :1], first[..., 1:]
    s, u = second[..., :1], second[..., 1:]
    scalar = w * s - (v * u).sum(-1, keepdim=True)
    v, u = torch.broadcast_tensors(v, u)
    return torch.cat([scalar, w * u + s * v + torch.linalg.cross(v, u)], dim=-1)


def rotate_gaussians(gaussians: Gaussians, rotation: Tensor) -> Gaussians:
    """The same Gaussians in a world turned about its origin: positions, axes and colours turn along.

    rotation: [3, 3], from the old axes to the new. Raises ValueError when it is no proper rotation (a mirror
    image of a quaternion does not exist).
    """
    eye = torch.eye(3, dtype=torch.float64, device=rotation.device)
    error = (rotation.double() @ rotation.double().T - eye).abs().max()
    if error > 1e-4 or torch.linalg.det(rotation.double()) < 0:
        raise ValueError("Gaussians turn by proper rotations only: orthogonal, with determinant 1")
    turn = rotation.to(gaussians.means)
    quaternion = matrix_to_quaternion(rotation).to(gaussians.quaternions)
    return replace(
        gaussians,
        means=gaussians.means @ turn.T,
        quaternions=multiply_quaternions(quaternion, gaussians.quaternions),
        sh_rest=rotate_sh(gaussians.sh_rest, rotation),
    )


def neighbour_distances(points: Tensor) -> Tensor:
    """Mean squared distance [P] of every point [P, 3] to its three nearest neighbours (or as many as exist).

    0 for a single point.
    """
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return points.new_zeros(len(points))
    cloud = points.detach().cpu().double().numpy()
    distances, _ = cKDTree(cloud).query(cloud, k=min(4, len(cloud)))
    return torch.from_numpy((distances[:, 1:] ** 2).mean(1)).to(points)


def from_points(points: Tensor, colors: Tensor, opacity: float = 0.1, width: float = 1.0) -> Gaussians:
    """One round Gaussian per point [P, 3] of colour [P, 3] in [0, 1].

    opacity: of all of them, between 0 and 1. width: standard deviation, in root mean square distances to the
    three nearest neighbours (Kerbl et al. 2023 have 1). Colours do not depend on the direction yet. Raises ValueError
    for an opacity of 0 or 1 and beyond, which has no logit.
    """
    if not 0 < opacity < 1:
        raise ValueError(f"the opacity to start from is {opacity}: it must lie between 0 and 1")
    count = len(points)
    scales = neighbour_distances(points).clamp(min=_SMALLEST).sqrt().mul(width).log()
    quaternions = points.new_zeros(count, 4)
    quaternions[:, 0] = 1
    return Gaussians(
        means=points.clone(),
        log_scales=scales[:, None].repeat(1, 3),
        quaternions=quaternions,
        opacity_logits=torch.logit(points.new_full((count, 1), opacity)),
        sh_dc=rgb_to_dc(colors.to(points))[:, None],
        sh_rest=points.new_zeros(count, REST, 3),
    )
