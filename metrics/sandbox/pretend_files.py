"""A folder that exists only in the memory of one child: what a program writes, it can read again.

Nothing is ever written to a disk, and the layers around the child stay as they are: Python's ways
to files (`open`, `pathlib`, `tempfile`, `os.path`, ...) look here first. Any path can be written.
An export is kept as the shapes that it holds, and becomes a file's bytes when somebody asks for
them. A courtesy to honest programs, not a protection: whoever goes round it meets the layers.

Leaves out: files that compiled code opens by itself (an OCP writer called directly), libraries that
kept Python's `open` when they were imported, appending to a real file.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import itertools
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

HOME = "/home/user"
TEMPORARY = "/tmp"
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NULL_STREAM = 1  # standard output, which goes nowhere: an open file that takes whatever is written

Content = bytes | Callable[[], bytes]


class PretendFiles:
    """Paths, made absolute, and what was written there; and the folders that were made."""

    def __init__(self) -> None:
        self.here = "/"
        self.writing = False  # whether an exporter is about to write what was exported before
        self.folders = {HOME, TEMPORARY}
        self._files: dict[str, Content] = {}
        self._count = itertools.count()

    @contextlib.contextmanager
    def as_exporter(self) -> Iterator[None]:
        """For an exporter that writes what was exported before."""
        self.writing = True
        try:
            yield
        finally:
            self.writing = False

    def path(self, path: Any) -> str:
        """The path, absolute and as a string. Raises TypeError for what is none."""
        text = os.fsdecode(os.fspath(path))
        return os.path.normpath(os.path.join(self.here, text))

    def has(self, path: Any) -> bool:
        """Whether a program wrote there."""
        return not isinstance(path, int) and self.path(path) in self._files

    def is_folder(self, path: Any) -> bool:
        """Whether a program made that folder, or wrote something in it."""
        if isinstance(path, int) or self.has(path):
            return False
        inside = self.path(path) + "/"
        return any(f"{one}/".startswith(inside) for one in (*self.folders, *self._files))

    def put(self, path: Any, content: Content) -> None:
        """Keep a file; a function is called once its bytes are needed."""
        self._files[self.path(path)] = content

    def get(self, path: Any) -> bytes:
        """The bytes of a file. Raises KeyError if there is none."""
        name = self.path(path)
        content = self._files[name]
        if callable(content):
            content = self._files[name] = content()
        return content

    def drop(self, path: Any) -> Content:
        """Forget a file and return what it was. Raises KeyError if there is none."""
        return self._files.pop(self.path(path))

    def drop_tree(self, path: Any) -> None:
        """Forget a folder with all that is in it."""
        inside = self.path(path) + "/"
        self.folders = {one for one in self.folders if not f"{one}/".startswith(inside)}
        for name in [one for one in self._files if one.startswith(inside)]:
            del self._files[name]

    def names(self, path: Any) -> list[str]:
        """The names of what a program put into a folder."""
        inside = self.path(path).rstrip("/") + "/"
        found = [one[len(inside) :].partition("/")[0] for one in (*self._files, *self.folders)
                 if one.startswith(inside) and one != inside]  # fmt: skip
        return sorted({*found})

    def unused(self, prefix: str | None, suffix: str | None, folder: Any) -> str:
        """A path that nobody used yet, as `tempfile` gives it."""
        name = f"{prefix or 'tmp'}{next(self._count)}{suffix or ''}"
        return os.path.join(os.fsdecode(folder or TEMPORARY), name)

    def open(self, path: Any, mode: str, encoding: Any, errors: Any, newline: Any) -> Any:
        """A file to write, or one that was written before. Raises FileExistsError ("x")."""
        if "x" in mode and self.has(path):
            raise FileExistsError(17, os.strerror(17), str(path))
        old = b"" if "w" in mode or "x" in mode or not self.has(path) else self.get(path)
        if not any(letter in mode for letter in "wax+"):
            kept: io.BytesIO = _Named(path, old)
        else:
            kept = _Kept(self, path, old)
            kept.seek(0, io.SEEK_END if "a" in mode else io.SEEK_SET)
        if "b" in mode:
            return kept
        return io.TextIOWrapper(kept, encoding or "utf-8", errors, newline)


class _Named(io.BytesIO):
    def __init__(self, path: Any, data: bytes) -> None:
        super().__init__(data)
        self.name = path


class _Kept(_Named):
    """A file that is being written; what it holds stays when it is flushed or closed."""

    def __init__(self, files: PretendFiles, path: Any, data: bytes) -> None:
        super().__init__(path, data)
        self._files, self._changed = files, True
        self.flush()

    def write(self, data: Any) -> int:
        self._changed = True
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._changed = True
        return super().truncate(size)

    def flush(self) -> None:
        # Only what was written here: an export may have gone to the same path meanwhile.
        if self._changed and not self.closed:
            self._files.put(self.name, self.getvalue())
            self._changed = False

    def close(self) -> None:
        self.flush()
        super().close()


# ---- Python's ways to files


def stand_in(files: PretendFiles) -> None:
    """Make Python's own functions look into `files` first, in this process for good."""
    _open_there(files)
    _look_there(files)
    _change_there(files)
    _temporary_there(files)
    os.environ.update(HOME=HOME, TMPDIR=TEMPORARY, USER="user", LOGNAME="user")


def _open_there(files: PretendFiles) -> None:
    real_open, real_os_open = builtins.open, os.open

    def open_(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
        newline: Any = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        writes = any(letter in mode for letter in "wax+")
        if isinstance(file, int) or not (writes or files.has(file)):
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if "r" in mode and not files.has(file):  # "r+" wants what is there
            raise FileNotFoundError(2, os.strerror(2), str(file))
        return files.open(file, mode, encoding, errors, newline)

    def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not flags & WRITE_FLAGS or dir_fd is not None:
            return real_os_open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_EXCL and files.has(path):
            raise FileExistsError(17, os.strerror(17), str(path))
        if flags & os.O_TRUNC or not files.has(path):
            files.put(path, b"")
        return os.dup(NULL_STREAM)

    builtins.open = io.open = open_
    os.open = os_open
    # numpy reads and writes text by the `open` that it found when it was imported
    by_ending = getattr(sys.modules.get("numpy.lib._datasource"), "_file_openers", None)
    if by_ending is not None:
        by_ending._file_openers[None] = open_


def _look_there(files: PretendFiles) -> None:
    real_access, real_listdir, real_scandir = os.access, os.listdir, os.scandir

    def stat_as(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if files.has(path):
                return _status(stat.S_IFREG | 0o600, len(files.get(path)))
            if files.is_folder(path):
                return _status(stat.S_IFDIR | 0o700, 0)
            return real(path, *arguments, **options)

        return call

    def access(path: Any, mode: int, **options: Any) -> bool:
        return files.has(path) or files.is_folder(path) or real_access(path, mode, **options)

    def listdir(path: Any = None) -> list[str]:
        if isinstance(path, int):
            return real_listdir(path)
        path = "." if path is None else path
        names = files.names(path)
        if names or files.is_folder(path) or files.path(path) == files.here:
            return names
        return real_listdir(path)

    def scandir(path: Any = None) -> Any:
        if isinstance(path, int) or not (names := files.names("." if path is None else path)):
            return real_scandir("." if path is None else path)
        folder = "." if path is None else os.fsdecode(path)
        return _Entries([_Entry(name, os.path.join(folder, name)) for name in names])

    def chdir(path: Any) -> None:
        files.here = files.path(path)

    os.stat, os.lstat = stat_as(os.stat), stat_as(os.lstat)
    os.access, os.chdir = access, chdir
    os.listdir = listdir  # type: ignore[assignment]
    os.scandir = scandir
    os.getcwd = lambda: files.here


def _status(mode: int, size: int) -> os.stat_result:
    now = int(time.time())
    return os.stat_result((mode, 1, 1, 1, os.getuid(), os.getgid(), size, now, now, now))


@dataclass(frozen=True)
class _Entry:
    """As `os.DirEntry`."""

    name: str
    path: str

    def __fspath__(self) -> str:
        return self.path

    def is_dir(self, **_: Any) -> bool:
        return os.path.isdir(self.path)

    def is_file(self, **_: Any) -> bool:
        return os.path.isfile(self.path)

    def is_symlink(self) -> bool:
        return False

    def stat(self, **_: Any) -> os.stat_result:
        return os.stat(self.path)


class _Entries:
    """As what `os.scandir` returns."""

    def __init__(self, entries: list[_Entry]) -> None:
        self._left = iter(entries)

    def __iter__(self) -> _Entries:
        return self

    def __next__(self) -> _Entry:
        return next(self._left)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _change_there(files: PretendFiles) -> None:
    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if files.path(path) in files.folders:
            raise FileExistsError(17, os.strerror(17), str(path))
        files.folders.add(files.path(path))

    def makedirs(name: Any, mode: int = 0o777, exist_ok: bool = False) -> None:
        with contextlib.suppress(FileExistsError):
            mkdir(name)

    def remove_by(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> None:
            if files.has(path):
                files.drop(path)
            else:
                real(path, *arguments, **options)

        return call

    def rename_by(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **options: Any) -> None:
            if files.has(source):
                files.put(target, files.drop(source))
            else:
                real(source, target, **options)

        return call

    def only_elsewhere(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if not (files.has(path) or files.is_folder(path)):
                return real(path, *arguments, **options)

        return call

    real_rmtree, real_rmdir = shutil.rmtree, os.rmdir

    def rmtree(path: Any, *arguments: Any, **options: Any) -> None:
        if files.is_folder(path):
            files.drop_tree(path)
        else:
            real_rmtree(path, *arguments, **options)

    def rmdir(path: Any, **options: Any) -> None:
        if files.is_folder(path):
            files.drop_tree(path)
        else:
            real_rmdir(path, **options)

    os.mkdir, os.makedirs, os.rmdir = mkdir, makedirs, rmdir
    os.remove, os.unlink = remove_by(os.remove), remove_by(os.unlink)
    os.rename, os.replace = rename_by(os.rename), rename_by(os.replace)
    os.chmod, os.utime = only_elsewhere(os.chmod), only_elsewhere(os.utime)
    shutil.rmtree = rmtree  # type: ignore[assignment]


def _temporary_there(files: PretendFiles) -> None:
    def mkdtemp(suffix: Any = None, prefix: Any = None, dir: Any = None) -> str:
        path = files.unused(prefix, suffix, dir)
        files.folders.add(files.path(path))
        return path

    def mkstemp(
        suffix: Any = None, prefix: Any = None, dir: Any = None, text: bool = False
    ) -> tuple[int, str]:
        path = files.unused(prefix, suffix, dir)
        files.put(path, b"")
        return os.dup(NULL_STREAM), path

    def named(
        mode: str = "w+b", buffering: int = -1, encoding: Any = None, newline: Any = None,
        suffix: Any = None, prefix: Any = None, dir: Any = None, delete: bool = True,
        *, errors: Any = None, delete_on_close: bool = True,
    ) -> Any:  # fmt: skip
        path = files.unused(prefix, suffix, dir)
        return files.open(path, mode, encoding, errors, newline)

    class Folder:
        """As `tempfile.TemporaryDirectory`, with a statement `with` or without one."""

        def __init__(
            self, suffix: Any = None, prefix: Any = None, dir: Any = None, *_: Any, **__: Any
        ) -> None:
            self.name = mkdtemp(suffix, prefix, dir)

        def __enter__(self) -> str:
            return self.name

        def __exit__(self, *_: Any) -> None:
            self.cleanup()

        def cleanup(self) -> None:
            files.drop_tree(self.name)

    tempfile.tempdir = TEMPORARY
    tempfile.mkdtemp, tempfile.mkstemp = mkdtemp, mkstemp  # type: ignore[assignment]
    tempfile.NamedTemporaryFile = tempfile.TemporaryFile = named
    tempfile.TemporaryDirectory = Folder  # type: ignore[misc,assignment]
