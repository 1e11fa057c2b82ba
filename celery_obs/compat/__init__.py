"""
What we use of other libraries that they do not promise to keep: one file a library, one small function or constant an assumption.

Nothing else in celery_obs names an attribute of another library that begins with an underscore.  Each docstring says on its last three lines what is
assumed, on which versions that was seen, and which feature is lost where it no longer holds; a test holds each against the version that is installed.
The worker is to go on in any case.

Nothing here imports anything of ours, and a library that is an extra is imported only within functions.
"""

from __future__ import annotations
