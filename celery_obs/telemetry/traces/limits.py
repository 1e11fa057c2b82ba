"""
How much of a text a span keeps.
"""

from __future__ import annotations

from typing import Final


__all__ = ["LONGEST"]


LONGEST: Final = 512
"""
Characters.
"""
