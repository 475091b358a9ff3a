"""Hash featurised manifold (XScale-NVS, Wang et al., CVPR 2024): photos + mesh -> surface renderer.

Every pixel sees a point of a given mesh. A multiresolution hash grid encodes the point, a small FiLM-SIREN
turns the features, the viewing direction and codes of lighting and exposure into a colour, and the photo says
what the colour should have been. Geometry stays as it is; appearance is learned, up to 8K.

    python train.py -e configs/hash_manifold/default data.root=SCENE --output_dir OUT
    python test.py -e configs/hash_manifold/default data.root=SCENE --output_dir OUT -r latest -s NAME
    python video_script.py -e configs/hash_manifold/default data.root=SCENE --output_dir OUT -r latest -s OUT
"""
