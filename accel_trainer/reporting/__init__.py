"""What a run looks like to people: figures and one self-contained page."""
