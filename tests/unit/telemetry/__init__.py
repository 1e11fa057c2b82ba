"""
Logs, traces, error reports, and what they share.
"""
