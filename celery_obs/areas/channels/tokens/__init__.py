"""
Tokens: kept encrypted, refreshed in time, stored before anything else hears of it.
"""
