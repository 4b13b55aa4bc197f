"""`python -m minigpt` is `minigpt`."""

from minigpt.cli.app import main

if __name__ == "__main__":
    main()
