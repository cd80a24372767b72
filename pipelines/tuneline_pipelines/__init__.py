"""What runs on the submitter's machine: the DAGs, and one verb a module. Start with finetune.py."""
