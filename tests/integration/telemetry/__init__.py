"""
Logs, traces and error reports.
"""
