import torch

from dataloader import toy


def test_same_seed_same_scene_other_seed_another() -> None:
    views = [toy.render(toy.make_boxes(seed), toy.make_cameras(seed, 2, 32, 40)) for seed in (3, 3, 4)]
    assert torch.equal(views[0].images, views[1].images)
    assert (views[0].images - views[2].images).abs().mean() > 0.05


def test_depth_agrees_with_the_boxes_surfaces() -> None:
    """Every lifted pixel lies on the surface of a box (or the room), in that box's own coordinates."""
    boxes = toy.make_boxes(1)
    views = toy.render(boxes, toy.make_cameras(1, 3, 24, 32, boxes))
    assert views.depth is not None
    points = views.cameras.unproject(views.depth[:, 0].double()).reshape(-1, 3)
    local = torch.einsum("bij,nbi->nbj", boxes.rotation, points[:, None] - boxes.center)
    excess = (local.abs() - boxes.half).max(-1).values  # 0 on a surface, negative inside
    assert excess[:, 0].max() < 1e-5  # nothing is outside the room
    assert excess[:, 1:].min() > -1e-5  # nothing is inside a box
    assert excess.abs().min(-1).values.max() < 1e-5


def test_views_of_one_surface_point_have_one_colour() -> None:
    """Reproject one view into another with exact depth: where the same point is seen, colours agree."""
    boxes = toy.make_boxes(2)
    views = toy.render(boxes, toy.make_cameras(2, 9, 96, 128, boxes), supersample=4)
    assert views.depth is not None
    points = views.cameras[4].unproject(views.depth[4, 0].double()).reshape(-1, 3)
    pixels, depth = views.cameras[5].project(points)
    grid = pixels / torch.tensor([128.0, 96.0], dtype=torch.float64) * 2 - 1
    other = torch.cat([views.images[5], views.depth[5]])[None].double()
    sampled = torch.nn.functional.grid_sample(other, grid[None, None], align_corners=False)[0, :, 0]
    seen = (grid.abs() < 0.98).all(-1) & ((sampled[3] - depth).abs() < 0.01 * depth)
    error = (sampled[:3].T - views.images[4].reshape(3, -1).T).abs().mean(-1)[seen]
    assert seen.double().mean() > 0.5
    assert error.median() < 0.01


def test_moving_boxes_move_and_are_the_foreground() -> None:
    boxes = toy.make_boxes(5, n_boxes=6, n_moving=2)
    cameras = toy.make_cameras(5, 1, 48, 64, boxes)[[0, 0]]
    cameras.time = torch.tensor([0.0, 1.0])
    views = toy.render(boxes, cameras)
    assert views.foreground is not None
    still = (views.foreground == 0).all(0)
    change = (views.images[0] - views.images[1]).abs().amax(0, keepdim=True)
    assert views.foreground.sum() > 0
    # away from the moving boxes (and the pixels their edges touch) nothing changes
    edge = torch.nn.functional.max_pool2d((~still).float()[None], 3, 1, 1)[0] > 0
    assert change[~edge].max() == 0
    assert change.max() > 0.1


def test_mesh_is_the_rendered_surface() -> None:
    """Mesh vertices seen by a camera have the depth and the colour that the exact view has there."""
    boxes = toy.make_boxes(7)
    camera = toy.make_cameras(7, 3, 240, 320, boxes)[1:2]
    views, mesh = toy.render(boxes, camera, supersample=1), toy.make_mesh(boxes, cells=10)
    assert views.depth is not None
    assert mesh.colors is not None
    pixels, depth = camera[0].project(mesh.vertices)
    inside = (depth > 0.2) & (pixels > 1).all(-1) & (pixels[:, 0] < 319) & (pixels[:, 1] < 239)
    grid = pixels[inside] / torch.tensor([320.0, 240.0], dtype=torch.float64) * 2 - 1
    sampled = torch.nn.functional.grid_sample(views.depth.double(), grid[None, None], align_corners=False)[
        0, 0, 0
    ]
    visible = (sampled - depth[inside]).abs() < 0.005 * depth[inside]
    colors = torch.nn.functional.grid_sample(
        views.images.double(), grid[None, None], mode="nearest", align_corners=False
    )[0, :, 0].T
    error = (colors - mesh.colors[inside].double()).abs().mean(-1)[visible]
    assert visible.sum() > 200
    assert error.median() < 0.02


def test_mesh_faces_look_at_the_cameras() -> None:
    boxes = toy.make_boxes(8, n_boxes=0)
    mesh = toy.make_mesh(boxes, cells=2)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    assert ((normal * a).sum(-1) < 0).all()  # the room's sides face its middle
    boxes = toy.make_boxes(8, n_boxes=1)
    mesh = toy.make_mesh(boxes, cells=2)
    a, b, c = mesh.vertices[mesh.faces[48:]].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    assert ((normal * (a - boxes.center[1])).sum(-1) > 0).all()  # a box's sides face outwards


def test_scene_holds_photos_depth_mesh_and_splits() -> None:
    scene = toy.make_scene(0, n_views=9, height=24, width=32)
    views = scene.views(scene.split("test"))
    assert scene.split("test") == [0, 8]
    assert views.depth is not None
    assert views.images.shape == (2, 3, 24, 32)
    assert scene.mesh().colors is not None
