"""Faults of the log's file: what goes wrong between the machine that writes it and the one that reads it.

Each is a function of the file's content, yesterday's content, a rate and a generator. None stands for no file.
Where the rate is no share of the file, any rate above 0 plants the fault.
"""

from collections.abc import Callable

import numpy as np

FilePlant = Callable[[bytes, bytes | None, float, np.random.Generator], bytes | None]

_ERROR_PAGE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>\n"
)


def truncated(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes:
    """The last ``rate`` of the bytes are missing."""
    return content[: len(content) - round(rate * len(content))]


def empty(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes:
    """The file has no byte."""
    return content if rate == 0 else b""


def missing(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes | None:
    """There is no file."""
    return content if rate == 0 else None


def error_page(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes:
    """The file holds the object store's error message."""
    return content if rate == 0 else _ERROR_PAGE


def another_day(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes:
    """The file is yesterday's."""
    if rate == 0:
        return content
    if before is None:
        raise ValueError("there is no file of the day before")
    return before


def half_written(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes:
    """Of a file of lines the last ``rate`` of the bytes are missing; it ends within a line."""
    size = len(content) - round(rate * len(content))
    if size == len(content):
        return content
    # Behind the first two letters of a line: neither a whole line nor a whole number of cells is left of it.
    return content[: content.rfind(b"\n", 0, max(size - 2, 0)) + 3]


def utf_16(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes:
    """A file of lines is written in UTF-16."""
    return content if rate == 0 else content.decode("utf-8").encode("utf-16")


def comma_in_text(content: bytes, before: bytes | None, rate: float, rng: np.random.Generator) -> bytes:
    """Some lines have a comma in a text without quotes, so one cell too many."""
    header, *lines = content.split(b"\n")
    full = [number for number, line in enumerate(lines) if line]
    for number in rng.permutation(len(full))[: round(rate * len(full))]:
        lines[full[number]] += b",x"
    return b"\n".join([header, *lines])
