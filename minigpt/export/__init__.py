"""Models in other programs' formats: `formats.py` lists them, `exporting.py` writes, `importing.py` reads."""
