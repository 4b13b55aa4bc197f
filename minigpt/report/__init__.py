"""All that is known of runs, as one HTML page that needs nothing else.

gather.py collects, html.py and svg.py write without trusting anyone's words, plots.py draws, the files of sections
say, and page.py puts them in order.
"""
