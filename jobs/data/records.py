"""TFRecord files of image files, one record each: a tf.train.Example with the file's bytes.

Written by a process of its own, `python -m jobs.data.records < FILES`, since the library that PyTorch's users
read such files with and TensorFlow bring the same protocol buffers and cannot be in one process. That library does
not look at the sums in the files, as TensorFlow does; here they are looked at.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jobs.data.dataset import DataError
from jobs.rank.parent import PARENT

FEATURE = "image"  # what a file's bytes are called in a record
MASK = 0xA282EAD8


def write_records(folder: Path, contents: list[list[str]]) -> tuple[str, ...]:
    """A TFRecord file in `folder` for each list of files; where they are. Raises RuntimeError."""
    paths = [str(folder / f"{number:03d}.tfrecord") for number in range(len(contents))]
    wanted = json.dumps(list(zip(paths, contents, strict=True)))
    command = [sys.executable, "-P", "-m", "jobs.rank.parent", "jobs.data.records"]
    mine = os.environ | {PARENT: str(os.getpid())}
    done = subprocess.run(command, env=mine, input=wanted, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"TFRecord files were not written: {done.stderr.strip()}")
    return tuple(paths)


def read_records(path: str) -> Iterator[bytes]:
    """The content of each record. Raises DataError where one is not what was written.

    A record is its length in 8 bytes, the masked CRC-32C of these, the content, and its masked CRC-32C
    (tensorflow.org/tutorials/load_data/tfrecord).
    """
    number = 0
    with open(path, "rb") as file:
        while head := file.read(12):
            if len(head) < 12 or head[8:] != _masked_sum(head[:8]):
                raise DataError(f"{path}: record {number} has a damaged length; write the file anew")
            (length,) = struct.unpack("<Q", head[:8])
            content, end = file.read(length), file.read(4)
            if end != _masked_sum(content):
                raise DataError(f"{path}: record {number} is damaged, its sum is another one; write the file anew")
            yield content
            number += 1


def _masked_sum(content: bytes) -> bytes:
    from crc32c import crc32c

    found = crc32c(content)
    return struct.pack("<I", ((found >> 15 | found << 17) + MASK) & 0xFFFFFFFF)


def main() -> None:
    from tfrecord import TFRecordWriter

    for path, files in json.load(sys.stdin):
        writer = TFRecordWriter(path)
        for file in files:
            writer.write({FEATURE: (Path(file).read_bytes(), "byte")})
        writer.close()


if __name__ == "__main__":
    main()
