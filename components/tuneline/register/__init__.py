"""Step 4: decide on the evidence, then register. No torch here. Start with register.py."""
