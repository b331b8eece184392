"""What action.yml runs: gate.py measures and compares, comment.py puts what came of it under the pull request."""
