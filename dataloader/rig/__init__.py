"""Clips: videos of one scene by a rig of static, synchronised, calibrated cameras (specs/mask_volume 4)."""
