"""Step 2: fine-tune a pretrained Transformer. Start with train.py; the loop itself is loop.py."""
