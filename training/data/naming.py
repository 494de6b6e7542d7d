"""How a study is named in what is written: its place below the data's folder, UIDs as a short hash. Pure.

A UID leads to a patient wherever the scans are; its hash does only for who has them (`triage data find`). Folders and
files keep the names that they have, UIDs in them excepted.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePath

HASH_DIGITS = 10
UID = re.compile(r"(?<!\d)(?<!\d\.)[0-2](?:\.\d+){3,}(?!\d)")  # PS3.5 9.1; wherever it stands in a name


def hashed(uid: str) -> str:
    """`uid-` and the first digits of its SHA-256."""
    return f"uid-{hashlib.sha256(uid.encode()).hexdigest()[:HASH_DIGITS]}"


def named(text: str, *roots: PurePath | None) -> str:
    """A place or a sentence as it may be written: below the names of these folders and files, UIDs hashed."""
    for root in roots:
        if root is not None and root.name:
            text = text.replace(str(root), root.name)
    return UID.sub(lambda found: hashed(found[0]), text)
