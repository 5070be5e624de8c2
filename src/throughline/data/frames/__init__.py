"""Files of tables as pandas frames: separator and header found, what people write read as numbers, and every defect
named with its cure.
"""

from throughline.data.frames.files import TABLE_FILES, notes, read_frame
from throughline.data.frames.layout import unquoted

__all__ = ["TABLE_FILES", "notes", "read_frame", "unquoted"]
