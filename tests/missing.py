"""What this machine lacks that tests need, and what will therefore be left out: `python -m tests.missing`."""

from __future__ import annotations

import os
import shutil
import sys

from cluster.horovod.installed import why_not
from jobs.machine import gpus
from tests import limited
from tests.cluster.slurm import practice

# For want of these alone a test may be skipped in continuous integration too.
MAY_LACK = ("gpu", "tpu", "quota")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """The path of a Chromium, None if there is none."""
    return next((found for name in CHROMIUMS if (found := shutil.which(name))), None)


def missing() -> dict[str, str]:
    """Marker of tests that cannot run here ─▶ what is missing."""
    found = {
        "gpu": "" if gpus.visible(os.environ) else "no NVIDIA GPU can be seen here",
        "horovod": f"Horovod is missing: {why}" if (why := why_not()) else "",
        "slurm": practice.absent() or "",
        "accounting": practice.absent("slurmdbd", "mariadbd") or "",
        "quota": limited.absent() or "",
        "browser": "" if chromium() else f"no Chromium: none of {', '.join(CHROMIUMS)} is on the PATH",
    }
    return {marker: why for marker, why in found.items() if why}


def main() -> None:
    in_ci = os.environ.get("CI") == "true"
    for marker, why in missing().items():
        fails = in_ci and marker not in MAY_LACK
        print(f"{'will fail' if fails else 'left out'}: tests marked {marker}: {why}")
    print("left out: PyTorch/XLA, which has an environment of its own: make test-xla")
    print("left out: what only a TPU can show: docs/tpu.md says how to run it on one", flush=True)


if __name__ == "__main__":
    sys.exit(main())
