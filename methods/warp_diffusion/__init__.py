"""One photo -> new views: its depth warp, completed by latent diffusion.

MegaScenes: Scene-Level View Synthesis at Scale (Tung et al., ECCV 2024), and ZeroNVS (Sargent et al., CVPR
2024) as it was published and as MegaScenes finetuned it. A photo is lifted by its depth, warped to the target
camera, and a latent diffusion model that sees warp, photo and relative pose makes the view.

    accelerate launch --config_file acc_configs/1.yaml train.py -e configs/warp_plus_pose -b 88 -w 8
    python test.py -e configs/warp_plus_pose -r 112000 -s warp_plus_pose_evaluation -b 8
    python video_script.py -e configs/warp_plus_pose -r 112000 -i photo.jpg -s outputs/photo
"""
