"""Secrets of tokens and invitations: `ls_<kind>_<random><checksum>`, shown once and stored as a hash.

The format lets secret scanners find a leaked one (PATTERN, published in docs/security.md). The checksum tells a real one from
a look-alike without a database query.
"""

import hashlib
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM = 32  # characters of an alphabet of 62: 190 bits
CHECKSUM = 6  # characters
KINDS = ("pat", "inv")  # personal API token, invitation
PATTERN = r"ls_(?:pat|inv)_[0-9A-Za-z]{38}"


def generate(kind: str) -> str:
    """Return a new secret of a kind: `pat` for a personal API token, `inv` for an invitation."""
    random_part = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    head = f"ls_{kind}_{random_part}"
    return head + _checksum(head)


def is_well_formed(secret: str, kind: str) -> bool:
    """Return whether a secret has our format, this kind, and a valid checksum."""
    head = secret[:-CHECKSUM]
    checksum = secret[-CHECKSUM:]
    prefix = f"ls_{kind}_"
    if len(secret) != len(prefix) + RANDOM + CHECKSUM or not secret.isascii() or not head.startswith(prefix):
        return False
    return secrets.compare_digest(checksum, _checksum(head))


def digest(secret: str) -> str:
    """Return the hash that is stored. A random secret of 190 bits needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(head: str) -> str:
    """Return the CRC-32 in base 62."""
    number = zlib.crc32(head.encode())
    digits = ""
    while number:
        number, rest = divmod(number, len(ALPHABET))
        digits = ALPHABET[rest] + digits
    return digits.rjust(CHECKSUM, "0")
