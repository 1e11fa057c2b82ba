"""
Tests of one piece at a time, in memory, milliseconds each.
"""
