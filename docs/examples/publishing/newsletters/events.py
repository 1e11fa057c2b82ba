"""
Newsletters: what can happen.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


__all__ = ["NewsletterDelivered"]


class NewsletterDelivered(NamedTuple):
    """
    The mail server took a newsletter for one subscriber, or refused it.

    Attributes:
        status: How it ended.
    """

    status: Literal["success", "failure"]
