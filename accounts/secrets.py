"""Secrets that we hand out: `ls_<kind>_<random><checksum>`, shown once and kept as a hash.

The form lets scanners find a leaked one (PATTERN, published in docs/security.md), and the checksum lets them, and us,
tell a real one from a look-alike without asking the database.
"""

import hashlib
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM, CHECKSUM = 32, 6  # characters; 32 of 62 are 190 bits
KINDS = ("pat", "inv")  # personal API token, invitation
PATTERN = r"ls_(?:pat|inv)_[0-9A-Za-z]{38}"


def mint(kind: str) -> str:
    head = f"ls_{kind}_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return head + _checksum(head)


def is_whole(secret: str, kind: str) -> bool:
    """Whether it has our form and its checksum fits."""
    head, checksum = secret[:-CHECKSUM], secret[-CHECKSUM:]
    whole = len(secret) == len(f"ls_{kind}_") + RANDOM + CHECKSUM and secret.isascii()
    return whole and head.startswith(f"ls_{kind}_") and secrets.compare_digest(checksum, _checksum(head))


def digest(secret: str) -> str:
    """What is stored. A secret of 190 bits needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(head: str) -> str:
    """CRC-32 in base 62."""
    number, digits = zlib.crc32(head.encode()), ""
    while number:
        number, rest = divmod(number, len(ALPHABET))
        digits = ALPHABET[rest] + digits
    return digits.rjust(CHECKSUM, "0")
