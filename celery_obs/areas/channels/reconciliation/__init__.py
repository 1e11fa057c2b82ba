"""
Reconciliation: two calendars compared day by day.
"""
