"""Why a process failed, in one line, from a chain of exceptions (jobs/rank/raised.py has them) or from its log.

A chain of exceptions is told by its first, the cause, unless a later one says more: it repeats the cause and adds to
it, it was raised from it on purpose and names a file which the cause does not, or the cause is only how a program found
out that something is absent (KeyError, queue.Empty, …). What was raised last is added where it says something else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

MARK = "reason: "  # begins the last line of a rank's log, where the rank could say why it failed
LONGEST, LONGEST_LAST = 400, 120  # characters, of the cause and of what was raised last
WIDEST = 2000  # of a line that is looked at

# How programs find out that something is absent; what they raise then says more.
ASKING = ("KeyError", "AttributeError", "IndexError", "LookupError", "StopIteration", "Empty", "struct.error")
ROOM = 1 << 20  # bytes: a disk with less is full
PATH = re.compile(r"(?:^|[\s'\"(=])/[^\s'\":,()]+")
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# Who says a line, before what is said: Ray, Horovod, torchrun, and srun --label with more than one task.
WHO = re.compile(r"^(?:\([^()]*\bpid=\d+[^()]*\)|\[\d+,\d+\]<std(?:err|out)>:|\[(?:default|rank)\d+\]:) ?")
# What stands around a message: how to learn more, where in C++ it was raised, what the arguments were.
ADVICE = re.compile(
    r"Set TORCH|You can suppress this|For even more|For debugging consider|Compile with `TORCH_USE|CUDA kernel errors"
    r"|Exception raised from|frame #\d|C\+\+ CapturedTraceback|Original stack trace|Stack trace below|from user code"
    r"|Minifier script|Last frame execution|Arguments received by|Call arguments received|[•^~]|\* |Please include"
    r"|Search for |Hint:|\[\[\{\{node|<stack traces unavailable>|This error may appear|note: run with|\(Triggered"
)
# What only announces the line after it.
HEADING = re.compile(
    r":$|^Exception encountered when calling|^Graph execution error|^\d+ root error|^C\+\+ compile error$|^Detected at"
    r"|^The following error|^\d+ validation errors? for"
)
IN_C = re.compile(r"\S+:\d+(?::\d+)?: (?:fatal )?error: |\bld(?:\.\w+)?: .*(?:cannot|undefined|error)")
LAST = "Last error:"  # NCCL's, after what it says of every error
NODE = re.compile(r"\[\[\{\{node ([^}]+)\}\}\]\]")
FUNCTION = re.compile(r"^\{\{function_node .*?\}\} ?(?!\})")

GROUP = re.compile(r"^ *(?:\| ?|\+-\+-+|\+-+|\+ )")  # before each line of a group of exceptions
TRACEBACK = re.compile(r"Traceback \(most recent call last\):$")
BETWEEN = ("The above exception was the direct cause", "During handling of the above exception")
IGNORED = "Exception ignored in"
OF_A_CHILD = ("ChildFailedError",)  # torchrun's own, of a rank that has told its reason
# Not any word before a colon: other output may stand between a traceback's lines.
RAISED = re.compile(r"(?P<kind>(?:[A-Za-z_]\w*\.)+\w+|[A-Z]\w*[a-z]\w*)(?:: (?P<text>.*))?$")

# What a process cries that dies of itself; what of it is the reason.
CRIES = tuple(
    re.compile(cry)
    for cry in (
        r"^(?:F\d{4} .*?|\S+ \S+: F \S+?)\] (.*)",  # of absl and of TensorFlow: fatal
        r"(.*: Assertion [`'].*' failed\.?)$",
        r"^(\*\*\* .*detected \*\*\*.*)",
        r"^((?:double free or corruption|malloc\(\)|free\(\)|realloc\(\)|corrupted|munmap_chunk\(\)).*)",
        r".*?((?:symbol lookup error|error while loading shared libraries): .*)",
        r"^((?:/\S+/)?python[\d.]*: (?:No module named|can't open file|Error while finding).*)",
        r"^(Fatal Python error: .*)",
        r"(.*(?:oom[-_ ]?kill|Out of memory|CUDA out of memory).*)",
    )
)
THROWN = re.compile(r"terminate called after throwing an instance of '(.*)'")
WHAT = re.compile(r"\s*what\(\): +(.*)")


class Raised(NamedTuple):
    """An exception of a chain: its class, and its text in a line. `carries` another, whose text its own repeats;
    `on_purpose`: by `raise … from` the one before it."""

    kind: str
    text: str
    carries: bool = False
    on_purpose: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


def chosen(chain: Sequence[Raised]) -> str:
    """The line for a chain of exceptions, from the first, the cause, to the one that was raised last."""
    at = 0
    while at + 1 < len(chain) and _says_more(chain[at + 1], chain[at]):
        at += 1
    telling, last = chain[at], chain[-1]
    line = _cut(str(telling), LONGEST)
    if at and chain[0].text not in telling.text and chain[0].kind != "struct.error":
        line += f" (from {_cut(str(chain[0]), LONGEST_LAST)})"
    silent = last.carries or last is telling or not last.text or last.text in telling.text or telling.text in last.text
    return line if silent else f"{line} (then {_cut(str(last), LONGEST_LAST)})"


def _says_more(later: Raised, cause: Raised) -> bool:
    if later.carries or not later.text:
        return False
    if not cause.text or cause.kind in ASKING or cause.text in later.text:
        return True
    return later.on_purpose and bool(PATH.search(later.text)) and not PATH.search(cause.text)


def kind_of(dotted: str) -> str:
    """What an exception's class is called: its name, with its module where that alone says what it is (zlib.error)."""
    name = dotted.rpartition(".")[2]
    return name if name[:1].isupper() else dotted


def readable(text: str | bytes) -> list[str]:
    """The lines of a text as a terminal would show them: no colours, of a line that was drawn over the last state."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    lines = []
    for line in ESCAPE.sub("", text).split("\n"):
        shown = next((part for part in reversed(line.split("\r")) if part.strip()), "")
        if len(shown) > WIDEST:
            shown = f"{shown[: WIDEST - 100]} … {shown[-97:]}"
        shown = WHO.sub("", UNSEEN.sub("", shown).rstrip())
        if shown.strip():
            lines.append(shown)
    return lines


def message(lines: Sequence[str]) -> str:
    """Of the text of an exception, what tells most, in a line."""
    lines = [FUNCTION.sub("", line.strip()) for line in lines]
    for at, line in enumerate(lines):
        if node := NODE.search(line):  # TensorFlow: the message ends before the node that said it
            before = [line[: node.start()], *reversed(lines[:at])]
            said = next((each for each in before if each.strip() and not _around(each)), "")
            return f"{said.strip()} (node {node[1]})" if said else line
    told: list[str] = []
    for line in lines:
        if not line or _around(line) or line.startswith("File "):
            continue
        told.append(line)
        if not HEADING.search(line) or len(told) == 3:
            break
    if in_c := [line for line in lines if IN_C.search(line)]:  # a compiler's, among commands and warnings
        told = [*told[:1], in_c[0]] if in_c[0] not in told[:1] else told[:1]
    if LAST in lines[:-1]:
        told += [LAST, lines[lines.index(LAST) + 1]]
    return " ".join(told) or " ".join(lines[:1])


def _around(line: str) -> bool:
    return bool(ADVICE.match(line.strip()))


def within(lines: Sequence[str]) -> str:
    """The line for the last traceback in a text, with those it came of; empty if there is none."""
    starts = [at for at, line in enumerate(lines) if TRACEBACK.search(line.strip())]
    if not starts:
        return ""
    lines = [GROUP.sub("", line) for line in lines]
    chains: list[list[Raised]] = []
    for at, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        before = lines[at - 1].strip() if at else ""
        found = _block(lines[at + 1 : end])
        if found is None or before.startswith(IGNORED) or (chains and found.kind in OF_A_CHILD):
            continue
        if not chains or not before.startswith(BETWEEN):
            chains.append([])  # this one has come of none before it
        chains[-1].append(found._replace(on_purpose=before.startswith(BETWEEN[0])))
    return chosen(chains[-1]) if chains else ""


def _block(lines: Sequence[str]) -> Raised | None:
    """The exception under a traceback: what stands, after its frames, as far to the left as they began."""
    frames = [at for at, line in enumerate(lines) if line.lstrip().startswith("File ")]
    after = lines[frames[-1] + 1 if frames else 0 :]
    for at, line in enumerate(after):
        found = RAISED.match(line.strip())
        if found and (not frames or _indent(line) < _indent(lines[frames[0]])):
            kind = kind_of(found["kind"])
            rest = []
            for each in after[at + 1 :]:
                if each.strip().startswith(BETWEEN):
                    break
                rest.append(each)
            if kind in ("ExceptionGroup", "BaseExceptionGroup"):
                inside = [held for each in rest if (held := RAISED.match(each.strip())) and held["text"]]
                if inside:
                    return Raised(kind_of(inside[0]["kind"]), inside[0]["text"])
            place = ""
            if kind in ("SyntaxError", "IndentationError", "TabError") and frames:
                name = re.search(r'File "(.*)", line (\d+)', lines[frames[-1]])
                place = f" ({name[1]}, line {name[2]})" if name else ""
            return Raised(kind, message([found["text"] or "", *rest]) + place)
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def of_log(lines: Sequence[str], cut_off: bool = False) -> str:
    """Why the process failed whose log ends in `lines`, as `readable` gives them; empty if the log is.

    `cut_off`: it died of a signal, so that a traceback in its log need not be of that.
    """
    for line in reversed(lines):
        if line.startswith(MARK):
            return _cut(line.removeprefix(MARK), LONGEST + LONGEST_LAST)
    return telling(lines, cut_off)


def telling(lines: Sequence[str], cut_off: bool = False) -> str:
    """Of what a program has said before its end, the line that tells why."""
    found = _cried(lines) if cut_off else within(lines) or _cried(lines)
    if found:
        return _cut(found, LONGEST + LONGEST_LAST)
    said = [line.strip() for line in lines if not _around(line)] or [line.strip() for line in lines]
    if not said:
        return ""
    return _cut(f"its last words: {said[-1]}" if cut_off else said[-1], LONGEST)


def _cried(lines: Sequence[str]) -> str:
    for at, line in reversed(list(enumerate(lines))):
        if thrown := THROWN.search(line):
            what = next((found[1] for each in lines[at + 1 : at + 3] if (found := WHAT.match(each))), "")
            return f"{thrown[1]}: {what}" if what else thrown[1]
    for cry in CRIES:
        for line in reversed(lines):
            if found := cry.match(line.strip()):
                return found[1]
    return ""


def stood_at(lines: Sequence[str]) -> str:
    """Where a process stood that its watchdog has ended, by faulthandler's dump: the innermost frame of the thread
    that is written last, the main one."""
    starts = [at for at, line in enumerate(lines[:-1]) if line.startswith(("Thread 0x", "Current thread 0x"))]
    frame = re.match(r'\s*File "(.*)", line (\d+) in (\S+)', lines[starts[-1] + 1]) if starts else None
    return f"{frame[3]} ({'/'.join(frame[1].split('/')[-3:])}:{frame[2]})" if frame else ""


def full_disk(place: str | os.PathLike[str]) -> str:
    """`place`, if there is no room left on its disk, else nothing."""
    try:
        there = os.statvfs(place)
    except OSError:
        return ""
    full = there.f_bavail * there.f_frsize < ROOM or (there.f_files and not there.f_favail)
    return str(place) if full else ""


def _cut(text: str, longest: int) -> str:
    """`text` in a line, without its middle if it is too long: names of files are at its ends."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 80]} … {text[-77:]}"
