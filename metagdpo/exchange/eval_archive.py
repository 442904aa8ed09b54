"""Members of Inspect's .eval files: zip archives whose JSON members are deflated or, since 2025, compressed by zstd.

Python's zipfile decompresses zstd from 3.14 on; before, pyarrow does, which `datasets` brings along. Members are read
into memory by their names in the archive's index; nothing is ever unpacked onto the disk.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from metagdpo.errors import DataError
from metagdpo.exchange.stated import LARGEST, parse_object, refuse

_ZSTD = 93
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., length of the name, length of the extra field
_CONVERT = "Convert it with Inspect: `inspect log convert FILE --to json --output-dir OUT`"


def members(path: Path) -> list[zipfile.ZipInfo]:
    """The archive's index.

    Raises:
        DataError: It is no zip archive, or a name is in it twice.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        refuse(path.name, f"is no .eval archive ({error}); an evaluation that still runs has no index yet")
    names = [member.filename for member in found]
    if len(set(names)) < len(names):
        refuse(path.name, "has two members of one name")
    return found


def read_member(path: Path, member: zipfile.ZipInfo) -> dict[str, Any]:
    """One JSON member.

    Raises:
        DataError: It is too large, damaged, compressed in another way, or not a JSON object.
    """
    where = f"{path.name}: {member.filename}"
    if member.file_size > LARGEST:
        refuse(where, f"says it has {member.file_size:,} bytes, more than {LARGEST:,}")
    if member.flag_bits & 1:
        refuse(where, "is encrypted")
    try:
        data = _zstd(path, member, where) if member.compress_type == _ZSTD else _plain(path, member)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
        refuse(where, f"is damaged: {error}")
    except NotImplementedError as error:
        raise DataError(f"{where} is compressed in a way that is not supported here ({error}). {_CONVERT}.") from error
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        refuse(where, "is damaged: length or checksum differ from the archive's index")
    return parse_object(data, where)


def _plain(path: Path, member: zipfile.ZipInfo) -> bytes:
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        return stream.read(member.file_size + 1)


def _zstd(path: Path, member: zipfile.ZipInfo, where: str) -> bytes:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs
    except ImportError as error:
        raise DataError(
            f"{where} is compressed by zstd, which needs pyarrow: `pip install pyarrow`. {_CONVERT}."
        ) from error
    packed = pa.BufferReader(_packed(path, member))
    with pa.CompressedInputStream(packed, "zstd") as stream:
        unpacked = io.BytesIO()
        while unpacked.tell() <= member.file_size and (block := stream.read(1 << 20)):
            unpacked.write(block)
    return unpacked.getvalue()


def _packed(path: Path, member: zipfile.ZipInfo) -> bytes:
    """The member's bytes as they lie in the archive, behind their local header."""
    with path.open("rb") as stream:
        stream.seek(member.header_offset)
        header = stream.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("no local header where the index says")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        stream.seek(name + extra, io.SEEK_CUR)
        return stream.read(min(member.compress_size, LARGEST))
