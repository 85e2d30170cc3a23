"""What Python imports first in the processes that tests/hurried.py starts: effort low is short."""

from dataclasses import replace

from image2cad.common.effort import EFFORTS

EFFORTS["low"] = replace(EFFORTS["low"], seconds=2.0)
