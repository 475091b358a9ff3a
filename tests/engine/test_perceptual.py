"""Perceptual losses: what they hold, where gradients go, and the files they are made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from engine.perceptual import LpipsLoss, Vgg19BnLoss, Vgg19Loss, perceptual_loss
from engine.vgg import BLOCKS, matconvnet_convolutions, torchvision_convolutions, weights_file

_WIDTHS = (64, 128, 256, 512, 512)


def random_state(backbone: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of the backbone as torchvision numbers it: convolutions, ReLUs and poolings by turns."""
    generator = torch.Generator().manual_seed(seed)
    state, inputs, position = {}, 3, 0
    for width, size in zip(_WIDTHS, BLOCKS[backbone], strict=True):
        for _ in range(size):
            weight = torch.randn(width, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
            state[f"features.{position}.weight"] = weight
            state[f"features.{position}.bias"] = 0.05 * torch.randn(width, generator=generator)
            inputs, position = width, position + 2
        position += 1
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with torchvision files of random weights."""
    folder = tmp_path_factory.mktemp("weights")
    for backbone in BLOCKS:
        torch.save(random_state(backbone), folder / f"{backbone}-random.pth")
    return folder


@pytest.mark.parametrize("name", ["lpips", "vgg19"])
def test_a_method_may_hold_the_loss_without_owning_its_weights(name: str, weights: Path) -> None:
    if name == "lpips":
        pytest.importorskip("lpips")
    loss = perceptual_loss(name, str(weights))
    assert loss is not None
    method = torch.nn.ModuleDict({"loss": loss})
    assert not method.state_dict()
    assert not list(method.parameters())
    assert not list(method.buffers())
    truth = torch.rand(2, 2, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    images = (truth * 0.5).requires_grad_()
    value = loss(images, truth)
    assert value.shape == ()
    assert value > 0
    value.backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 0
    assert loss(truth, truth) == 0
    assert method.double()["loss"].features._tensors[0].dtype == torch.float64  # moves with its holder


def test_gradients_are_finite_where_all_features_vanish() -> None:
    tensors = [torch.zeros_like(value) for value in random_state("vgg16").values()]
    loss = LpipsLoss(tensors, [torch.ones(width) for width in _WIDTHS])
    images = torch.rand(1, 3, 32, 32).requires_grad_()
    loss(images, torch.rand(1, 3, 32, 32)).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_errors_of_torchvision_weights_have_the_size_of_matconvnet_ones() -> None:
    """The same network, its first layer told once in either input convention."""
    tensors = list(random_state("vgg19").values())
    std, mean = torch.tensor([0.229, 0.224, 0.225]), torch.tensor([0.485, 0.456, 0.406])
    scale = 255 * float(std.mean())
    first = tensors[0] * scale / (255 * std)[None, :, None, None]
    shift = torch.tensor([123.68, 116.779, 103.939]) - 255 * mean  # of a fifth of a grey level
    assert shift.abs().max() < 0.6
    converted = [first, *tensors[1:]]
    converted[1::2] = [bias * scale for bias in tensors[1::2]]
    generator = torch.Generator().manual_seed(2)
    images, truth = torch.rand(2, 1, 3, 32, 32, generator=generator)
    expected = Vgg19Loss(converted).errors(images, truth)
    torch.testing.assert_close(
        Vgg19Loss(tensors, torchvision=True).errors(images, truth), expected, rtol=0.02, atol=0
    )


def test_matconvnet_files_are_read_in_their_layout(tmp_path: Path) -> None:
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    filters, biases = rng.normal(size=(3, 3, 3, 5)).astype(np.float32), rng.normal(size=(1, 5))
    cell = np.empty(2, dtype=object)
    cell[:] = [filters, biases.astype(np.float32)]
    layers = np.empty(2, dtype=object)
    layers[:] = [{"name": "conv1_1", "type": "conv", "weights": cell}, {"name": "relu1_1", "type": "relu"}]
    file = tmp_path / "imagenet-vgg-verydeep-19.mat"
    savemat(file, {"layers": layers})
    weight, bias = matconvnet_convolutions(file)
    assert weight.shape == (5, 3, 3, 3)
    assert weight[4, 2, 0, 1] == filters[0, 1, 2, 4]
    assert torch.equal(bias, torch.from_numpy(biases[0]).float())
    with pytest.raises(UserError, match=r"verydeep-19\.mat does not hold the convolutions of vgg19"):
        perceptual_loss("vgg19", str(tmp_path))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="download it again"):
        perceptual_loss("vgg19", str(file))
    file.write_bytes(b"")
    with pytest.raises(UserError, match="download it again"):
        matconvnet_convolutions(file)
    savemat(file, {"other": np.zeros(2)})
    with pytest.raises(UserError, match="no MatConvNet model"):
        matconvnet_convolutions(file)


def test_missing_and_wrong_files_are_one_line(tmp_path: Path) -> None:
    assert perceptual_loss("none", str(tmp_path)) is None
    for name, word in (("lpips", "vgg16"), ("vgg19", "wget")):
        with pytest.raises(UserError, match=word) as caught:
            perceptual_loss(name, str(tmp_path))  # type: ignore[arg-type]
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "vgg16.pth")
    with pytest.raises(UserError, match=r"vgg16\.pth does not hold"):
        perceptual_loss("lpips", str(tmp_path))


def test_lpips_equals_the_package(weights: Path) -> None:
    lpips = pytest.importorskip("lpips")
    reference = lpips.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False).eval()
    tensors = torchvision_convolutions(weights / "vgg16-random.pth")
    for parameter, value in zip(reference.net.parameters(), tensors, strict=True):
        parameter.data.copy_(value)
    images, truth = torch.rand(2, 2, 3, 40, 48, generator=torch.Generator().manual_seed(3))
    loss = perceptual_loss("lpips", str(weights))
    assert isinstance(loss, LpipsLoss)
    expected = reference(images, truth, normalize=True).flatten()
    torch.testing.assert_close(loss.distances(images, truth), expected, rtol=1e-4, atol=1e-7)


def normalised_state(seed: int = 4) -> dict[str, torch.Tensor]:
    """A state dict of vgg19_bn as torchvision numbers it."""
    generator = torch.Generator().manual_seed(seed)
    state, position = {}, 0
    for key, value in random_state("vgg19_bn", seed).items():
        position += key.endswith("weight")
        blocks = sum(position > limit for limit in (2, 4, 8, 12))
        place = 3 * (position - 1) + blocks
        state[f"features.{place}.{key.rpartition('.')[2]}"] = value
        if key.endswith("bias"):
            for name, base in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
                noise = 0.2 * torch.rand(len(value), generator=generator)
                state[f"features.{place + 1}.{name}"] = base + noise
            state[f"features.{place + 1}.num_batches_tracked"] = torch.tensor(3)
    return state


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normalised")
    torch.save(normalised_state(), folder / "vgg19_bn-random.pth")
    return folder


@pytest.mark.parametrize("train_mode", [False, True])
def test_vgg19_bn_equals_torchvisions_network(normalised: Path, train_mode: bool) -> None:
    vgg = pytest.importorskip("torchvision.models.vgg")
    network = vgg.make_layers(vgg.cfgs["E"], batch_norm=True)
    network.load_state_dict({k.removeprefix("features."): v for k, v in normalised_state().items()})
    network.train(train_mode)
    loss = perceptual_loss("vgg19_bn", str(normalised), train_mode)
    assert isinstance(loss, Vgg19BnLoss)
    assert not loss.state_dict()
    assert not [*loss.parameters(), *loss.buffers()]
    images, truth = torch.rand(2, 1, 3, 48, 64, generator=torch.Generator().manual_seed(5))
    expected, cuts = [], (5, 12, 19, 32, 45)
    for image in (images, truth):
        x = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
            [0.229, 0.224, 0.225]
        )[:, None, None]
        maps = [x]
        with torch.no_grad():
            for i, layer in enumerate(network[:46]):
                x = layer(x)
                if i in cuts:
                    maps.append(x.clone())
        expected.append(maps)
    errors = torch.stack([(a - b).abs().mean() for a, b in zip(*expected, strict=True)])
    torch.testing.assert_close(loss.errors(images, truth), errors, rtol=1e-4, atol=1e-6)
    weighted = errors / errors.new_tensor([1, 2.6, 4.8, 3.7, 5.6, 0.15])
    if not train_mode:  # otherwise the running statistics have moved on
        torch.testing.assert_close(loss(images, truth), weighted.sum(), rtol=1e-4, atol=1e-6)
    else:
        torch.testing.assert_close(loss.features._norms[3], network[1].running_var, rtol=1e-4, atol=1e-6)
    images = images.clone().requires_grad_()
    loss(images, truth).backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_files_with_and_without_normalisations_are_told_apart(normalised: Path, weights: Path) -> None:
    assert weights_file("vgg19", normalised) is None
    assert weights_file("vgg19_bn", normalised) == normalised / "vgg19_bn-random.pth"
    plain = weights / "vgg19-random.pth"
    with pytest.raises(UserError, match=r"vgg19-random\.pth holds no VGG with batch normalisations"):
        perceptual_loss("vgg19_bn", str(plain))
    with pytest.raises(UserError, match=r"models\.vgg19_bn"):
        perceptual_loss("vgg19_bn", str(normalised / "none"))
