"""The tools behind scripts/golf.sh, in rooms; cli.py names the commands."""
