"""Ways to fail: what a bare rank does (tests/warm/site/bare_strategy.py), and the reason that is to be told.

The code finds `rank`, and `meet`, the rendezvous; `HERE` in it is a folder of its own, with files that are damaged.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from jobs.contract.parts import Limits, Steps, Telemetry
from jobs.contract.trial import Trial

QUICK = Steps(warmup=1, measured=2, compute_only=0)
DOES = "SCALING_TEST_DOES"


@dataclass(frozen=True)
class Way:
    """`error` is a pattern of the outcome's whole error, as `HERE` in it is the folder."""

    name: str
    does: str
    error: str
    status: str = "failed"
    workers: int = 1
    startup: float = 20.0  # seconds


def ended(reason: str) -> str:
    return r"rank 0 ended with exit code 1: " + reason


def killed(name: str, rest: str = ".*") -> str:
    return rf"rank 0 was killed by {name}: {rest}"


def die(by: str, first: str = "") -> str:
    return f"import os, signal, sys\nsys.stderr.write({first!r})\nsys.stderr.flush()\nos.kill(os.getpid(), signal.{by})"


SHELL = "import os\nos.execv('/bin/sh', ['sh', '-c', {!r}])"

WAYS = (
    Way("no such module", "import nosuch", ended("ModuleNotFoundError: No module named 'nosuch'")),
    Way("a library that is none", "import ctypes\nctypes.CDLL('HERE/cut.so')", ended("OSError: HERE/cut.so: .*")),
    Way("a symbol is missing", "import ctypes\nctypes.CDLL(None).nosuch",
        ended("AttributeError: .*undefined symbol: nosuch")),
    Way("a program of syntax errors", "import runpy\nrunpy.run_path('HERE/wrong.py')",
        ended(r"SyntaxError: invalid syntax \(HERE/wrong.py, line 2\)")),
    Way("a cause", "try: 1 / 0\nexcept ArithmeticError as e: raise RuntimeError('odd') from e",
        ended(r"ZeroDivisionError: division by zero \(then RuntimeError: odd\)")),
    Way("trouble while leaving", "try: raise ValueError('loss is nan')\nfinally: raise OSError(9, 'Bad')",
        ended(r"ValueError: loss is nan \(then OSError: \[Errno 9\] Bad\)")),
    Way("trouble with a file while leaving", "try: raise ValueError('loss is nan')\nfinally: open('HERE/absent')",
        ended(r"ValueError: loss is nan \(then FileNotFoundError: .*: 'HERE/absent'\)")),
    Way("a key was asked for", "try: {}['adm']\nexcept KeyError: raise ValueError('no optimizer adm; take adam')",
        ended(r"ValueError: no optimizer adm; take adam \(from KeyError: 'adm'\)")),
    Way("the later one names the file", "try: raise OSError('image file is truncated')\n"
        "except OSError as e: raise ValueError('/data/a.png: damaged') from e",
        ended(r"ValueError: /data/a.png: damaged \(from OSError: image file is truncated\)")),
    Way("a group", "raise ExceptionGroup('unhandled errors', [ValueError('first'), TypeError('second')])",
        ended("ValueError: first")),
    Way("an exception in a process of a pool", "from concurrent.futures import ProcessPoolExecutor as P\n"
        "with P(1) as pool: pool.submit(int, 'x').result()",
        ended("ValueError: invalid literal for int.. with base 10: 'x'")),
    Way("a program that was called fails",
        "import subprocess\nsubprocess.run(['ls', '/nosuch'], check=True, capture_output=True)",
        ended("CalledProcessError: .*exit status 2. ls: cannot access '/nosuch': No such file or directory")),
    Way("no file", "open('HERE/absent')",
        ended(r"FileNotFoundError: \[Errno 2\] No such file or directory: 'HERE/absent'")),
    Way("not allowed", "import os\nos.chmod('HERE/text', 0)\nos.geteuid() or os.seteuid(65534)\n"
        "try: open('HERE/text')\nfinally: os.getuid() or os.seteuid(0)",
        ended(r"PermissionError: \[Errno 13\] Permission denied: 'HERE/text'")),
    Way("a disk is full", "with open('/dev/full', 'w') as file: file.write('x' * 100_000)",
        ended(r"OSError: \[Errno 28\] No space left on device: /dev/full")),
    Way("a file may not grow", "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))\n"
        "with open('HERE/growing', 'w') as file: file.write('x' * 200_000)",
        ended(r"OSError: \[Errno 27\] File too large: HERE/growing")),
    Way("too many files", "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\n"
        "held = []\nwhile True: held.append(open('HERE/json'))",
        ended(r"OSError: \[Errno 24\] Too many open files: 'HERE/json'")),
    Way("a text of other bytes", "from pathlib import Path\nPath('HERE/bytes').read_text(encoding='utf-8')",
        ended("UnicodeDecodeError: 'utf-8' codec can't decode .*: HERE/bytes")),
    Way("JSON that was cut off", "import json\nwith open('HERE/json') as file: json.load(file)",
        ended("JSONDecodeError: .*: HERE/json")),
    Way("a zip that is none", "import zipfile\nzipfile.ZipFile('HERE/json')",
        ended("BadZipFile: File is not a zip file: HERE/json")),
    Way("a checkpoint that was cut off", "import pickle\nwith open('HERE/empty', 'rb') as file: pickle.load(file)",
        ended("EOFError: Ran out of input: HERE/empty")),
    Way("an image that was cut off", "from PIL import Image\nwith Image.open('HERE/cut.png') as image: image.load()",
        ended("OSError: image file is truncated.*: HERE/cut.png")),
    Way("no memory", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 31, -1))\nbytearray(1 << 34)",
        ended("MemoryError")),
    Way("a port is taken", "import socket\na, b = socket.socket(), socket.socket()\n"
        "a.bind(('127.0.0.1', 0))\nb.bind(a.getsockname())", ended(r"OSError: \[Errno 98\] Address already in use")),
    Way("nobody answers", "import socket\nsocket.create_connection(('127.0.0.1', 9))",
        ended(r"ConnectionRefusedError: \[Errno 111\] Connection refused")),
    Way("no end of calls", "def f(): f()\nf()", ended("RecursionError: maximum recursion depth exceeded.*")),
    Way("an exception that cannot be read", "class Odd(Exception):\n    def __str__(self): raise TypeError\nraise Odd",
        ended("Odd")),
    Way("a long story", "raise ValueError('begins ' + 'x' * 50_000 + ' /data/a.png')",
        ended(r"ValueError: begins x{300,320} … x+ /data/a.png")),
    Way("a library ends the process", "import sys\nsys.exit('no licence is left')",
        ended("SystemExit: no licence is left")),
    Way("an end without a word", "import os\nos._exit(3)", "rank 0 ended with exit code 3: it left no message"),
    Way("colours, a bar and odd bytes", "import sys\nout = sys.stderr.buffer\n"
        "out.write(b'\\rstep 1/9\\rstep 2/9\\x1b[31m\\xff\\n')\nout.flush()\nraise ValueError('\\x1b[1mred\\x1b[0m')",
        ended("ValueError: red")),
    Way("others go on talking", "import os, threading\n"
        "def talk():\n    while True: os.write(2, b'I 17:00 all is well\\n')\n"
        "threading.Thread(target=talk, daemon=True).start()\nraise ValueError('is heard')",
        ended("ValueError: is heard")),
    Way("another program in its place", SHELL.format("echo 'x: error while loading shared libraries: libmpi.so.40: "
        "cannot open shared object file' >&2; exit 127"),
        r"rank 0 ended with exit code 127: error while loading shared libraries: libmpi.so.40: .*"),
    Way("another Python in its place", SHELL.format(
        "printf 'Traceback (most recent call last):\\n  File \"/x.py\", line 3, in f\\n    1 / 0\\n    ~~^~~\\n"
        "ZeroDivisionError: division by zero\\n\\nSee https://example.org for help.\\n' >&2; exit 1"),
        ended("ZeroDivisionError: division by zero")),
    Way("killed", die("SIGKILL", "step 7 of 9\n"),
        killed("SIGKILL", "by somebody, or by the kernel for want of memory; its last words: step 7 of 9")),
    Way("told to end", die("SIGTERM"), "rank 0 was killed by SIGTERM: it left no message"),
    Way("a wrong address", "import ctypes\nctypes.string_at(0)", "rank 0 was killed by SIGSEGV: it left no message"),
    Way("a wrong address, with Python's word for it",
        "import ctypes, faulthandler\nfaulthandler.enable()\nctypes.string_at(0)",
        killed("SIGSEGV", "Fatal Python error: Segmentation fault")),
    Way("an exception in C++", die("SIGABRT", "terminate called after throwing an instance of 'c10::Error'\n"
        "  what():  NCCL error: unhandled system error\nException raised from f at a.cpp:3 (most recent call first):\n"
        "frame #0: c10::Error::Error + 0x6c (0x7f in libc10.so)\n"),
        killed("SIGABRT", "c10::Error: NCCL error: unhandled system error")),
    Way("freed twice", "import ctypes\nc = ctypes.CDLL(None)\nc.malloc.restype = ctypes.c_void_p\n"
        "c.free.argtypes = [ctypes.c_void_p]\nm = c.malloc(40)\nc.free(m)\nc.free(m)",
        killed("SIGABRT", r"free\(\): double free detected in tcache 2")),
    Way("a check of TensorFlow's", die("SIGABRT", "I0000 00:00:17.5 1 a.cc:1] well\nF0000 00:00:17.6    12 t.cc:844] "
        "Check failed: dtype() == DT_FLOAT (1 vs. 2)\n*** Check failure stack trace: ***\n"),
        killed("SIGABRT", r"Check failed: dtype\(\) == DT_FLOAT .*")),
    Way("no such instruction", die("SIGILL"), killed("SIGILL", "an instruction that this CPU does not have.*")),
    Way("a file is cut off under it", "import mmap, os\nf = open('HERE/mapped', 'r+b')\nm = mmap.mmap(f.fileno(), 0)\n"
        "os.truncate('HERE/mapped', 0)\nm[0]",
        killed("SIGBUS", "want of shared memory .*, or a file that was cut off under it")),
    Way("stands still", "import time\ndef read_forever(): time.sleep(60)\nread_forever()",
        r"rank 0 stood still for 0:00:01.*, its log says where: read_forever .*",
        "timeout", startup=1.5),
    Way("one never comes to a collective", "import time\nif rank: time.sleep(60)\nmeet.barrier()",
        r"rank [01] stood still for 0:00:02, its log says where: (_exactly|<module>) .*",
        "timeout", 2, 2.0),
    Way("one fails, the other follows", "if rank: raise ValueError('of rank 1')\nmeet.barrier()",
        "rank 1 ended with exit code 1: ValueError: of rank 1", workers=2),
    Way("one is killed, the other follows", "import os\nif rank: os.kill(os.getpid(), 9)\nmeet.barrier()",
        "rank 1 was killed by SIGKILL: .*", workers=2),
)  # fmt: skip


def files(here: Path) -> None:
    """Damaged files for the ways to fail."""
    (here / "cut.so").write_bytes(b"\x7fELF")
    (here / "wrong.py").write_text("a = 1\na b\n")
    (here / "text").write_text("text\n")
    (here / "bytes").write_bytes(b"caf\xe9")
    (here / "json").write_text('{"a": ')
    (here / "empty").touch()
    (here / "mapped").write_bytes(b"x" * 4096)
    from PIL import Image

    Image.effect_noise((64, 64), 50).save(here / "whole.png")
    (here / "cut.png").write_bytes((here / "whole.png").read_bytes()[:1500])


def does(here: Path, ways: tuple[Way, ...] = WAYS) -> str:
    """The value of the variable DOES for ranks whose trials are `trial(way)`."""
    return json.dumps({str(WAYS.index(way)): way.does.replace("HERE", str(here)) for way in ways})


def trial(way: Way) -> Trial:
    limits, quiet = Limits(startup=way.startup), Telemetry(hertz=0)
    fields = {"strategy": "torch-ddp", "workers": way.workers, "global_batch": 4, "steps": QUICK}
    return Trial.of(**fields, seed=WAYS.index(way), limits=limits, telemetry=quiet)


def pattern(way: Way, here: Path) -> str:
    return way.error.replace("HERE", re.escape(str(here)))


def named(*names: str) -> tuple[Way, ...]:
    return tuple(next(way for way in WAYS if way.name == name) for name in names)
