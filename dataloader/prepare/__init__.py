"""Photos -> scene: structure from motion, undistorted photos, depth maps, mesh, in stages that a killed run
resumes.

`pipeline.prepare` runs them all; every other module is one stage's work.
"""
