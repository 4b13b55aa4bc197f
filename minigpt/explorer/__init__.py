"""A web page that shows a run from the inside, served to this machine only: `minigpt explore RUN`."""
