"""Hostile archives, behind a web server."""

import functools
import gzip
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from aiohttp import web

from motet_api.reasons import AdapterReason as R
from tests.operator.store_sources.hostile import Hostile, always
from tests.operator.store_sources.hostile_http import PAGE
from tests.operator.store_sources.servers import CONFIG, GOOD

ZEROS = bytes(1 << 20)


def entry(
    name: str, data: bytes = b"{}", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(*files: tuple[str, bytes], mode: int = 0, flags: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    data = bytearray(out.getvalue())
    if flags:
        at = data.index(b"PK\x01\x02")
        data[at + 8] |= flags
        data[6] |= flags
    return bytes(data)


def twice_zipped() -> bytes:
    """zipfile warns of duplicates when it writes them, so the second name is put in by hand."""
    return zipped(("adapter_config.json", CONFIG), ("adapter_confiX.json", CONFIG)).replace(b"confiX", b"config")


def bomb(unpacked: int) -> bytes:
    """A gzip of one file of zeros, member by member: it needs no memory to make."""
    info = tarfile.TarInfo("adapter_model.safetensors")
    info.size = unpacked
    return gzip.compress(info.tobuf()) + gzip.compress(ZEROS, 9) * (unpacked >> 20)


def million_folders() -> bytes:
    block = b"".join(entry("a/", b"", tarfile.DIRTYPE)[0].tobuf() for _ in range(1000))
    return gzip.compress(block, 9) * 1000


def long_header() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    return info.tobuf() + ZEROS


def pax(name: str) -> bytes:
    info, data = entry("adapter_config.json")
    info.pax_headers = {"path": name}
    return tar((info, data), form=tarfile.PAX_FORMAT)


def pax_record(record: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    return info.tobuf() + record.ljust(512, b"\0") + tar(entry("adapter_config.json"))


GOOD_TAR = tar(*(entry(f"./churn/{name}", data) for name, data in GOOD.items()))
NESTED = zipped(("inner.zip", zipped(("inner.zip", zipped(("adapter_model.safetensors", ZEROS))))))


def _row(name: str, reason: R, ending: str, make: Callable[[], bytes] | bytes, says: str = "") -> Hostile:
    made = functools.cache(lambda: make if isinstance(make, bytes) else make())
    uri = f"http://{{host}}/adapter.{ending}"
    serve = always(lambda: web.Response(body=made()))
    return Hostile(f"{ending}: {name}", reason, serve, uri, says=says, prepare=made)


def _wrong_checksum() -> bytes:
    return zipped(("config.json", CONFIG)).replace(zlib.crc32(CONFIG).to_bytes(4, "little"), b"\0\0\0\0")


ARCHIVES = [
    _row("path upwards", R.INVALID_SOURCE, "tar", tar(entry("../adapter_config.json")), "'..'"),
    _row("path upwards inside", R.INVALID_SOURCE, "tar", tar(entry("a/../../adapter_config.json"))),
    _row("absolute path", R.INVALID_SOURCE, "tar", tar(entry("/etc/adapter_config.json"))),
    _row(
        "symbolic link", R.INVALID_SOURCE, "tar", tar(entry("config.json", b"", tarfile.SYMTYPE, "/etc/passwd")), "link"
    ),
    _row("hard link", R.INVALID_SOURCE, "tar", tar(entry("config.json", b"", tarfile.LNKTYPE, "/etc/passwd")), "link"),
    _row("device", R.INVALID_SOURCE, "tar", tar(entry("config.json", b"", tarfile.CHRTYPE)), "device"),
    _row("block device", R.INVALID_SOURCE, "tar", tar(entry("config.json", b"", tarfile.BLKTYPE)), "device"),
    _row("pipe", R.INVALID_SOURCE, "tar", tar(entry("config.json", b"", tarfile.FIFOTYPE)), "pipe"),
    _row("sparse file", R.INVALID_SOURCE, "tar", tar(entry("config.json", b"", tarfile.GNUTYPE_SPARSE)), "sparse"),
    _row("name twice", R.INVALID_SOURCE, "tar", tar(entry("config.json"), entry("./config.json")), "twice"),
    _row("two folders", R.INVALID_SOURCE, "tar", tar(entry("a/config.json"), entry("b/config.json"))),
    _row("nothing of use", R.SOURCE_NOT_FOUND, "tar", tar(entry("readme.md"))),
    _row("path upwards by an extended header", R.INVALID_SOURCE, "tar", lambda: pax("../../config.json")),
    _row("control characters", R.INVALID_SOURCE, "tar", tar(entry("a\x1b[2J/config.json"))),
    _row("extended header of a gigabyte", R.TOO_LARGE, "tar", long_header),
    _row("extended header that is none", R.INVALID_SOURCE, "tar", pax_record(b"99999999 path=x\n")),
    _row("extended header with a wrong size", R.INVALID_SOURCE, "tar", pax_record(b"11 size=-1\n")),
    _row("truncated in a file", R.INVALID_SOURCE, "tar", GOOD_TAR[:-200_000], "middle of a file"),
    _row("truncated in a header", R.INVALID_SOURCE, "tar", GOOD_TAR[:100], "middle of a header"),
    _row("noise", R.INVALID_SOURCE, "tar", os.urandom(4096)),
    _row("nothing", R.SOURCE_NOT_FOUND, "tar", b""),
    _row("page", R.INVALID_SOURCE, "tar", PAGE, "web page"),
    _row("truncated gzip", R.INVALID_SOURCE, "tar.gz", gzip.compress(GOOD_TAR)[:-100], "truncated"),
    _row("no gzip", R.INVALID_SOURCE, "tgz", GOOD_TAR),
    _row("gzip with a wrong checksum", R.INVALID_SOURCE, "tgz", gzip.compress(GOOD_TAR)[:-8] + bytes(8)),
    _row("gzip bomb", R.TOO_LARGE, "tar.gz", lambda: bomb(1 << 30)),
    _row(
        "gzip bomb that lies about the file's size",
        R.TOO_LARGE,
        "tar.gz",
        lambda: gzip.compress(tar(entry("a.txt"))) + bomb(1 << 28),
    ),
    _row("a million folders", R.TOO_LARGE, "tgz", million_folders),
    _row("forty files", R.TOO_LARGE, "tar", tar(*(entry(f"{i}.json") for i in range(40))), "32"),
    _row("path upwards", R.INVALID_SOURCE, "zip", zipped(("../config.json", CONFIG))),
    _row("path of another system", R.INVALID_SOURCE, "zip", zipped(("..\\config.json", CONFIG))),
    _row("absolute path", R.INVALID_SOURCE, "zip", zipped(("/config.json", CONFIG))),
    _row("symbolic link", R.INVALID_SOURCE, "zip", zipped(("config.json", b"/etc/passwd"), mode=0o120777)),
    _row("encrypted", R.INVALID_SOURCE, "zip", zipped(("config.json", CONFIG), flags=1)),
    _row("name twice", R.INVALID_SOURCE, "zip", twice_zipped(), "twice"),
    _row("bomb", R.TOO_LARGE, "zip", lambda: zipped(("adapter_model.safetensors", ZEROS * 32))),
    _row("bomb in a bomb", R.SOURCE_NOT_FOUND, "zip", NESTED),
    _row(
        "twenty thousand entries", R.TOO_LARGE, "zip", lambda: zipped(*((f"{i:060}.json", b"") for i in range(20_000)))
    ),
    _row("truncated", R.INVALID_SOURCE, "zip", zipped(("config.json", CONFIG))[:-10]),
    _row("wrong checksum", R.INVALID_SOURCE, "zip", _wrong_checksum),
    _row("no zip", R.INVALID_SOURCE, "zip", zlib.compress(b"x")),
]
