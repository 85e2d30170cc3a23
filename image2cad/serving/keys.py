"""Who may come in: the keys, from the environment and from a file that is read again, and tries.

    keys = Keys(["one"], Path("keys.txt"), Limits())
    key = keys.known("one", address)                # the key, or None; TooManyTries
    cookie = keys.session(key)                      # for a visitor of the page
    keys.in_session(cookie)                         # whether it still opens the page

A key that is taken out of the file is of no use from the next request on, and the sessions that
were opened with it are over. Left out: where keys are asked for (api/guard.py).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from image2cad.common import InputError
from image2cad.serving.limits import Limits

LONG_KEY = 20  # letters; a key of so many cannot be guessed one after the other
SESSION_SECONDS = 12 * 3600
LOOK_SECONDS = 1.0  # between two looks at the file
MOST_ADDRESSES = 10_000  # whose wrong keys are counted
MOST_KEY_LETTERS = 1000
NETWORK_BITS = 64  # of an IPv6 address: what one subscriber has

KEY_LOG = logging.getLogger(__name__)


class TooManyTries(Exception):
    """Too many wrong keys came from an address. retry_after: seconds until it may try again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many wrong keys came from here; try again in {retry_after} s")
        self.retry_after = retry_after


class Keys:
    """The keys that are known now. False as a condition where none are asked for."""

    def __init__(
        self, given: Sequence[str] = (), file: Path | None = None, limits: Limits | None = None
    ) -> None:
        """file: has a key on each line; those that begin with # are left out.

        Raises InputError for a file that cannot be read or has no key.
        """
        self._given, self._file = tuple(given), file
        self._tries = Tries(limits or Limits())
        self._seen, self._looked = None if file is None else _mark(file), time.monotonic()
        self._read = () if file is None else _keys_in(file)

    def __bool__(self) -> bool:
        return bool(self._given) or self._file is not None

    def now(self) -> tuple[str, ...]:
        """All keys. The file is read again where it has changed.

        One that can no longer be read, or is empty, changes nothing: nobody is let in by mistake.
        """
        file, moment = self._file, time.monotonic()
        if file is not None and moment - self._looked >= LOOK_SECONDS:
            self._looked = moment
            mark = _mark(file)
            if mark != self._seen:
                self._seen = mark
                try:
                    self._read = _keys_in(file)
                    KEY_LOG.warning("the keys were read again: there are %d", len(self._read))
                except InputError as error:
                    KEY_LOG.error("the keys stay as they were: %s", error)
        return self._given + self._read

    def short(self) -> bool:
        """Whether a key is so short that it can be guessed."""
        return any(len(key) < LONG_KEY for key in self.now())

    def known(self, text: str, address: str) -> str | None:
        """The key that `text` is, or None, which counts as a try of `address`.

        All keys are compared, each in constant time, so that the time says nothing of them. Raises
        TooManyTries where the address has no tries left, unless `text` is a long key: who has one
        is let in whatever else comes from where he is.
        """
        found = None
        if len(text) <= MOST_KEY_LETTERS:
            sent = text.encode("utf-8", "surrogatepass")
            for key in self.now():
                if hmac.compare_digest(sent, key.encode()):
                    found = key
        if found is not None and len(found) >= LONG_KEY:
            return found
        self._tries.check(address)
        if found is None:
            self._tries.wrong(address)
        return found

    # ---- Sessions of the page: nothing is kept, a cookie proves that its key was shown

    def session(self, key: str) -> str:
        """What a visitor keeps who has shown this key."""
        until = str(int(time.time()) + SESSION_SECONDS)
        return f"{until}.{_proof(key, until)}"

    def in_session(self, cookie: str) -> bool:
        """Whether this is a session of a key that is still known, and not over."""
        until, _, proof = cookie.partition(".")
        if not (until.isdecimal() and until.isascii() and len(until) < 20):
            return False
        sent = proof.encode("utf-8", "surrogatepass")
        same = [hmac.compare_digest(sent, _proof(key, until).encode()) for key in self.now()]
        return any(same) and int(until) > time.time()


class Tries:
    """Counts wrong keys by address."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._seconds = limits.tries, limits.tries_seconds
        self._wrong: dict[str, tuple[int, float]] = {}  # address: how many, until when they count

    def check(self, address: str) -> None:
        """Raise TooManyTries where this address has none left."""
        count, until = self._wrong.get(network(address), (0, 0.0))
        left = until - time.monotonic()
        if count >= self._most and left > 0:
            raise TooManyTries(int(left) + 1)

    def wrong(self, address: str) -> None:
        """Count a wrong key."""
        name, moment = network(address), time.monotonic()
        count, until = self._wrong.pop(name, (0, 0.0))
        if until <= moment:
            count, until = 0, moment + self._seconds
        self._wrong[name] = (count + 1, until)
        while len(self._wrong) > MOST_ADDRESSES:  # the one that was quiet for longest
            self._wrong.pop(next(iter(self._wrong)))


def network(address: str) -> str:
    """What an address counts as: itself, or for IPv6 the network of its subscriber."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, NETWORK_BITS), strict=False))
    return str(parsed)


def _proof(key: str, until: str) -> str:
    return hmac.digest(key.encode(), f"image2cad session until {until}".encode(), "sha256").hex()


def _mark(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; a mounted secret is replaced, not written."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _keys_in(file: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeError) as error:
        raise InputError(f"the key file {file} cannot be read: {error}") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise InputError(f"the key file {file} holds no key; write one on each line")
    return keys
