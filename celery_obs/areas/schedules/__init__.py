"""
Schedules: what beat fires, what succeeded and what is overdue.
"""
