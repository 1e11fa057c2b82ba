"""
What it costs: measured, printed, written down.
"""
