"""LVSM (Jin et al. 2024, arXiv 2410.17242): a few posed photos -> new views by a plain transformer.

Photos and rays of the source cameras become tokens; the rays of a target camera become tokens too, and the
transformer turns those into the target's pixels. Weights of both public code lines load.

    accelerate launch --config_file acc_configs/cpu.yaml train.py -e configs/lvsm/toy
    python test.py -e configs/lvsm/toy -r latest -s toy
    python video_script.py -e configs/lvsm/toy -r latest -s outputs/toy
"""
