"""Reports: pure functions of results. summary.py is what they say, formats.py what they are written as."""
