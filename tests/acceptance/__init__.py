"""
Acceptance tests: worker, beat and sidecar as real processes, judged by what an operator sees on ``/metrics``.
"""
