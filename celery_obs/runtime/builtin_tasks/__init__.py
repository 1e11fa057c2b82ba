"""
Our own tasks in the user's app: registered, scheduled, sent where they belong, and taken away again.
"""
