"""Text files, whatever they are compressed by: told by their first bytes, not by their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, Any, Final

BROKEN: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading raises where a compressed file is damaged or cut off; where the disk is, too."""
_ARCHIVES: Final = {b"PK\x03\x04": "a ZIP archive", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive"}
_TAR: Final = (257, b"ustar")
"""Where a tar archive says that it is one."""
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def decompressed(file: io.BufferedReader[Any]) -> IO[bytes]:
    """What the file holds: out of gzip, bzip2, xz or zstd, or as it is. A pipe will do: its beginning is looked at and
    not taken."""
    head = file.peek(6)[:6]
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(file)  # type: ignore[return-value] # it is read as any file
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ"):
        return lzma.open(file)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"), 1 << 20)
    return file


def no_text(head: bytes) -> str:
    """What a file with these first bytes is that has no lines of UTF-8, and what to do; empty: it may well have."""
    what = next((what for magic, what in _ARCHIVES.items() if head.startswith(magic)), "")
    if head[_TAR[0] :].startswith(_TAR[1]):
        what = "a tar archive"
    if what:
        return f"is {what}: unpack it, and name the file or the folder in it"
    return "is UTF-16: iconv -f UTF-16 -t UTF-8 makes it UTF-8" if head.startswith(_UTF_16) else ""
