"""Detect the encoding of a text file: by byte order mark, as UTF-8, else the most plausible of common encodings."""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from datasets_app.reading.archives import CHUNK, head_of, looks_like_utf16

ENCODINGS = {  # {Python codec: name on the page}
    "utf-8": "UTF-8",
    "utf-16": "UTF-16",
    "cp950": "Big5 (Traditional Chinese)",
    "gb18030": "GB18030 (Simplified Chinese)",
    "cp932": "Shift_JIS (Japanese)",
    "euc_jp": "EUC-JP (Japanese)",
    "cp949": "EUC-KR (Korean)",
    "cp1252": "Windows-1252 (Western)",
    "cp1250": "Windows-1250 (Central European)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "koi8_r": "KOI8-R (Cyrillic)",
    "cp1254": "Windows-1254 (Turkish)",
    "latin-1": "ISO-8859-1 (Latin 1)",
    "mac_roman": "Mac Roman",
}
READABLE = {*ENCODINGS, "utf-32", "utf-16-le", "utf-16-be"}
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The most frequent characters of each. A wrong codec decodes to valid but rare ones, which fools detectors that only look for
# invalid bytes.
_FREQUENT = {
    "cp950": "的是不了在有人我他這們來個上大為和國地到說時要就出會也你對生能得著下自之年過後作裡很好都沒看可以還小去",
    "gb18030": "的是不了在有人我他这们来个上大为和国地到说时要就出会也你对生能得着下自之年过后作里很好都没看可以还小去",
    "cp932": "のはにをたがでてとしいるなこれもあらっすまかくだよねそんりきせう",
    "euc_jp": "のはにをたがでてとしいるなこれもあらっすまかくだよねそんりきせう",
    "cp949": "이다는의에을가를은한고지도로하사나기어서아그자시인대리",
    "cp1252": "éèàêçñöäüßáíóúâîôœãõåøæïùëûìòÉÈÀÊÇÑÖÄÜÁÍÓÚÂÎÔŒÃÕÅØÆ’“”‘–—…€£°",
    "cp1250": "áčďéěíňóřšťúůýžąćęłńśźżőűăţ’“”„–…",
    "cp1251": "оеаинтсрвлкмдпуяыьгзбчй",
    "koi8_r": "оеаинтсрвлкмдпуяыьгзбчй",
    "cp1254": "çğıöşüÇĞİÖŞÜ’“”",
    "mac_roman": "éèàêçñöäüßáíóúâîôœãõåøæïùëûìòÉÈÀÊÇÑÖÄÜÁÍÓÚÂÎÔŒÃÕÅØÆ’“”‘–—…€£°",
}
_WIDE = ("cp950", "gb18030", "cp932", "euc_jp", "cp949")
_CYRILLIC = ("cp1251", "koi8_r")
_WESTERN = ("cp1252", "cp1250", "cp1254", "mac_roman")
_SAMPLE_BYTES = 200_000
_ISOLATED = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")


@dataclass(frozen=True)
class Detected:
    encoding: str
    candidates: tuple[str, ...]  # best first, for a person to choose from
    has_bom: bool = False
    is_valid: bool = True  # False: some bytes may not be of this encoding


def detect(file: Path) -> Detected:
    """Return the most plausible encoding of a file, and other candidates."""
    head = head_of(file, CHUNK)
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return Detected(encoding, (encoding,), has_bom=True)
    if utf16 := looks_like_utf16(head[:4096]):
        return Detected(utf16, (utf16,))
    if is_utf8(file):
        return Detected("utf-8", ("utf-8",))
    # Only lines beyond ASCII tell encodings apart. Long ones are cut, so that one endless line cannot fill the memory.
    lines = []
    size = 0
    with open(file, "rb") as f:
        while size < _SAMPLE_BYTES and (line := f.readline(8192)):
            if not line.isascii():
                lines.append(line)
                size += len(line)
    ranked = rank_encodings(b"".join(lines))
    return Detected(ranked[0], tuple(ranked), is_valid=False)


def is_utf8(file: Path) -> bool:
    """Return whether the whole file is valid UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(file, "rb") as f:
            while chunk := f.read(CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def rank_encodings(sample: bytes) -> list[str]:
    """Return the encodings that the sample may have, the most plausible first.

    The score of an encoding is the share of its frequent characters among those beyond ASCII, minus five times that of bytes
    that it cannot decode.
    """
    scores = {}
    for name, frequent in _FREQUENT.items():
        decoded = [c for c in sample.decode(name, "replace") if c > "\x7f"]
        hits = sum(c in frequent for c in decoded)
        scores[name] = (hits - 5 * decoded.count("\ufffd")) / max(1, len(decoded))
    # A UTF-8 file with a few damaged bytes is still best read as UTF-8: other encodings hardly ever have its sequences.
    decoded = [c for c in sample.decode("utf-8", "replace") if c > "\x7f"]
    if decoded.count("\ufffd") < len(decoded) * 0.25:
        scores["utf-8"] = 1.0
    # Accented letters are isolated among ASCII letters, while bytes of Chinese come in pairs and those of Cyrillic in words.
    bytes_beyond_ascii = sum(byte > 127 for byte in sample)
    is_western = len(_ISOLATED.findall(sample)) >= max(1, bytes_beyond_ascii * 0.5)
    for name in (*_WIDE, *_CYRILLIC) if is_western else _WESTERN:
        scores[name] -= 0.5
    scores["mac_roman"] -= 0.2  # rare today, and its bytes are common letters in Windows-1252
    best = max(scores, key=lambda name: scores[name])
    ranked = sorted(scores, key=lambda name: (name != best, not is_western and name not in _WIDE, -scores[name]))
    if scores[best] > 0.1:
        return ranked
    from charset_normalizer import from_bytes  # rarely needed

    matches = from_bytes(sample, cp_isolation=["cp1252", "mac_roman", "cp1250", "cp1251"])
    return list(dict.fromkeys([*(match.encoding for match in matches), *ranked]))
