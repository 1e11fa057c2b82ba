"""
The write path: from an event to a number in a file that the sidecar reads.

Users declare metrics of their own with `counter`, `gauge` and `histogram`; they travel the same way.
"""

from __future__ import annotations

from .declared import Counter, Gauge, Histogram, counter, gauge, histogram


__all__ = ["Counter", "Gauge", "Histogram", "counter", "gauge", "histogram"]
