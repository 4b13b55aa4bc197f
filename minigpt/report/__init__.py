"""What is known of runs, as one HTML page that needs nothing else.

collect.py reads and measures; each *_section.py returns the content of a section, which a template in templates/ shows;
plots.py and svg.py make its plots; page.py puts the sections in order.
"""

from minigpt.report.collect import ReportOptions
from minigpt.report.page import write_report

__all__ = ["ReportOptions", "write_report"]
