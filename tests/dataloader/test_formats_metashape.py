"""Metashape's camera XML: what is read, what is named in the log, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataloader.formats.metashape import read_cameras

SENSOR = """<sensor id="{id}" label="cam{id}" type="{type}">
 <resolution width="64" height="48"/>
 <calibration type="frame" class="adjusted"><f>70</f>{terms}</calibration>
</sensor>"""
POSE = "0 -1 0 1 1 0 0 2 0 0 1 3 0 0 0 1"
CAMERA = '<camera id="0" sensor_id="{sensor}" label="{label}"><transform>{pose}</transform></camera>'
TRANSFORM = """<transform><rotation>0 0 1 1 0 0 0 1 0</rotation><translation>10 20 30</translation>
<scale>2.5</scale></transform>"""


def sensor(number: int = 0, terms: str = "", kind: str = "frame") -> str:
    return SENSOR.format(id=number, terms=terms, type=kind)


def camera(label: str, number: int = 0, pose: str = POSE) -> str:
    return CAMERA.format(sensor=number, label=label, pose=pose)


def write(folder: Path, sensors: str, cameras: str, extra: str = "") -> Path:
    path = folder / "cams.xml"
    path.write_text(
        f"<document><chunk><sensors>{sensors}</sensors><cameras>{cameras}</cameras>{extra}</chunk></document>"
    )
    return path


def test_several_sensors_groups_and_terms_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sensors = sensor() + sensor(3, "<cx>1.5</cx><cy>-2</cy>")
    nested = f'<group id="0"><group id="1">{camera("c")}</group>{camera("b", 3)}</group>'
    lost = '<camera id="9" sensor_id="0" label="lost"/>'
    found = read_cameras(write(tmp_path, sensors, camera("a") + nested + lost))
    assert sorted(entry.label for entry in found) == ["a", "b", "c"]
    by_label = {entry.label: entry.camera for entry in found}
    assert by_label["a"].K.tolist() == [[70, 0, 32], [0, 70, 24], [0, 0, 1]]
    assert by_label["b"].K.tolist() == [[70, 0, 33.5], [0, 70, 22], [0, 0, 1]]
    assert (by_label["c"].height, by_label["c"].width) == (48, 64)
    np.testing.assert_array_equal(by_label["a"].c2w.flatten(), [float(word) for word in POSE.split()])
    assert "1 cameras have no pose and are left out: lost" in caplog.text
    assert "distortion" not in caplog.text


def test_distortion_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sensors = sensor(0, "<k1>-0.02</k1><k2>0</k2><p1>1e-4</p1>") + sensor(1, "<k1>9</k1>")
    read_cameras(write(tmp_path, sensors, camera("a")))
    assert "distortion of sensor cam0 is not removed (k1 -0.02, p1 1e-4)" in caplog.text
    assert "cam1" not in caplog.text  # no camera uses it


@pytest.mark.parametrize("place", ["chunk", "component"])
def test_the_transform_is_applied_on_request_and_named_otherwise(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extra, cameras = TRANSFORM, camera("a")
    if place == "component":
        extra = f'<components><component id="5">{TRANSFORM}</component></components>'
        cameras = cameras.replace('label="a"', 'label="a" component_id="5"')
    path = write(tmp_path, sensor(), cameras, extra)
    local = read_cameras(path)[0].camera
    assert "the chunk's transform (scale 2.5) is not applied" in caplog.text
    caplog.clear()
    world = read_cameras(path, apply_transform=True)[0].camera
    assert not caplog.text
    rotation = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    point = np.array([0.3, -0.2, 5.0])  # a chunk point and the same one in the world: one pixel
    moved = 2.5 * rotation @ point + (10, 20, 30)

    def project(camera, xyz):
        in_camera = camera.w2c.numpy() @ [*xyz, 1.0]
        pixel = camera.K.numpy() @ in_camera[:3]
        return pixel[:2] / pixel[2]

    np.testing.assert_allclose(project(world, moved), project(local, point), atol=1e-9)


@pytest.mark.parametrize(
    ("sensors", "cameras", "message"),
    [
        (sensor(), camera("a", 7), "camera a has the unknown sensor 7"),
        (sensor(kind="fisheye"), camera("a"), "sensor cam0 is of type fisheye/frame"),
        (sensor().replace("<f>70</f>", ""), camera("a"), "sensor cam0: <f> needs 1 finite"),
        (sensor().replace("70", "x"), camera("a"), "sensor cam0: <f>: could not convert"),
        ('<sensor id="0" label="q"/>', camera("a"), "sensor q has no resolution or no calibration"),
        (sensor(), camera("a", pose="1 2 3"), "camera a needs 16 finite numbers"),
        (sensor(), camera("a", pose=POSE.replace("3", "nan")), "camera a needs 16 finite numbers"),
        (sensor(), camera("a", pose=POSE.replace("-1", "-4")), "camera a: the pose is not a rotation"),
        (sensor(), camera("a") + camera("a"), "two cameras are labelled 'a'"),
    ],
)
def test_what_is_refused(sensors: str, cameras: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, sensors, cameras)
    with pytest.raises(UserError) as error:
        read_cameras(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_files_that_are_no_camera_xml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_cameras(tmp_path / "none.xml")
    (tmp_path / "a.xml").write_text("<document><chunk>")
    with pytest.raises(UserError, match="is not valid XML"):
        read_cameras(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("<document/>")
    with pytest.raises(UserError, match="holds no <chunk>"):
        read_cameras(tmp_path / "a.xml")
