"""
Logs, traces and error reports, and what they share: redaction and correlation.
"""
