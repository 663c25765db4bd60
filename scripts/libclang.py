"""Finds libclang where bindgen looks for it, and tries whether it can parse C."""
from __future__ import annotations

import ctypes
import glob
import os
from pathlib import Path

from console import output

# The folders and names that bindgen's loader (crate clang-sys) searches by itself.
FOLDERS = [
    "/usr/local/llvm*/lib*", "/usr/local/lib*/*/*", "/usr/local/lib*/*", "/usr/local/lib*",
    "/usr/lib*/*/*", "/usr/lib*/*", "/usr/lib*",
    "/usr/local/opt/llvm*/lib", "/opt/homebrew/opt/llvm*/lib",
    "/Library/Developer/CommandLineTools/usr/lib",
    "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
]
NAMES = ["libclang.so", "libclang-*.so", "libclang.so.*", "libclang-*.so.*", "libclang.dylib"]
SOURCE = b"#include <stdarg.h>\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n"


def find() -> Path | None:
    """The first libclang that loads, searched as bindgen does: LIBCLANG_PATH alone when it is set."""
    given = os.environ.get("LIBCLANG_PATH")
    if given:
        path = Path(given)
        return next((file for file in ([path] if path.is_file() else in_folder(given)) if loads(file)), None)
    folders = [output(os.environ.get("LLVM_CONFIG_PATH", "llvm-config"), "--libdir")]
    folders += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    for folder in [*filter(None, folders), *FOLDERS]:
        for file in in_folder(folder):
            if loads(file):
                return file
    return None


def in_folder(pattern: str) -> list[Path]:
    """Files named like libclang in the folders that a glob matches, newest version first."""
    files = {Path(file) for name in NAMES for file in glob.glob(os.path.join(pattern, name))}
    return sorted((file for file in files if "libclang-cpp" not in file.name), reverse=True)


def loads(file: Path) -> bool:
    """Whether the dynamic linker accepts it (a library for another architecture does not)."""
    try:
        ctypes.CDLL(str(file))
    except OSError:
        return False
    return True


class UnsavedFile(ctypes.Structure):
    """`struct CXUnsavedFile`."""

    _fields_ = [("name", ctypes.c_char_p), ("contents", ctypes.c_char_p), ("length", ctypes.c_ulong)]


def parses_c(library: Path, flags: list[str]) -> bool:
    """Whether this libclang gets through a file that includes the headers llama.h needs, without any diagnostic."""
    clang = ctypes.CDLL(str(library))
    clang.clang_createIndex.restype = ctypes.c_void_p
    clang.clang_parseTranslationUnit.restype = ctypes.c_void_p
    index = ctypes.c_void_p(clang.clang_createIndex(0, 0))
    source = UnsavedFile(b"try.c", SOURCE, len(SOURCE))
    arguments = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    unit = clang.clang_parseTranslationUnit(index, b"try.c", arguments, len(flags), ctypes.byref(source), 1, 0)
    return bool(unit) and clang.clang_getNumDiagnostics(ctypes.c_void_p(unit)) == 0
