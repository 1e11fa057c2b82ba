"""
Metrics of your own: declare counters, gauges and histograms here, and they travel the way of ours.
"""

from __future__ import annotations

from celery_obs.recorder.declared import Counter, Gauge, Histogram, counter, gauge, histogram


__all__ = ["Counter", "Gauge", "Histogram", "counter", "gauge", "histogram"]
