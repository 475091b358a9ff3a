"""Scene lifting (Invisible Stitch, Engstler et al. 2024, arXiv 2404.19758): one photo + prompt -> 3D scene.

A depth-completion network lifts the photo to points; further views are outpainted, their depth is completed
from the points that are already there, and the new pixels join the scene. Points become 3D Gaussians.

    python scripts/generate_scene.py --image photo.jpg --prompt "a quiet alley" --output_path alley.ply
    accelerate launch --config_file acc_configs/cpu.yaml train.py -e configs/scene_lifting/toy
    python scripts/benchmark.py rooms -e configs/scene_lifting/toy -r latest
"""
