"""The web demo: photo and prompt in, a 3D scene out (specs/scene_lifting 1, `run_gradio.py`)."""
