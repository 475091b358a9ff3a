"""The scenes of the web demo by the networks: a checkpoint for depth, a pipeline that paints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from geometry.cameras import Cameras
from geometry.views import Rendering
from methods.scene_lifting.config import SceneLiftingConfig
from methods.scene_lifting.inpainters import Inpainter, load_inpainter
from methods.scene_lifting.inputs import open_photo
from methods.scene_lifting.making import make_scene
from methods.scene_lifting.method import SceneLifting
from methods.scene_lifting.outputs import fly_through, write_film
from methods.scene_lifting.splatting import optimise
from methods.scene_lifting.state import LiftedScene, LiftedView
from methods.scene_lifting.web.jobs import FILM


class WebScenes:
    """A `jobs.MakeScene` of a method with weights; the inpainter is loaded once, here.

    method: on the device that everything runs on. film: frames of the fly-through, each way; 0 makes none.
    Raises UserError when the method completes no depth, or the inpainter is not there.
    """

    def __init__(self, method: SceneLifting, config: SceneLiftingConfig, film: int = 60) -> None:
        if config.completion == "none":
            raise UserError("model.completion=none: uploaded photos bring no depth, so a network is needed")
        self.method, self.config, self.film = method, config, film
        self.device = next(method.completer.parameters()).device
        self.inpaint: Inpainter | None = load_inpainter(config.inpainter, self.device)

    @torch.no_grad()
    def __call__(
        self,
        photo: Path,
        focal: float | None,
        prompt: str,
        negative_prompt: str,
        mode: str,
        seed: int,
        on_view: Callable[[int, int, LiftedView], None],
        folder: Path,
    ) -> LiftedScene:
        wishes: dict[str, Any] = {"mode": mode, "seed": seed}
        wishes |= {"prompt": prompt, "negative_prompt": negative_prompt}
        generation = replace(self.config.generation, **wishes)
        views = open_photo(photo, None, focal, generation).views().to(self.device)
        scene = make_scene(
            views,
            self.method.complete,
            replace(self.config, generation=generation),
            self.device,
            on_view=on_view,
            load=lambda config, device: self.inpaint,
        )
        if self.config.gaussians.steps:
            with torch.enable_grad():
                scene = replace(scene, gaussians=optimise(scene, self.config.gaussians, seed))
        if self.film:
            write_film(fly_through(scene, self.film), self._render(scene), [folder / FILM])
        return scene

    def _render(self, scene: LiftedScene) -> Callable[[Cameras], Rendering]:
        def render(camera: Cameras) -> Rendering:
            seen = self.method.render(scene, camera.reshape(1).to(self.device))
            return Rendering(seen.image[0])

        return render
