"""A kernel unpacked beforehand, so that a VMM enters it at once.

Source: Linux, Documentation/arch/x86/boot.rst (payload_offset, payload_length).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from harness import places
from harness.errors import Unavailable

ELF = b"\x7fELF"
LZ4_BLOCK = 8 * 2**20


def unpacked(image: Path, sha256: str) -> Path:
    """The kernel of that digest as an ELF image, unpacked once from the bzImage where that is what there is.

    Raises Unavailable where it is packed in a way that cannot be unpacked here.
    """
    with image.open("rb") as content:
        if content.read(4) == ELF:
            return image
    target = places.cache() / "kernels" / f"vmlinux-{sha256[:16]}"
    return places.made_once(target, lambda draft: _unpack(image, draft), "unpacking the guest kernel")


def _unpack(image: Path, draft: Path) -> None:
    content = image.read_bytes()
    if content[0x202:0x206] != b"HdrS":
        raise Unavailable(f"{image} is no bzImage that could be unpacked", "take a profile that starts it as it is")
    start = (content[0x1F1] + 1) * 512  # the real mode code comes first: setup_sects and the boot sector
    offset, length = struct.unpack_from("<II", content, 0x248)
    packed = content[start + offset : start + offset + length]
    for magic, unpack in _PACKED.items():
        if packed.startswith(magic):
            plain = unpack(packed)
            break
    else:
        raise Unavailable(
            f"the kernel is packed in a way that cannot be unpacked here (it begins with {packed[:4].hex()})",
            "name an unpacked vmlinux by --kernel",
        )
    if not plain.startswith(ELF):
        raise Unavailable("what the kernel's image holds is no ELF file", "name an unpacked vmlinux by --kernel")
    draft.write_bytes(plain)
    draft.chmod(0o644)


def _unpack_lz4(packed: bytes) -> bytes:
    """LZ4's legacy frames: a magic, then blocks with their sizes before them; the kernel adds the whole size.

    Source: LZ4 frame format, legacy frame; Linux, scripts/Makefile.lib (size_append).
    """
    from lz4 import block

    plain, at = bytearray(), 4
    while at + 4 < len(packed):
        size = int.from_bytes(packed[at : at + 4], "little")
        plain += block.decompress(packed[at + 4 : at + 4 + size], uncompressed_size=LZ4_BLOCK)
        at += 4 + size
    return bytes(plain)


_PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x02\x21\x4c\x18": _unpack_lz4,
    b"\x1f\x8b": lambda packed: zlib.decompressobj(wbits=31).decompress(packed),
    b"\xfd7zXZ": lambda packed: lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed),
    b"BZh": lambda packed: bz2.BZ2Decompressor().decompress(packed),
    b"\x5d\x00": lambda packed: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(packed),
}
"""By what it begins with."""
