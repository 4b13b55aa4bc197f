"""All that is known of runs, as one HTML page that needs nothing else.

collect.py collects facts, html.py and svg.py write without trusting anyone's words, the files of pictures and sections
draw and say, and page.py puts them in order.
"""

from minigpt.report.collect import ReportOptions
from minigpt.report.page import write_report

__all__ = ["ReportOptions", "write_report"]
