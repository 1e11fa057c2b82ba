"""
The canaries: words that occur nowhere else, made from the name of the place where they are planted.

So the test and the processes agree on them without telling each other.
"""

from __future__ import annotations

import base64
import hashlib
import json


__all__ = ["canary", "jwt"]


def canary(place: str) -> str:
    """
    Return the secret that is planted at *place*.
    """
    return "cnry" + hashlib.sha256(place.encode()).hexdigest()[:20]


def jwt(place: str) -> str:
    """
    Return a web token whose signature is the canary.
    """
    parts = ({"alg": "HS256"}, {"sub": "1"})
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{head}.{body}.{canary(place)}"
