"""Decide whether this user ran the run in a folder: only then is its recipe, which names code, run without asking.

A run signs the recipe in its folder (HMAC-SHA256) with a key that only this user can read,
`$XDG_STATE_HOME/prunus/key`. A folder from somebody else has no valid signature, nor has one whose recipe was changed.
"""

import hashlib
import hmac
import os
import secrets
import sys
from pathlib import Path

from prunus.decoding import SETTINGS, DecodingError, read_bytes
from prunus.errors import RecipeError
from prunus.terminal import visible
from prunus.writing import write_whole

RECIPE, SIGNATURE = "recipe.yaml", ".ran-by-me"
KEY_BYTES = 32


def sign(folder: Path) -> None:
    """Sign the recipe in `folder`, which this user runs; if no key can be stored, `--trust` is needed later."""
    try:
        key = _key(make=True)
        if key is not None:
            write_whole(folder / SIGNATURE, _digest(key, folder).encode())
    except (OSError, DecodingError):
        return


def is_own(folder: Path) -> bool:
    """Whether this user ran the recipe in `folder`."""
    try:
        key = _key(make=False)
        found = read_bytes(folder / SIGNATURE, 1024, follow=False)
        return key is not None and hmac.compare_digest(found, _digest(key, folder).encode())
    except (OSError, DecodingError):
        return False


def require(folder: Path, *, trusted: bool) -> None:
    """Accept a run's folder whose code may be run: the user's own, a `trusted` one, or one confirmed at the terminal.

    Raises:
        RecipeError: the folder is none of these; says what to do.
    """
    if trusted or not (folder / RECIPE).exists() or is_own(folder):
        return
    text = (
        f"{folder} is not a run of yours, or its recipe was changed. What its {RECIPE} names is imported and run, like "
        "any program of whoever made it"
    )
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{visible(text)}. Continue? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise RecipeError(f"{text}: read it, then give --trust")


def _digest(key: bytes, folder: Path) -> str:
    return hmac.new(key, read_bytes(folder / RECIPE, SETTINGS.size, follow=False), hashlib.sha256).hexdigest()


def _key(*, make: bool) -> bytes | None:
    """Return the user's key; None where there is none, or where others can access it."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "prunus" / "key"
    if not path.exists() and make:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
    if not path.exists():
        return None
    status = path.stat()
    key = read_bytes(path, KEY_BYTES)
    return key if status.st_uid == os.getuid() and not status.st_mode & 0o077 and len(key) == KEY_BYTES else None
