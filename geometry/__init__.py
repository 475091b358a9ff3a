"""Pure functions on tensors: cameras, rays, paths, lifting, rasterising, warping.

Conventions: OpenCV camera axes (x right, y down, z forward), camera-to-world poses, intrinsics in pixels with
(0, 0) at the top-left corner of the image, so that the centre of the first pixel is (0.5, 0.5). Depth is
z-depth in world units.
"""
