"""
Reconciliation.
"""
