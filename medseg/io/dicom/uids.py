"""UIDs that follow from what an object holds, so that the same input and model give the same object."""

from __future__ import annotations

import json
import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "medseg/dicom")


def derive_uid(kind: str, *parts: str) -> str:
    """`2.25.` and a UUIDv5 as an integer (PS3.5 B.2) over a kind and the parts that make the object what it is."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps([kind, *parts])).int}"
