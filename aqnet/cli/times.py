"""Lead times and hours as they are written on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    import numpy as np

__all__ = ["parse_leads", "parse_utc"]

_HOUR_UTC = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d(:00)?Z?")


def parse_leads(text: str | None) -> tuple[int, ...] | None:
    """Lead times [h] from 12,24,48 or 1:120; None stays None. ParameterError for other text."""
    if text is None:
        return None
    try:
        first, colon, last = text.partition(":")
        leads = range(int(first), int(last) + 1) if colon else map(int, text.split(","))
        if not (found := tuple(leads)) or min(found) < 1:
            raise ValueError("none, or below 1 h")
        return found
    except ValueError as error:
        raise ParameterError(
            explain("lead times cannot be read", expected="12,24,48,96 or 1:120 (hours)",
                    found=text, remedy="correct --leads")
        ) from error  # fmt: skip


def parse_utc(text: str | None) -> np.datetime64 | None:
    """Hour in UTC from 2018-01-01T06, with or without Z; None stays None.

    Raises
    ------
    ParameterError
        Another time zone, minutes, a day without its hour, or no time: numpy would read some of
        them and drop what does not fit.
    """
    import numpy as np

    if text is None:
        return None
    try:
        if not _HOUR_UTC.fullmatch(text):
            raise ValueError("not of the form 2018-01-01T06")
        return np.datetime64(text.removesuffix("Z"), "h")
    except ValueError as error:
        raise ParameterError(
            explain("a time cannot be read", found=f"{text}: {error}",
                    expected="a whole hour in UTC, such as 2018-01-01T06 or 2018-01-01T06Z",
                    remedy="convert it to UTC: 08:00 in Beijing is 00Z")
        ) from error  # fmt: skip
