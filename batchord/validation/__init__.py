"""Validation of an input file as it streams past: which lines may be sent, and what is wrong with the others.

In constant memory, whatever the file's size. It reads and sends nothing itself: bytes come in, accepted lines come out.
"""

from batchord.validation.line import Accepted, model_of, parse_line, with_model
from batchord.validation.scan import RouteLike, Scan, ScanResult
from batchord.validation.seen import Seen
from batchord.validation.splitter import MAX_LINE_BYTES, Line, LineSplitter, numbered_lines, whole_lines

__all__ = [
    "MAX_LINE_BYTES",
    "Accepted",
    "Line",
    "LineSplitter",
    "RouteLike",
    "Scan",
    "ScanResult",
    "Seen",
    "model_of",
    "numbered_lines",
    "parse_line",
    "whole_lines",
    "with_model",
]
