"""The shelf of modalities."""
