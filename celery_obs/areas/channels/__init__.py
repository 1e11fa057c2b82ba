"""
Channels: the other companies' APIs that tasks call all day.  On when an app uses them.
"""
