"""A launch that fails is told in one line, with what tells most and the file at fault; its log keeps all of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.contract import exits, reason
from tests import failing
from tests.running import Done, launch
from tests.warm import forges

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Done], Path]]:
    """All launches by the local launcher, some side by side."""
    here, results = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("results")
    failing.files(here)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        forges.lead(patch, forges.bare())
        patch.setenv(failing.DOES, failing.does(here))
        done = pool.map(lambda way: launch(failing.trial(way), results / str(failing.WAYS.index(way))), failing.WAYS)
        yield dict(zip([way.name for way in failing.WAYS], done, strict=True)), here


@pytest.mark.parametrize("way", failing.WAYS, ids=lambda way: way.name)
def test_the_reason_is_the_reason(way: failing.Way, ended: tuple[dict[str, Done], Path]) -> None:
    done, here = ended
    outcome = done[way.name].outcome
    assert outcome.status == way.status, outcome.error
    assert re.fullmatch(failing.pattern(way, here), outcome.error), outcome.error
    assert len(outcome.error) < 600


def test_the_whole_traceback_stays_in_the_log(ended: tuple[dict[str, Done], Path]) -> None:
    done = ended[0]["a cause"]
    log = (done.folder / "rank-00000.log").read_text()
    assert log.count("Traceback (most recent call last)") == 2
    assert "The above exception was the direct cause" in log
    assert log.splitlines()[-1] == "reason: ZeroDivisionError: division by zero (then RuntimeError: odd)"


def test_a_log_is_shown_as_a_terminal_would(ended: tuple[dict[str, Done], Path]) -> None:
    lines = exits.tail(ended[0]["colours, a bar and odd bytes"].folder, 0)
    assert "step 2/9\ufffd" in lines
    assert not any("\x1b" in line or "step 1/9" in line for line in lines)


REAL_TORCH = """
import json, os, sys, torch
from jobs.contract.reason import readable, telling
from jobs.rank.raised import in_a_line
import traceback

def compiled():
    os.environ["CXX"] = "/nonexistent/g++"
    import torch._inductor.config as config
    config.cpp.cxx = (None, "/nonexistent/g++")
    config.force_disable_caches = True
    torch.compile(lambda x: x.sin() + 1)(torch.ones(3))

class Broken(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, index): return open("/nosuch/a.png")

class Killed(Broken):
    def __getitem__(self, index): os.kill(os.getpid(), 9)

def loader(): next(iter(torch.utils.data.DataLoader(Broken(), num_workers=1)))
def killed(): next(iter(torch.utils.data.DataLoader(Killed(), num_workers=1)))
def memory(): torch.empty(1 << 60, dtype=torch.uint8)
def shapes(): torch.nn.Linear(3, 4)(torch.ones(2, 5))
def weights(): torch.nn.Linear(3, 4).load_state_dict({"weight": torch.ones(4, 3)})
def alone():
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:1", rank=1, world_size=2,
        timeout=__import__("datetime").timedelta(seconds=0.5))
said = {}
for f in (compiled, loader, killed, memory, shapes, weights, alone):
    try: f()
    except Exception as e:
        said[f.__name__] = in_a_line(e), telling(readable("".join(traceback.format_exception(e))))
print(json.dumps(said))
"""
OF_TORCH = {
    "compiled": r"InvalidCxxCompiler: No working C\+\+ compiler found in torch._inductor.config.cpp.cxx: "
    r"\(None, '/nonexistent/g\+\+'\)",
    "loader": r"FileNotFoundError: \[Errno 2\] No such file or directory: '/nosuch/a.png'",
    "killed": r"RuntimeError: DataLoader worker \(pid(\(s\))? \d+\) (is killed by signal|exited unexpectedly).*",
    "memory": r"RuntimeError: .*DefaultCPUAllocator: can't allocate memory.*",
    "shapes": r"RuntimeError: mat1 and mat2 shapes cannot be multiplied \(2x5 and 3x4\)",
    "weights": r"RuntimeError: Error\(s\) in loading state_dict for Linear: Missing key\(s\) in state_dict: \"bias\"\.",
    "alone": r"Dist\w+Error: .*127\.0\.0\.1.*1\b.*",
}
REAL_TF = """
import json, os, sys, traceback
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
from jobs.contract.reason import readable, telling
from jobs.rank.raised import in_a_line

png = open(sys.argv[1], "rb").read()
def decode(): tf.io.decode_png(png)
def pipeline(): next(iter(tf.data.Dataset.from_tensors(png).map(tf.io.decode_png)))
@tf.function
def checked(x):
    tf.debugging.assert_equal(x, 2.0, message="of the loss")
    return x + 1.0
def graph(): checked(tf.constant(1.0))
def layer(): tf.keras.layers.Conv2D(4, 3)(tf.ones([2, 3]))
def inner(): tf.keras.Sequential([tf.keras.layers.Lambda(lambda x: tf.matmul(x, tf.ones([7, 7])))])(tf.ones([2, 3]))
def shapes(): tf.keras.Sequential([tf.keras.layers.Dense(3)])(tf.ones([2, 3])) @ tf.ones([4, 4])
def absent(): tf.io.read_file("/nosuch/a.png")
said = {}
for f in (decode, pipeline, graph, layer, inner, shapes, absent):
    try: f()
    except Exception as e:
        said[f.__name__] = in_a_line(e), telling(readable("".join(traceback.format_exception(e))))
print(json.dumps(said))
"""
OF_TF = {
    "decode": r"InvalidArgumentError: Invalid PNG data, size 1500.*",
    "pipeline": r"InvalidArgumentError: .*: Invalid PNG data, size 1500 \(node DecodePng\)",
    "graph": r"InvalidArgumentError: .*of the loss.*",
    "layer": r"ValueError: Input 0 .*of layer .conv2d. is incompatible with the layer: expected min_ndim=4, .*",
    "inner": r"InvalidArgumentError: Exception encountered when calling Lambda.call\(\)\. "
    r"Matrix size-incompatible: In\[0\]: \[2,3\], In\[1\]: \[7,7\].*",
    "shapes": r"InvalidArgumentError: Matrix size-incompatible: In\[0\]: \[2,3\], In\[1\]: \[4,4\].*",
    "absent": r"NotFoundError: /nosuch/a.png; No such file or directory.*",
}


@pytest.mark.parametrize(("program", "expected"), [(REAL_TORCH, OF_TORCH), (REAL_TF, OF_TF)], ids=["torch", "tf"])
def test_exceptions_of_the_frameworks_are_told_by_their_message(
    program: str, expected: dict[str, str], tmp_path: Path
) -> None:
    """As they raise them, from the object and from the traceback that is all there is of another program."""
    failing.files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "cut.png")],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    wrong = {name: said.get(name) for name, wanted in expected.items() if not re.fullmatch(wanted, said[name][0])}
    assert not wrong
    message = {name: wanted.partition(": ")[2] or wanted for name, wanted in expected.items()}
    wrong = {name: said[name][1] for name, wanted in message.items() if not re.search(wanted, said[name][1])}
    assert not wrong


OF_OTHERS = {
    # torchrun, with its own page after the traceback of a rank
    "[rank0]: Traceback (most recent call last):\n[rank0]:   File \"/x.py\", line 2, in <module>\n[rank0]:     f()\n"
    "[rank0]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 3 GiB\n": (
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 3 GiB"
    ),
    # torchrun's own traceback after that, and one that Python ignored while it ended
    "Traceback (most recent call last):\n  File \"/x.py\", line 2, in f\nZeroDivisionError: division by zero\n"
    "Exception ignored in: <function f at 0x7f>\nTraceback (most recent call last):\n  File \"/y.py\", line 1, in g\n"
    "OSError: [Errno 9] Bad file descriptor\n"
    "Traceback (most recent call last):\n  File \"/bin/torchrun\", line 8, in <module>\n    sys.exit(main())\n"
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n=======\nx.py FAILED\n-------\n"
    "Root Cause (first observed failure):\n": "ZeroDivisionError: division by zero",
    # Ray, coloured, of a task that failed on another node
    "\x1b[36m(train pid=123, ip=10.0.0.7)\x1b[0m Traceback (most recent call last):\n"
    "\x1b[36m(train pid=123, ip=10.0.0.7)\x1b[0m   File \"/x.py\", line 2, in f\n"
    "\x1b[36m(train pid=123, ip=10.0.0.7)\x1b[0m     1 / 0\n"
    "\x1b[36m(train pid=123, ip=10.0.0.7)\x1b[0m ZeroDivisionError: division by zero\n": (
        "ZeroDivisionError: division by zero"
    ),
    # Horovod by horovodrun
    "[1,0]<stderr>:Traceback (most recent call last):\n[1,0]<stderr>:  File \"/x.py\", line 2, in f\n"
    "[1,0]<stderr>:horovod.common.exceptions.HorovodInternalError: [/p/gloo/pair.cc:589] Read error [127.0.0.1]:1: "
    "Connection reset by peer\n": (
        "HorovodInternalError: [/p/gloo/pair.cc:589] Read error [127.0.0.1]:1: Connection reset by peer"
    ),
    # NCCL's, over several lines
    "Traceback (most recent call last):\n  File \"/x.py\", line 2, in f\n"
    "torch.distributed.DistBackendError: NCCL error in: /p/NCCLUtils.hpp:317, unhandled cuda error, NCCL version 2.27\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'\n": (
        "DistBackendError: NCCL error in: /p/NCCLUtils.hpp:317, unhandled cuda error, NCCL version 2.27 Last error: "
        "Cuda failure 2 'out of memory'"
    ),
    # a group of exceptions
    "  + Exception Group Traceback (most recent call last):\n  |   File \"/x.py\", line 2, in f\n"
    "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n  +-+---------------- 1 ----------------\n"
    "    | ValueError: inside\n    +------------------------------------\n": "ValueError: inside",
}  # fmt: skip


@pytest.mark.parametrize(
    ("log", "said"), OF_OTHERS.items(), ids=["rank of torchrun", "torchrun", "Ray", "Horovod", "NCCL", "group"]
)
def test_of_a_program_that_is_not_ours_its_log_tells(log: str, said: str) -> None:
    """Their words, written down: none of these can be had here."""
    assert reason.telling(reason.readable(log)) == said


def test_a_rank_of_which_the_others_died_is_blamed_though_they_were_seen_dead_first(tmp_path: Path) -> None:
    (tmp_path / "rank-00000.log").write_text(
        "reason: RendezvousError: a rank went away while the ranks were in step: x\n"
    )
    (tmp_path / "rank-00001.log").write_text("reason: ValueError: wrong\n")
    ended = [exits.RankExit(rank=0, exit_code=1, ended_unix=1.0), exits.RankExit(rank=1, exit_code=1, ended_unix=1.1)]
    assert exits.verdict(tmp_path, ended, 2) == ("failed", "rank 1 ended with exit code 1: ValueError: wrong")
    only = exits.verdict(tmp_path, ended[:1], 2)
    assert only is not None
    assert only[1].startswith("rank 0 ended with exit code 1: RendezvousError")
