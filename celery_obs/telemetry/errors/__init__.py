"""
Error reports: what goes to Sentry, and what stays here.
"""
