"""
Tasks.
"""
