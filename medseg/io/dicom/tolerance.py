"""Reading what bent files hold without warnings, logs or exceptions that could carry a patient's text."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()
_LOGGERS = ("pydicom", "highdicom")

_DAMAGE = (
    *(ValueError, TypeError, AttributeError, LookupError, NotImplementedError, RuntimeError, ArithmeticError),
    *(EOFError, OSError, MemoryError, struct.error, zlib.error),
)


def damage() -> tuple[type[Exception], ...]:
    """What pydicom and its codecs raise on damaged files; each was seen on a real or fuzzed one."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*_DAMAGE, BytesLengthException, InvalidDicomError)


@contextmanager
def quiet() -> Iterator[None]:
    """No value checks, warnings or log lines of the DICOM libraries inside; one thread at a time.

    Their messages quote the values they dislike, a patient's name among them. What is wrong with a file is said by
    our own errors, which follow the allow-list of `wording`.
    """
    from pydicom.config import disable_value_validation

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with _LOCK, warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
