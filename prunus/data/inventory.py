"""The inventory of a data set in a run's records, to detect whether the data have changed."""

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

from prunus.data.interface import Data, Split
from prunus.data.listing import listing_of


def inventory(data: Data) -> dict[str, Any]:
    """Return the class names, and for each split the number of samples and the SHA-256 of its file list."""
    splits = {"train": data.train(), "validation": data.validation(), "test": data.test()}
    return {"class_names": list(data.class_names), **{name: _of(split) for name, split in splits.items()}}


def _of(split: Split) -> dict[str, Any]:
    source = getattr(split, "source", None)
    digest = hashlib.sha256()
    for line in listing_of(source):
        digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return {"samples": len(split), "files": digest.hexdigest()}


def inventory_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return one line per difference between two inventories; no lines if the first is empty."""
    if not there or there == here:
        return []
    old, new = there.get("class_names", []), here["class_names"]
    pairs = itertools.zip_longest(old, new, fillvalue="none")
    found = [f"class {i} was {a} and is {b}" for i, (a, b) in enumerate(pairs) if a != b][:3]
    for name in ("train", "validation", "test"):
        was, now = there.get(name, {}), here[name]
        if was.get("samples") != now["samples"]:
            found.append(f"the {name} split had {was.get('samples')} samples and has {now['samples']}")
        elif was.get("files") != now["files"]:
            found.append(f"the {name} split has as many samples, but other files or labels")
    return found
