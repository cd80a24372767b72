"""Step 3: measure the model on texts that training never saw, beside a linear baseline. Start with evaluate.py."""
