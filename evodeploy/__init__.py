"""Deploy Evo-ViT, the vision transformers that spend full computation on the tokens that matter."""

__version__ = "0.1.0"
