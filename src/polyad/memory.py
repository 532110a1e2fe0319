"""Amounts of memory as people write them."""

import re

from polyad.errors import BudgetError

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_memory(text: str) -> int:
    """Bytes in a text such as 4GB (of 1000 MB each), 1.5 GiB (of 1024 MiB each) or 512m.

    Raises:
        BudgetError: it is no amount with a unit, or nothing.
    """
    match = _PATTERN.fullmatch(text.strip())
    amount = 0
    if match is not None:
        amount = int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])
    if amount <= 0:
        raise BudgetError(f"{text!r} is no amount of memory: write a number with its unit, such as 4GB or 512MiB.")
    return amount


def bytes_text(amount: int) -> str:
    """Bytes as a text that, read back, is never less: 1234567 -> 1.24MB."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if amount >= 10**power:
            return f"{-(-amount * 100 // 10**power) / 100:g}{unit}"
    return f"{-(-amount // 10) / 100:g}kB"
