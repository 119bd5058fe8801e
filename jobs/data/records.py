"""TFRecord files of image files, one record each: a tf.train.Example with the file's bytes.

Written by a process of its own, `python -m jobs.data.records < FILES`, since the library that PyTorch's users
read such files with and TensorFlow bring the same protocol buffers and cannot be in one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FEATURE = "image"  # what a file's bytes are called in a record


def write_records(folder: Path, contents: list[list[str]]) -> tuple[str, ...]:
    """A TFRecord file in `folder` for each list of files; where they are. Raises RuntimeError."""
    paths = [str(folder / f"{number:03d}.tfrecord") for number in range(len(contents))]
    wanted = json.dumps(list(zip(paths, contents, strict=True)))
    command = [sys.executable, "-P", "-m", "jobs.data.records"]
    done = subprocess.run(command, input=wanted, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"TFRecord files were not written: {done.stderr.strip()}")
    return tuple(paths)


def main() -> None:
    from tfrecord import TFRecordWriter

    for path, files in json.load(sys.stdin):
        writer = TFRecordWriter(path)
        for file in files:
            writer.write({FEATURE: (Path(file).read_bytes(), "byte")})
        writer.close()


if __name__ == "__main__":
    main()
