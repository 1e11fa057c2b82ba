"""
The sidecar: reads the metric files, asks the broker and Redis, and serves ``/metrics``, the status page and the API.
"""
