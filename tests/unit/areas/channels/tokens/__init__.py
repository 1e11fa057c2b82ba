"""
Tokens.
"""
