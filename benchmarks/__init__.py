"""
What it costs: measured, printed, written down.

Run ``python -m benchmarks`` or ``tox -e bench``; every number comes with that of an alternative, taken in the same run, in turns.
"""
