"""Multi-camera video -> video from a moving camera, by multi-plane images and a 3D mask volume.

After *Deep 3D Mask Volume for View Synthesis of Dynamic Scenes* (Lin et al., ICCV 2021). Photos of two
static cameras are swept through planes, and a 3D U-Net turns the volume into a multi-plane image: once of
what they see now, once of their plates, which show the scene without what moves. A second network mixes the
two in every voxel, so that what moving things hide is filled from the plates. The result is seen from
anywhere.

    train.py         -e configs/mask_volume/mpi_re10k    then -e configs/mask_volume/mask_mvcam
    test.py          -e configs/mask_volume/mask_mvcam   held-out cameras of the rig
    video_script.py  -e configs/mask_volume/mask_mvcam   the video along a path, while time runs
"""
