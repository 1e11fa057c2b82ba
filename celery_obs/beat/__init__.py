"""
Beside the schedule: how fresh each of its entries is.
"""
