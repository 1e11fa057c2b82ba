"""
Error reports.
"""
