"""An exception ─▶ why it was raised, in one line: the chain it came of, what it carries, the file at fault."""

from __future__ import annotations

import errno
import os
import traceback
from types import TracebackType

from jobs.contract.reason import PATH, Raised, chosen, full_disk, kind_of, message, readable, telling, within

DEEPEST = 20  # exceptions in a chain
# What is said of a file by libraries that do not know its name: damaged, cut off, no room for it.
OF_A_FILE = (
    "EOFError", "UnicodeDecodeError", "BadZipFile", "BadGzipFile", "UnpicklingError", "JSONDecodeError",
    "UnidentifiedImageError", "SyntaxError", "error",
)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT)
OF_A_DISK = (None, *FULL, errno.EIO, errno.EFBIG, errno.EROFS, errno.ESTALE)


def in_a_line(error: BaseException) -> str:
    """Why `error` was raised: `Kind: message`, with the file's name if a file is at fault. Raises nothing."""
    try:
        ours = hasattr(error, "EXIT_CODE")  # it means something of its own to a launcher (jobs/contract/environment.py)
        return chosen([_raised(e) for e in ([error] if ours else _chain(error))])
    except Exception:  # whatever an exception of others does when it is looked at
        return type(error).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """`error` and what it came of, the first cause first."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found and len(found) < DEEPEST:
        found.append(following)
        following = _carried(following) or following.__cause__ or _context(following)
    return found[::-1]


def _context(error: BaseException) -> BaseException | None:
    return None if error.__suppress_context__ else error.__context__


def _carried(error: BaseException) -> BaseException | None:
    """What an exception holds inside of it: a group, torch.compile's, Ray's."""
    inner = getattr(error, "exceptions", None)
    candidates = list(inner) if isinstance(inner, (tuple, list)) else []
    candidates += [getattr(error, name, None) for name in ("inner_exception", "cause")]
    return next((each for each in candidates if isinstance(each, BaseException) and each is not error), None)


def _raised(error: BaseException) -> Raised:
    try:
        text = str(error)
    except Exception:
        text = ""
    kind = kind_of(f"{type(error).__module__}.{type(error).__qualname__}")
    if isinstance(error, SyntaxError) and error.filename:
        return Raised(kind, f"{error.msg} ({error.filename}, line {error.lineno})")
    inner = within(readable(text))
    if inner:
        return Raised(*inner.partition(": ")[::2], on_purpose=error.__cause__ is not None)
    said = message(readable(text))
    for output in (getattr(error, "stderr", None), getattr(error, "output", None)):  # subprocess.CalledProcessError
        if isinstance(output, (str, bytes)) and hasattr(error, "returncode") and (tail := readable(output)):
            said = f"{said} {telling(tail)}"
            break
    if not PATH.search(said) and _of_a_file(error):
        if name := _file_at_hand(error.__traceback__):
            said = f"{said}: {name}" if said else name
        if getattr(error, "errno", None) in FULL and (full := _full()):
            said += f" (full: {', '.join(full)})"
    return Raised(kind, said, _carried(error) is not None, error.__cause__ is not None)


def _of_a_file(error: BaseException) -> bool:
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
        return error.errno in OF_A_DISK
    return any(kind.__name__ in OF_A_FILE for kind in type(error).__mro__)


def _file_at_hand(trace: TracebackType | None) -> str:
    """The file that the innermost frame with one works on: open, or a path to one; empty if there is none."""
    for frame, _ in reversed(list(traceback.walk_tb(trace))):
        for value in reversed(list(frame.f_locals.values())):
            try:
                opened = hasattr(value, "fileno")
                name = value.name if opened else getattr(value, "filename", value)
                if isinstance(name, (str, os.PathLike)) and (opened or os.sep in str(name)) and _is_file(str(name)):
                    return str(name)
            except Exception:  # a thing that does not like to be asked
                continue
    return ""


def _is_file(path: str) -> bool:
    return os.path.exists(path) and not os.path.isdir(path)


def _full() -> list[str]:
    """Of the places where a rank writes, those with no room left."""
    import tempfile

    places = dict.fromkeys((os.getcwd(), tempfile.gettempdir(), "/dev/shm"))
    return [place for place in places if full_disk(place)]
