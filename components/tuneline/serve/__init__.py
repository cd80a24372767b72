"""Loading a trained model safely, and the PyFunc that MLflow loads it by. Start with model.py."""
