"""Networks, forward passes and a training step of mask_volume, against the original's (specs 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dataloader.images import to_uint8
from geometry.cameras import Cameras
from geometry.plane_render import composite_planes, render_planes
from geometry.planes import plane_depths, plane_homographies
from geometry.views import Views
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.data import FAR_FACTOR, NEAR_FACTOR, PlanesSample
from methods.mask_volume.losses import LossConfig, LossName, mask_term, sparse_term
from methods.mask_volume.method import MaskVolume
from methods.mask_volume.model import Swept, blend
from methods.mask_volume.network import PLAIN, Forms, UNet3d
from methods.mask_volume.optimisers import OptimizerConfig, make_optimizer
from methods.mask_volume.originals import convert
from tests.parity.cases import Case
from tests.parity.mask_volume_planes import cameras

_PUBLISHED: dict[str, Any] = {
    "sampling": "original",
    "premultiplied": False,
    "own_colours": False,
    "backdrop": False,
}


def other_case(case: Case, name: str) -> Case:
    """A case of the same folder."""
    return Case(case.path.with_name(name))


def weights_of(case: Case) -> dict[str, Tensor]:
    """The weights of a case, its own or those of the files that it names, by the names of a checkpoint."""
    files = case.meta.get("weights_from", case.path.name)
    found = {}
    for name in [files] if isinstance(files, str) else files:
        source = other_case(case, name)
        prefix = "models.mpi_net." if source.kind == "mpi_net" else "models.mask_net."
        start = "weights."
        found |= {prefix + k.removeprefix(start): v for k, v in source.tensors.items() if k.startswith(start)}
    return found


def build(case: Case, loss: LossName = "l1", **settings: Any) -> MaskVolume:
    """The method with a case's weights, through the importer of checkpoints, and the original's settings."""
    weights = weights_of(case)
    if not any(name.startswith("models.mpi_net.") for name in weights):
        weights |= weights_of(other_case(case, "mpi_net.safetensors"))
    original = convert(weights, case.path)
    config = MaskVolumeConfig(
        stage="mask" if original.has_mask else "mpi",
        views=original.views,
        width=original.width,
        loss=LossConfig(loss),
        **_PUBLISHED,
        **settings,
    )
    method = MaskVolume.create(config)
    method.model.load_state_dict(original.weights)
    return method


@contextmanager
def layer_outputs(net: UNet3d) -> Iterator[dict[str, Tensor]]:
    """What the layers of a network return, by name, while the block runs."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: found.__setitem__(name, output.clone())

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in net.named_children()]
    yield found
    for hook in hooks:
        hook.remove()


def run_network(case: Case, net: UNet3d) -> Tensor:
    """A network's raw output, in both of its forms; what its layers return agrees with the recorded.

    The raw head reaches 20 here, where the recorded float32 numbers are 2e-4 off those of float64: it is held
    to 1e-5 of its range, and what is made of it to the tolerance.
    """
    outputs = []
    for forms in (PLAIN, Forms()):
        net.forms = forms
        with layer_outputs(net) as layers:
            outputs.append(net(case.input("psv")))
        for name in [key.removeprefix("mid.") for key in case.tensors if key.startswith("mid.")]:
            recorded = case.tensors[f"mid.{name}"]
            atol = max(1e-4, 1e-5 * float(recorded.abs().max())) if name == "conv7_3" else 1e-4
            torch.testing.assert_close(layers[name], recorded, rtol=0, atol=atol, msg=named(name))
    return outputs[1]


def named(name: str) -> Callable[[str], str]:
    return lambda text: f"{name}: {text}"


def check_mpi_net(case: Case) -> None:
    net = build(case).model.mpi_net
    alpha, logits = net.head(run_network(case, net))
    case.close("pred", torch.cat([alpha[:, None], logits.softmax(1)], 1), atol=1e-4)


def check_mask_net(case: Case) -> None:
    net = build(case).model.mask_net
    assert net is not None
    case.close("mask", run_network(case, net).sigmoid(), atol=1e-4)


def whole_volume(swept: Swept) -> Tensor:
    """The plane sweep [B, 3V, D, H, W] as the network's tables have it."""
    first = swept.first[:, None, :, None].expand_as(swept.others[:, :1])
    return torch.cat([first, swept.others], 1).flatten(1, 2)


def close(actual: Tensor, recorded: Tensor) -> None:
    torch.testing.assert_close(actual, recorded, rtol=0, atol=3e-4)


def check_mpi_render(case: Case) -> None:
    height, width, planes = (case.config[key] for key in ("H", "W", "planes"))
    method = build(case, planes=planes)
    sources = cameras(case.input("src_ints"), case.input("src_exts"), height, width)
    target = cameras(case.input("tgt_int"), case.input("tgt_ext"), height, width)
    images = case.input("src_imgs")
    if case.config["has_bounds"]:
        bounds = case.input("bd").double().reshape(-1, 2).expand(len(images), 2)
    else:
        bounds = torch.tensor([1.0, 100.0], dtype=torch.float64).expand(len(images), 2)
    frame = method.model.frame(sources[:, 0], plane_depths(*bounds.unbind(-1), planes))
    swept = method.model.sweep(images, sources, frame)
    volume = whole_volume(swept)
    # the first view's slices are all the same image: the sweep makes them once
    close(volume, case.tensors["mid.psv"])
    close(method.model.mpi(swept).transpose(0, 1), case.tensors["mid.mpi"])
    views = Views(images, sources)
    seen, _, _ = method.make(PlanesSample(views, Views(images[:, 0], target), bounds))
    case.close("rgb", seen.color[:, 0], atol=3e-4)
    case.close("acc_alpha", seen.alpha[:, 0, 0], atol=3e-4)
    # ours is the disparity that the target sees, the original's is 1 / depth of the planes in the reference
    maps = plane_homographies(frame.reference, target.reshape(-1, 1), frame.depths)
    rows = torch.zeros_like(maps[..., 0])
    rows[..., 2] = 1 / frame.depths[:, None]
    flat = composite_planes(method.model.mpi(swept), maps, rows, height, width)
    case.close("disp", flat.disparity[:, 0, 0], atol=3e-4)


def mask_sample(case: Case, truth: Tensor) -> PlanesSample:
    """The sample of `mask_render`. truth: [B, 3, H, W], the target's photo."""
    height, width = case.config["H"], case.config["W"]
    sources = cameras(case.input("src_K"), case.input("src_w2c"), height, width)
    target = cameras(case.input("tgt_K"), case.input("tgt_w2c"), height, width)
    source = Views(case.input("src_rgb")[:, :, 0], sources, background=case.input("src_bg"))
    return PlanesSample(source, Views(truth, target), case.input("bd").double())


def check_mask_render(case: Case) -> None:
    method = build(case, "full_loss", planes=case.config["planes"])
    sample = mask_sample(case, torch.zeros_like(case.input("src_rgb")[:, 0, 0]))
    source, model = sample.source, method.model
    assert source.background is not None
    frame = model.frame(source.cameras[:, 0], plane_depths(*sample.bounds.unbind(-1), model.config.planes))
    swept = model.sweep(source.images, source.cameras, frame)
    plates = model.sweep(source.background, source.cameras, frame)
    volume = torch.cat([whole_volume(swept), whole_volume(plates)], 1)[:1]
    if "mid.psv" in case.tensors:
        close(volume, case.tensors["mid.psv"])
    now, still = model.mpi(swept), model.mpi(plates)
    close(torch.stack([now[0], still[0]], 1), case.tensors["mid.mpis"])
    mask = model.mask(swept, model.still_response(plates))
    mixed = torch.cat([blend(mask, now, still), now * mask[:, 0, ..., None]], -1)
    recorded = case.tensors["mid.blended"]
    close(mixed[:1, ..., : recorded.shape[-1]].transpose(0, 1), recorded)
    seen, made, moving = method.make(sample)
    assert made is not None
    assert moving is not None
    case.close("rgb", seen.color[:, 0], atol=3e-4)
    case.close("alpha", moving.alpha[:, 0, 0], atol=3e-4)
    case.close("volume", made, atol=3e-4)


def check_train_step(case: Case) -> None:
    """A step of the mask network; the MPI network gets no gradient and is no part of the optimiser."""
    sample_case = other_case(case, case.meta["inputs_from"])
    first = "tgt_rgb" in case.inputs()
    method = build(case, "l1" if first else "full_loss", planes=sample_case.config["planes"])
    truth = case.input("tgt_rgb") if first else torch.zeros_like(sample_case.input("src_rgb")[:, 0, 0])
    sample = mask_sample(sample_case, truth)
    if first:
        loss = method(sample, 0)["loss"]
    else:  # the full loss without its VGG term
        _, volume, moving = method.make(sample)
        assert volume is not None
        assert moving is not None
        weights = method.config.loss
        loss = weights.mask * mask_term(moving.alpha[:, 0], case.input("tgt_mask")[:, None])
        loss = loss + weights.sparse * sparse_term(volume)
    case.close("loss", loss.detach(), rtol=1e-4)
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = make_optimizer(OptimizerConfig(case.config["optimizer"]), parameters, case.config["lr"])
    loss.backward()
    assert all(p.grad is None for p in method.model.mpi_net.parameters())
    net = method.model.mask_net
    assert net is not None
    ours = {original_name(name): p for name, p in net.named_parameters()}
    assert len(parameters) == len(ours) == len(case.config["param_names"])
    gradients = {name: gradient(p) for name, p in ours.items()}
    norms = torch.stack([gradients[name].norm() for name in case.config["param_names"]])
    case.close("grad_norms", norms, rtol=2e-3, atol=1e-6)
    optimizer.step()
    for name in case.outputs():
        part = name.partition(".")[2]
        if name.startswith("grad."):
            case.close(name, gradients[part], rtol=2e-3, atol=1e-6)
        elif name.startswith("updated."):
            clear = gradients[part].abs() >= 1e-6
            case.close(name, torch.where(clear, ours[part].detach(), case.output(name)), atol=2e-5)


def original_name(name: str) -> str:
    """conv1_1.norm.bias -> conv1_1.model.2.bias."""
    layer, part, last = name.split(".")
    return f"{layer}.model.{({'conv': 0, 'norm': 2})[part]}.{last}"


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def check_video(case: Case) -> None:
    height, width, planes = (case.config[key] for key in ("H", "W", "planes"))
    method = build(case, planes=planes)
    near, far = case.input("bd").double().tolist()
    sources = cameras(case.input("src_K"), case.input("src_w2c"), height, width)
    bounds = torch.tensor([near / NEAR_FACTOR, far / FAR_FACTOR], dtype=torch.float64).expand(2, 2)
    views = Views(case.input("src_rgb"), sources, background=case.input("src_bg"), bounds=bounds)
    state = method.encode(views)
    depths = case.tensors["mid.depth"][:, 0]
    torch.testing.assert_close(state.planes.depths.float(), depths, rtol=1e-5, atol=0)
    mean = state.planes.layers.mean((1, 2))
    close(mean, case.tensors["mid.mpi_mean_per_plane"])
    targets: Cameras = cameras(case.input("tgt_K"), case.input("tgt_w2c"), height, width)
    case.close("rgb", render_planes(state.planes, targets).color, atol=3e-4)
    image = method.render(state, targets).image
    # the original cuts off what is below the next of 256 levels, our videos round
    truncated = (image.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1)
    case.close("rgb_uint8", truncated.int(), atol=1)
    rounded = torch.stack([torch.from_numpy(to_uint8(one)) for one in image])
    torch.testing.assert_close(rounded.int(), case.output("rgb_uint8").int(), rtol=0, atol=1)


CHECKS: dict[str, Callable[[Case], None]] = {
    "mpi_net": check_mpi_net,
    "mpi_render": check_mpi_render,
    "mask_net": check_mask_net,
    "mask_render": check_mask_render,
    "mask_train_step": check_train_step,
    "video_frames_32planes": check_video,
}
