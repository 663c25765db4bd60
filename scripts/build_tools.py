"""cmake and libclang, which the build of llama.cpp needs: found, or installed. And flags for its kernels.

What cargo cannot find by itself is written to `.tools/cargo.toml`, which `.cargo/config.toml` includes: so a plain
`cargo build` works too, with no variable to export. A variable set by the user wins over that file.
"""
from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import debian
import libclang
import local_venv
from console import TOOLS, SetupError, output, say

CARGO_CONFIG = TOOLS / "cargo.toml"
CMAKE_OLDEST = (3, 14)
WHEELS = ["cmake==3.31.6", "libclang==18.1.1"]


def ensure(source: str) -> None:
    """Sees to it that `cargo build` finds both; `source` is where they may come from: auto, apt or wheels."""
    check_given()
    if source == "auto" and earlier_choice_works():
        return
    if not compiler_found() and not debian.available():
        raise SetupError("no C++ compiler: install g++ (or clang++)")
    if source == "wheels":
        use_wheels()
        return
    packages = missing_packages()
    if not packages:
        write_config(builtin_headers())
        return
    if not debian.available():
        if source == "apt":
            raise SetupError("--tools apt needs root and apt-get")
        use_wheels()
        return
    try:
        debian.refresh()
        debian.install(packages)
    except SetupError as error:
        if source == "apt":
            raise
        say(f"no Debian packages ({error}); taking wheels")
        use_wheels()
        return
    install_ccache()
    left = missing_packages()
    if left:
        raise SetupError(f"installed, but still not found: {' '.join(left)}")
    write_config(builtin_headers())


def check_given() -> None:
    """A variable that the user set wins over all we could do, so it had better be right."""
    for name, works in (("CMAKE", lambda: cmake_version() >= CMAKE_OLDEST), ("LIBCLANG_PATH", libclang.find)):
        if os.environ.get(name) and not works():
            raise SetupError(f"{name} is set to {os.environ[name]}, which does not work: correct it or unset it")


def compiler_found() -> bool:
    """Whether there is a C++ compiler."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def earlier_choice_works() -> bool:
    """Whether an earlier run wrote a configuration whose files are all still there, with the flags of this machine."""
    if not CARGO_CONFIG.exists():
        return False
    text = CARGO_CONFIG.read_text()
    if not all(f'{key} = "{flags}"' in text for key, flags in kernel_flags().items()):
        return False
    paths = re.findall(r'= "(?:-I)?(/[^"]*)"', text)
    if not paths or not all(Path(path).exists() for path in paths):
        return False
    return ("CMAKE" in text or cmake_version() >= CMAKE_OLDEST) and ("LIBCLANG_PATH" in text or libclang.find() is not None)


def missing_packages() -> list[str]:
    """The Debian packages that would bring what is not found."""
    packages = []
    if cmake_version() < CMAKE_OLDEST:
        packages.append("cmake")
    if libclang.find() is None:
        packages.append("libclang-dev")
    if not compiler_found():
        packages.append("g++")
    if shutil.which("make") is None and shutil.which("ninja") is None:
        packages.append("make")
    return packages


def cmake_version() -> tuple[int, ...]:
    """Version of the cmake that the build would run; (0,) when there is none."""
    words = output(os.environ.get("CMAKE", "cmake"), "--version").split()
    return tuple(int(part) for part in words[2].split(".")[:2] if part.isdigit()) if len(words) > 2 else (0,)


def install_ccache() -> None:
    """Makes the second profile's build of llama.cpp nearly free; a machine without it is fine."""
    if shutil.which("ccache") is None:
        try:
            debian.install(["ccache"])
        except SetupError:
            say("no ccache: going on without it")


def builtin_headers() -> dict[str, str]:
    """What bindgen must be told when the libclang found has no headers of its own (stddef.h and the like)."""
    found = libclang.find()
    if found is None or libclang.parses_c(found, []):
        return {}
    return compiler_headers(found)


def compiler_headers(library: Path) -> dict[str, str]:
    """The C compiler's headers in place of libclang's own, after a try that they serve."""
    include = output("gcc", "-print-file-name=include") or output("cc", "-print-file-name=include")
    flag = f"-I{include}"
    if not include or not libclang.parses_c(library, [flag]):
        raise SetupError(f"{library} cannot parse C: its own headers are missing and gcc's do not serve; install libclang-dev")
    return {"BINDGEN_EXTRA_CLANG_ARGS": flag}


def use_wheels() -> None:
    """cmake and libclang from wheels in `.tools/venv`."""
    say(f"installing {' and '.join(WHEELS)} into .tools/venv")
    local_venv.install(*WHEELS)
    packages = Path(output(str(local_venv.PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"))
    cmake = packages / "cmake" / "data" / "bin" / "cmake"
    native = packages / "clang" / "native"
    library = native / ("libclang.dylib" if sys.platform == "darwin" else "libclang.so")
    for file in (cmake, library):
        if not file.exists():
            raise SetupError(f"the wheel did not bring {file}")
    variables = {"CMAKE": str(cmake), "LIBCLANG_PATH": str(native)}
    if not libclang.parses_c(library, []):
        variables.update(compiler_headers(library))
    write_config(variables)


def kernel_flags() -> dict[str, str]:
    """Keeps half-precision arithmetic out of ggml's C++ kernels where the compiler would use it for this processor.

    With it they take 128 halves at a time and leave shorter vectors, as heads of 64 elements are, to scalar code: on a Xeon
    (Sapphire Rapids) with GCC 12 a token after 2,000 others took 37 ms in place of 18. Older compilers do not know the flag.
    """
    macros = output("c++", "-march=native", "-dM", "-E", "-x", "c++", "/dev/null")
    return {"CXXFLAGS_x86_64_unknown_linux_gnu": "-mno-avx512fp16"} if "__AVX512FP16__" in macros else {}


def write_config(variables: dict[str, str]) -> None:
    """Writes what cargo shall export to build scripts; no file when there is nothing to say."""
    variables = {**kernel_flags(), **variables}
    if not variables:
        CARGO_CONFIG.unlink(missing_ok=True)
        return
    lines = ["# Written by scripts/setup.py; read by cargo through `include` in .cargo/config.toml.", "[env]"]
    lines += [f'{key} = "{value}"' for key, value in sorted(variables.items())]
    text = "\n".join(lines) + "\n"
    # Unchanged content keeps its time stamp.
    if not CARGO_CONFIG.exists() or CARGO_CONFIG.read_text() != text:
        CARGO_CONFIG.write_text(text)
