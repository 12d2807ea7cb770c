"""The distiller in the loops that people already have: Lightning, Hugging Face, timm. Each imported on use."""
