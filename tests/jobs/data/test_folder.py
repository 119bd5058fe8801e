"""A user's folder of images."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.contract.catalog import MODELS
from jobs.contract.parts import Data
from jobs.contract.trial import Trial
from jobs.data import dataset
from jobs.data import folder as image_folder
from jobs.data.survey import survey
from tests.litter import strew

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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
    side = 32 if model == "resnet50" else None
    found = image_folder.find(Data(kind="images", path=str(folder), side=side), MODELS[model])
    for _ in found.decode():
        pass
    return found.load()


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
    (folder / "images.zip").write_bytes(b"PK")
    assert "images.zip: is a file; unpack it" in message(folder / "images.zip")
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


def told(folder: Path, model: str = "resnet50") -> dict[str, Any]:
    return image_folder.find(Data(kind="images", path=str(folder), side=8), MODELS[model]).told()


def fill(folder: Path, count: int, value: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("L", (8, 8), value).save(folder / f"{value}-{i}.png")
    return folder


@pytest.mark.parametrize(
    ("training", "holding_out"), [("train", "val"), ("train", "test"), ("Training", "Testing"), ("train", "valid")]
)
def test_the_parts_of_a_data_set_are_no_classes(training: str, holding_out: str, tmp_path: Path) -> None:
    for at, name in enumerate(("cat", "dog")):
        fill(tmp_path / training / name, 6, 10 * at)
        fill(tmp_path / holding_out / name, 3, 100 + 10 * at)
    found = load(tmp_path)
    assert sorted(zip(found.train_images[:, 0, 0, 0], found.train_labels, strict=True)) == [(0, 0)] * 6 + [(10, 1)] * 6
    assert sorted(zip(found.test_images[:, 0, 0, 0], found.test_labels, strict=True)) == [(100, 0)] * 3 + [(110, 1)] * 3
    assert told(tmp_path)["classes"] == {"cat": 9, "dog": 9}
    assert (told(tmp_path)["held_out"], told(tmp_path)["held_out_from"]) == (6, f"{holding_out}/")


def test_of_three_parts_one_is_left_out_and_a_class_may_have_nothing_held_out(tmp_path: Path) -> None:
    for name in ("ant", "cat", "dog"):
        fill(tmp_path / "train" / name, 4)
    fill(tmp_path / "val" / "dog", 2, 7)
    fill(tmp_path / "test", 5)  # which nobody has labelled
    found = load(tmp_path)
    assert found.test_labels.tolist() == [2, 2]
    assert told(tmp_path)["left_out"] == {"images in test/, which is neither train nor val": 5}


def test_parts_that_cannot_be_told_apart_are_refused_with_a_cure(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(dataset.DataError) as caught:
            told(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    fill(tmp_path / "train", 6)
    fill(tmp_path / "val", 3)
    assert f"{tmp_path / 'train'}: 0 sub-folders" in said()
    for name in ("cat", "dog"):
        fill(tmp_path / "train" / name, 6)
    assert f"{tmp_path / 'val'}: 0 sub-folders" in said()
    assert f"or name {tmp_path / 'train'} as data.path" in said()
    fill(tmp_path / "val" / "cow", 6)
    assert f"{tmp_path / 'val' / 'cow'}: a class that {tmp_path / 'train'} does not have" in said()


@pytest.mark.parametrize("between", ["train", "images", "dataset"])
def test_a_folder_too_high_is_refused_with_the_one_that_was_meant(between: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / between / name, 6)
    with pytest.raises(dataset.DataError, match=f"did you mean {tmp_path / between}?"):
        told(tmp_path)


def test_classes_that_happen_to_be_called_so_are_classes(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        fill(tmp_path / name, 5)
    assert told(tmp_path)["classes"] == {"bus": 5, "car": 5, "train": 5}


CLASSES = ("cats", "dogs")


def laid_out(home: Path, *places: str) -> Path:
    for place in places:
        for name in CLASSES:
            fill(home / place.replace("*", name), 3)
    strew(home)
    return home


@pytest.mark.parametrize(
    ("places", "meant"),
    [
        (("training_set/*", "test_set/*"), "training_set"),
        (("seg_train/seg_train/*", "seg_test/seg_test/*", "seg_pred/seg_pred"), "seg_train/seg_train"),
        (("train/*", "holdout/*"), "train"),
        (("train_images/*", "test_images/*", "samples"), "train_images"),
        (("xray_val/*", "xray_dev/*"), "xray_dev"),
        (("fold1/*", "fold2/*"), "fold1"),
        (("TrainSet/*", "others/*"), "TrainSet"),
    ],
)
def test_parts_by_other_names_are_no_classes_either(places: tuple[str, ...], meant: str, tmp_path: Path) -> None:
    laid_out(tmp_path, *places)
    with pytest.raises(dataset.DataError, match=r"all have the sub-folders cats, dogs, so they seem to be parts") as it:
        told(tmp_path)
    assert f"did you mean {tmp_path / meant}?" in str(it.value)
    assert told(tmp_path / meant)["classes"] == dict.fromkeys(CLASSES, 3)


def test_parts_below_classes_are_told_and_what_may_be_a_class_is_one_with_a_word(tmp_path: Path) -> None:
    laid_out(tmp_path / "a", "*/train", "*/test", "*/ground_truth")
    with pytest.raises(dataset.DataError, match=r"put them above: ground_truth/cats/…"):
        told(tmp_path / "a")
    laid_out(tmp_path / "b", "*/2021", "*/2022")
    point = Trial.of(strategy="torch", workers=1, global_batch=4, data=Data(kind="images", path=str(tmp_path / "b")))
    said = survey([point], 0, here=True).warnings[-1]
    assert "cats, dogs all have the sub-folders 2021, 2022, and are taken for classes; if they are none, name" in said


def test_each_file_is_a_sign_of_life(folder: Path) -> None:
    seen: list[int] = []
    image_folder.find(Data(kind="images", path=str(folder)), MODELS["cnn"], lambda: seen.append(1))
    assert len(seen) >= 20


def test_whatever_is_left_out_is_counted_and_told_why(folder: Path) -> None:
    fill(folder / ".cats", 3)
    fill(folder / "dogs~", 2)
    fill(folder / "a-red" / "@eaDir" / "1.png", 4)
    fill(folder / "a-red" / ".git", 0)
    for name in ("README.md", "a-red/1.webp", "a-red/2.WEBP", "a-red/labels.csv", "b-green/nothing", "b-green/.x.png"):
        (folder / name).write_bytes(b"x")
    (folder / "b-green" / "Thumbs.db").write_bytes(b"x")
    assert told(folder)["images"] == 20
    assert told(folder)["left_out"] == {
        "images in @eaDir/, which is a name of what other programs leave behind": 4,
        "images in .cats/, which is hidden": 3,
        "images in dogs~/, which is a name of what other programs leave behind": 2,
        ".webp files": 2,
        "files beside the sub-folders there": 1,
        ".csv files": 1,
        "files without an ending": 1,
        "files that other programs left there": 1,
        "hidden files": 1,
    }


def test_links_are_followed_but_not_in_a_circle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    clean = load(folder)
    away = tmp_path_factory.mktemp("away")
    (folder / "a-red" / "deeper").rename(away / "deeper")
    (folder / "a-red" / "deeper").symlink_to(away / "deeper")
    (folder / "b-green").rename(away / "b-green")
    (folder / "b-green").symlink_to(away / "b-green")
    (folder / "a-red" / "round").symlink_to(folder / "a-red")
    (folder / "a-red" / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "a-red" / "pipe.png")
    np.testing.assert_array_equal(load(folder).train_images, clean.train_images)
    assert told(folder)["left_out"] == {"links that lead in a circle": 2, "sockets, pipes or devices": 1}
    (folder / "a-red" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(dataset.DataError, match=f"{folder}/a-red/gone.png: No such file or directory"):
        told(folder)


def test_names_that_are_no_text_are_read_and_told(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (folder / "a-red").rename(folder / name)
    (folder / "b-green" / "0.JPG").rename(folder / "b-green" / f"{name}.png")
    assert load(folder).train_images.shape == (16, 32, 32, 3)
    assert told(folder)["classes"] == {"b-green": 10, "caf�": 10}
    json.dumps(told(folder), ensure_ascii=False).encode()
    (folder / "b-green" / f"{name}.png").write_bytes(b"")
    with pytest.raises(dataset.DataError, match=r"caf�\.png: not readable as an image \(an empty file\)"):
        load(folder)


def test_a_folder_of_the_wrong_kind_of_file_says_what_there_is(folder: Path) -> None:
    (folder / "c").mkdir()
    for name in ("1.webp", "2.webp", "3.heic"):
        (folder / "c" / name).write_bytes(b"x")
    with pytest.raises(dataset.DataError, match=r"c: no .png, .jpg, .jpeg files \(2 .webp files, 1 .heic files\)"):
        told(folder)


def test_a_folder_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is a stand-in: who runs the tests may be root, whom nothing is refused."""
    real = os.scandir

    def scandir(path: Path) -> Any:
        if path == folder / "a-red" / "deeper":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(dataset.DataError, match=r"a-red/deeper: Permission denied; data\.path must be readable"):
        told(folder)
