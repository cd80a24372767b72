"""Step 1: read, check, split and tokenize labelled text. No torch here. Start with prepare.py."""
