"""The files of onnxruntime-web that a page needs: from a folder, an archive, the cache, or fetched once by npm.

They are 41 MB of another project and not part of fgonnx. Of the package only the entries "wasm" and "webgpu" are used;
the default one bundles a provider that ONNX Runtime is about to remove.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgonnx.engine.graph.kept import folder_of
from fgonnx.errors import OptionError
from fgonnx.files import make_folder, parsed, read, read_text, replacing
from fgonnx.wording import parameter

PACKAGE, VERSION, OLDEST = "onnxruntime-web", "1.30.0", (1, 30)

WASM = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")

#: SHA-256 of the files of `VERSION`: what npm fetches is used if it has them.
DIGESTS: Mapping[str, str] = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
_MOST_BYTES = 200_000_000  # of one file in an archive
_PATIENCE = 600  # seconds that npm may take


@dataclass(frozen=True)
class Runtime:
    """Files of onnxruntime-web.

    Attributes
    ----------
    version : str
        Its version, "?" where a folder does not say.
    files : dict of str to bytes
        The files by name.
    """

    version: str
    files: dict[str, bytes]


def find(given: Path | None, *, webgpu: bool, say: Callable[[str], None] = lambda text: None) -> Runtime:
    """Return the files of onnxruntime-web.

    Parameters
    ----------
    given : Path or None
        The folder of the npm package (or its `dist`, or one whose `node_modules` holds it), or its .tgz. None: the
        cache, or npm.
    webgpu : bool
        Whether the files for WebGPU are among them.
    say : callable
        Hears a sentence when something is fetched.

    Raises
    ------
    OptionError
        They are not there, are too old, or cannot be fetched.
    """
    names = [*WASM, *(WEBGPU if webgpu else ())]
    if given is not None:
        return _of_archive(given, names) if given.is_file() else _of_folder(given, names)
    kept = _cache()
    if kept is not None and all((kept / name).is_file() for name in names):
        files = {name: read(kept / name, OptionError) for name in names}
        if all(_right(name, content) for name, content in files.items()):
            return Runtime(VERSION, files)
    found = _fetched(say)
    if kept is not None:
        make_folder(kept)
        for name, content in found.files.items():
            with replacing(kept / name) as temporary:
                temporary.write_bytes(content)
    return Runtime(VERSION, {name: found.files[name] for name in names})


def _right(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == DIGESTS[name]


def _cache() -> Path | None:
    folder = folder_of(True)
    return None if folder is None else folder / f"{PACKAGE}-{VERSION}"


def _of_folder(folder: Path, names: list[str]) -> Runtime:
    for root in (folder, folder.parent, folder / "node_modules" / PACKAGE, folder / PACKAGE):
        described = root / "package.json"
        if described.is_file() and (root / "dist" / names[0]).is_file():
            version = _version(read_text(described, OptionError, "package file"), str(folder))
            return Runtime(version, {name: read(root / "dist" / name, OptionError) for name in names})
    if all((folder / name).is_file() for name in names):
        return Runtime("?", {name: read(folder / name, OptionError) for name in names})
    raise OptionError(
        f"{parameter('ort_web', folder)} holds no {PACKAGE}: looked for {', '.join(names)} there, in 'dist' and in "
        f"'node_modules/{PACKAGE}/dist'; 'npm install {PACKAGE}@{VERSION}' makes such a folder"
    )


def _version(text: str, where: str) -> str:
    known = parsed(text, f"package.json of '{where}'", OptionError)
    version = known.get("version") if isinstance(known, dict) else None
    name = known.get("name") if isinstance(known, dict) else None
    numbers = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if name != PACKAGE or numbers is None:
        raise OptionError(f"{parameter('ort_web', where)} is not the package {PACKAGE}; its package.json names another")
    if tuple(map(int, numbers.groups())) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise OptionError(f"{parameter('ort_web', where)} is version {version}; give {least} or newer")
    return str(version)


def _of_archive(path: Path, names: list[str]) -> Runtime:
    try:
        with tarfile.open(path, "r:gz") as archive:
            held = {m.name: m for m in archive.getmembers() if m.isfile() and m.size <= _MOST_BYTES}

            def content(name: str) -> bytes:
                file = archive.extractfile(held[f"package/{name}"])
                assert file is not None
                return file.read()

            version = _version(content("package.json").decode("utf-8", "replace"), str(path))
            return Runtime(version, {name: content(f"dist/{name}") for name in names})
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise OptionError(
            f"{parameter('ort_web', path)} is no archive of {PACKAGE} ({error}); 'npm pack {PACKAGE}@{VERSION}' "
            "writes one"
        ) from error


def _fetched(say: Callable[[str], None]) -> Runtime:
    """Let npm fetch the package, with the user's own settings for registries and proxies."""
    wanted = f"{PACKAGE}@{VERSION}"
    way_out = (
        f"fetch it where there is a network ('npm pack {wanted}') and give the .tgz or an installed folder by "
        f"{parameter('ort_web')}"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise OptionError(
            f"the page runs on {wanted}, which is not here, and npm is not installed to fetch it; {way_out}"
        )
    say(f"{wanted} is fetched by npm, once")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", wanted, "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False)
            said = done.stderr.strip().splitlines()
            failed = done.returncode != 0
        except (OSError, subprocess.TimeoutExpired) as error:
            failed, said = True, [str(error)]
        packed = sorted(Path(folder).glob("*.tgz"))
        if failed or len(packed) != 1:
            why = f" ({said[-1]})" if said else ""
            raise OptionError(f"the page runs on {wanted}, which npm could not fetch{why}; {way_out}")
        found = _of_archive(packed[0], [*WASM, *WEBGPU])
    for name, content in found.files.items():
        if not _right(name, content):
            raise OptionError(f"what npm fetched as {wanted} is not that: {name} has another hash; {way_out}")
    return found


def licence() -> str:
    """Return the licence of the files, which goes with them."""
    return _MIT


_MIT = (
    "ONNX Runtime Web\nCopyright (c) Microsoft Corporation\n\nMIT License\n\n"
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated "
    'documentation files (the "Software"), to deal in the Software without restriction, including without limitation '
    "the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and "
    "to permit persons to whom the Software is furnished to do so, subject to the following conditions:\n\n"
    "The above copyright notice and this permission notice shall be included in all copies or substantial portions of "
    "the Software.\n\n"
    'THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED '
    "TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE "
    "AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF "
    "CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS "
    "IN THE SOFTWARE.\n"
)
