"""
Log lines: one for each thing that happened, an identifier and facts.
"""
