"""All that is known of runs, as one HTML page that needs nothing else.

gather.py collects facts, html.py and svg.py write without trusting anyone's words, the files of pictures and sections
draw and say, and page.py puts them in order.
"""

from minigpt.report.gather import Wishes
from minigpt.report.page import write_report

__all__ = ["Wishes", "write_report"]
