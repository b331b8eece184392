"""The scale, weighed: each part of the program beside the least that could do its work, in turn, in the same run."""
