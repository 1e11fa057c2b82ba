"""
``python -m celery_obs.cli``: the same as ``celery-obs``, by way of an interpreter that one knows.
"""

from __future__ import annotations

from . import main


if __name__ == "__main__":
    main()
