"""A user's folder of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.contract.parts import Data
from jobs.data import dataset
from jobs.data import folder as image_folder
from jobs.data import load as data
from tests.litter import strew

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten red images of one class and ten green ones of another, of several sizes and formats."""
    for name, colour in (("a-red", RED), ("b-green", GREEN)):
        (tmp_path / name / "deeper").mkdir(parents=True)
        for i in range(10):
            place = tmp_path / name / ("deeper" if i % 2 else ".") / f"{i}.{'png' if i % 3 else 'JPG'}"
            Image.new("RGB", (40 + i, 90 - i), colour).save(place)
    return tmp_path


def load(folder: Path, model: str = "resnet50") -> dataset.Dataset:
    return data.load(Data(kind="images", path=str(folder), side=32 if model == "resnet50" else None), 0, model)


def test_each_sub_folder_is_a_class_in_the_order_of_names(folder: Path) -> None:
    found = load(folder)
    assert found.train_images.shape == (16, 32, 32, 3)
    assert found.test_images.shape == (4, 32, 32, 3)
    for images, labels in ((found.train_images, found.train_labels), (found.test_images, found.test_labels)):
        wanted = np.where(labels[:, None, None, None] == 0, RED, GREEN)
        assert np.abs(images - wanted).max() <= 2  # JPEG
    assert sorted([*found.train_labels, *found.test_labels]) == [0] * 10 + [1] * 10


def test_the_same_images_are_held_out_every_time_and_the_cnn_gets_them_gray(folder: Path) -> None:
    np.testing.assert_array_equal(load(folder).test_images, load(folder).test_images)
    assert load(folder, "cnn").train_images.shape == (16, 28, 28, 1)


def test_what_other_programs_leave_is_no_image_and_no_class(folder: Path) -> None:
    """A copy of an image among it, as Jupyter keeps one, would be an image too many."""
    clean = load(folder)
    strew(folder, (folder / "a-red" / "deeper" / "1.png").read_bytes())
    found = load(folder)
    np.testing.assert_array_equal(found.train_images, clean.train_images)
    np.testing.assert_array_equal(found.test_labels, clean.test_labels)


def test_whatever_is_wrong_is_said_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(path: Path, model: str = "resnet50") -> str:
        with pytest.raises(dataset.DataError) as caught:
            load(path, model)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such folder" in message(folder / "nowhere")
    assert "two classes at least" in message(folder / "a-red")
    whole = (folder / "a-red" / "1.png") if (folder / "a-red" / "1.png").exists() else folder / "a-red/deeper/1.png"
    content = whole.read_bytes()
    for broken in (content[: len(content) // 2], b"not an image", b""):
        whole.write_bytes(broken)
        assert str(whole) in message(folder)
        assert "not readable as an image" in message(folder)
    whole.write_bytes(content)
    monkeypatch.setattr(image_folder, "LARGEST", 20 * 32 * 32 * 3 - 1)
    assert "for every rank" in message(folder)
    monkeypatch.undo()
    for i in range(9):
        (folder / f"more{i}").mkdir()
    assert "no .png" in message(folder)
    assert "the model has 10 classes" in message(folder, "cnn")


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "only.png")
    with pytest.raises(dataset.DataError, match="2 images; one in 5"):
        load(tmp_path)
