"""
Schedules.
"""
