"""The images and the order of batches."""

import gzip
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.parts import Data
from jobs.data import dataset as data_dataset
from jobs.data import load
from jobs.data import mnist as data_mnist
from jobs.strategies.interface import held_out

COUNT = st.integers(1, 200)


def test_digits_are_real_and_in_the_frame_of_mnist() -> None:
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load.load(Data(), 0)
    assert digits.train_images.shape == (1437, 28, 28, 1)
    assert digits.test_images.shape == (360, 28, 28, 1)
    source = load_digits()
    order = np.random.RandomState(0).permutation(1797)
    np.testing.assert_array_equal(digits.train_labels, source.target[order[:1437]])
    enlarged = np.clip(zoom(source.images / 16, (1, 2.5, 2.5), order=1), 0, 1) * 255
    inner = digits.train_images[:, 4:24, 4:24, 0]
    np.testing.assert_allclose(inner, enlarged[order[:1437]], atol=0.5 + 1e-9)
    assert digits.train_images[:, :4].max() == 0


@given(samples=COUNT, batch=COUNT, steps=st.integers(1, 20), seed=st.integers(0, 5))
def test_every_epoch_holds_each_image_once(samples: int, batch: int, steps: int, seed: int) -> None:
    flat = data_dataset.batch_indices(samples, batch, steps, seed).ravel()
    for start in range(0, len(flat) - samples + 1, samples):
        assert sorted(flat[start : start + samples]) == list(range(samples))
    assert len(set(flat[:samples])) == min(samples, len(flat))


@given(world_size=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 5))
def test_the_ranks_slices_make_up_the_global_batch(world_size: int, seed: int) -> None:
    order = data_dataset.batch_indices(100, 16, 10, seed)
    slices = [data_dataset.rank_slice(order, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(slices, axis=1), order)


def test_more_steps_do_not_change_the_first_ones() -> None:
    np.testing.assert_array_equal(data_dataset.batch_indices(50, 8, 5, 1), data_dataset.batch_indices(50, 8, 50, 1)[:5])


def test_synthetic_images_follow_the_seed() -> None:
    one, two = (load.load(Data(kind="synthetic"), seed) for seed in (1, 2))
    assert one.train_images.shape == (4096, 28, 28, 1)
    assert not np.array_equal(one.train_images, two.train_images)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in data_mnist.IDX_FILES:
        count = 20 if name.startswith("train") else 10
        shape = (count, 28, 28) if "images" in name else (count,)
        content = idx(random.integers(0, 10, shape))
        if "labels" in name:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / name).write_bytes(content)
    return tmp_path


def test_mnist_is_read_from_its_four_files_packed_or_not(mnist: Path) -> None:
    found = load.load(Data(kind="mnist", path=str(mnist)), 0)
    assert found.train_images.shape == (20, 28, 28, 1)
    assert found.test_labels.shape == (10,)


@pytest.mark.parametrize("place", ["raw", "MNIST/raw"])
def test_mnist_is_read_from_where_other_programs_put_it(place: str, mnist: Path, tmp_path: Path) -> None:
    """torchvision's root; and files that were packed or unpacked without a change of their names."""
    root = tmp_path / "root"
    (root / place).mkdir(parents=True)
    for file in sorted(mnist.iterdir()):
        if file.is_file():
            content = file.read_bytes()
            packed = content if file.suffix == ".gz" else gzip.compress(content)
            (root / place / file.stem if file.suffix else root / place / f"{file.name}").write_bytes(packed)
    found = load.load(Data(kind="mnist", path=str(root)), 0)
    np.testing.assert_array_equal(found.train_images, load.load(Data(kind="mnist", path=str(mnist)), 0).train_images)


@pytest.mark.parametrize(("at", "byte"), [(10, 7), (3, 255), (-6, 1), (-1, 9)])
def test_a_damaged_packed_file_is_named(at: int, byte: int, mnist: Path) -> None:
    path = mnist / f"{data_mnist.IDX_FILES[1]}.gz"
    content = bytearray(path.read_bytes())
    content[at] = byte if content[at] != byte else byte + 1
    path.write_bytes(bytes(content))
    with pytest.raises(data_dataset.DataError, match=str(path)) as caught:
        load.load(Data(kind="mnist", path=str(mnist)), 0)
    assert "\n" not in str(caught.value)


def test_mnist_is_read_from_an_npz(mnist: Path, tmp_path: Path) -> None:
    files = load.load(Data(kind="mnist", path=str(mnist)), 0)
    archive = tmp_path / "mnist.npz"
    np.savez(
        archive,
        x_train=files.train_images[..., 0],
        y_train=files.train_labels.astype(np.uint8),
        x_test=files.test_images[..., 0],
        y_test=files.test_labels.astype(np.uint8),
    )
    found = load.load(Data(kind="mnist", path=str(archive)), 0)
    np.testing.assert_array_equal(found.train_images, files.train_images)
    np.testing.assert_array_equal(found.test_labels, files.test_labels)


def test_wrong_data_files_are_named_in_one_line(mnist: Path, tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(data_dataset.DataError) as caught:
            load.load(Data(kind="mnist", path=str(path)), 0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such file" in message(tmp_path / "nowhere")
    foreign = tmp_path / "foreign.npz"
    foreign.write_bytes(b"not an archive")
    assert "not a readable mnist.npz" in message(foreign)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert "no array 'x_train'" in message(tmp_path / "other.npz")
    images = mnist / data_mnist.IDX_FILES[0]
    whole = images.read_bytes()
    images.write_bytes(whole[:-5])
    assert "truncated or damaged" in message(mnist)
    images.write_bytes(b"\x89PNG")
    assert "not an IDX file" in message(mnist)
    images.write_bytes(idx(np.zeros((20, 14, 14))))
    assert "28, 28" in message(mnist)
    images.write_bytes(whole)
    (mnist / f"{data_mnist.IDX_FILES[1]}.gz").write_bytes(gzip.compress(idx(np.full(20, 11))))
    assert "labels run from 11 to 11" in message(mnist)
    images.unlink()
    assert "is missing" in message(mnist)


def test_mnist_is_read_as_kaggle_unpacks_it(mnist: Path, tmp_path: Path) -> None:
    """Each file in a folder of its own name; of the zip itself it is said what to do."""
    root = tmp_path / "kaggle"
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for name in data_mnist.IDX_FILES:
            (root / name).mkdir(parents=True)
            packed = mnist / f"{name}.gz"
            content = gzip.decompress(packed.read_bytes()) if packed.exists() else (mnist / name).read_bytes()
            (root / name / name).write_bytes(content)
            archive.writestr(name.replace("-idx", ".idx"), content)
    found = load.load(Data(kind="mnist", path=str(root)), 0)
    np.testing.assert_array_equal(found.test_images, load.load(Data(kind="mnist", path=str(mnist)), 0).test_images)
    with pytest.raises(data_dataset.DataError, match=r"archive\.zip: a zip of the IDX files; unpack it, and name"):
        load.load(Data(kind="mnist", path=str(tmp_path / "archive.zip")), 0)
    (tmp_path / "only").mkdir()
    (tmp_path / "archive.zip").rename(tmp_path / "only" / "archive.zip")
    with pytest.raises(data_dataset.DataError, match=r"is missing; .*; unpack archive\.zip there"):
        load.load(Data(kind="mnist", path=str(tmp_path / "only")), 0)


LABELS = idx(np.zeros(20))
PACKED = gzip.compress(LABELS, mtime=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PACKED + b"garbage", "cannot be unpacked"),
        (PACKED[:-9], "cannot be unpacked"),
        (gzip.compress(PACKED, mtime=0), "not an IDX file"),
        (b"", "not an IDX file"),
        (gzip.compress(b"", mtime=0), "not an IDX file"),
        (LABELS[:7], "truncated or damaged"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "truncated or damaged"),
        (bytes([0, 0, 13, 1]) + LABELS[4:], "not an IDX file of unsigned bytes"),
        (bytes([0, 0, 8, 4]) + LABELS[4:], "not an IDX file of unsigned bytes"),
        (bytes([8, 0, 0, 1]) + LABELS[4:], "not an IDX file of unsigned bytes"),
        (idx(np.zeros((20, 1))), "train labels are uint8[20, 1] for 20 images"),
        (idx(np.zeros(0)), "train labels are uint8[0] for 20 images"),
    ],
)
def test_a_spoilt_file_of_labels_is_one_line_that_names_it(content: bytes, said: str, mnist: Path) -> None:
    (mnist / f"{data_mnist.IDX_FILES[1]}.gz").write_bytes(content)
    with pytest.raises(data_dataset.DataError) as caught:
        load.load(Data(kind="mnist", path=str(mnist)), 0)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(mnist))
    assert "\n" not in str(caught.value)


def test_a_file_that_was_packed_in_pieces_is_whole(mnist: Path) -> None:
    """A gzip file may be several, one after the other."""
    pieces = gzip.compress(LABELS[:11]) + gzip.compress(LABELS[11:]) + bytes(512)
    (mnist / f"{data_mnist.IDX_FILES[1]}.gz").write_bytes(pieces)
    assert load.load(Data(kind="mnist", path=str(mnist)), 0).train_labels.tolist() == [0] * 20


def test_images_that_are_no_bytes_are_not_cut_down_to_bytes(mnist: Path, tmp_path: Path) -> None:
    files = load.load(Data(kind="mnist", path=str(mnist)), 0)
    arrays = {"x_train": files.train_images[..., 0], "y_train": files.train_labels}
    arrays |= {"x_test": files.test_images[..., 0].astype(np.int32) * 100, "y_test": files.test_labels}
    np.savez(tmp_path / "wide.npz", **arrays)
    with pytest.raises(data_dataset.DataError, match="test images run from 0 to 900; 0 to 255 wanted"):
        load.load(Data(kind="mnist", path=str(tmp_path / "wide.npz")), 0)


@pytest.mark.parametrize("kind", ["digits", "synthetic"])
def test_what_is_classified_is_each_held_out_image_once_and_no_other(kind: Literal["digits", "synthetic"]) -> None:
    """Synthetic ones are 512: more than are classified at a time."""
    dataset = load.load(Data(kind=kind), 0)
    parts = list(held_out(dataset))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in parts]), dataset.test_images)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), dataset.test_labels)
